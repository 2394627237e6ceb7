"""Pictures of densities, samples and posteriors, as matplotlib figures."""

from tfp_flows.plots.calibration import calibration
from tfp_flows.plots.density import density_2d
from tfp_flows.plots.images import images
from tfp_flows.plots.pairs import pairs
from tfp_flows.plots.predictive import predictive

__all__ = ["calibration", "density_2d", "images", "pairs", "predictive"]
