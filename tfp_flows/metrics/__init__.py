"""Comparing samples, and the calibration of posteriors."""

from tfp_flows.metrics._samples import Estimate
from tfp_flows.metrics.calibration import Coverage, Ranks, coverage, sbc_ranks
from tfp_flows.metrics.callback import SampleScores
from tfp_flows.metrics.classifier import c2st
from tfp_flows.metrics.manifold import PrecisionRecall, precision_recall
from tfp_flows.metrics.mmd import mmd
from tfp_flows.metrics.wasserstein import sliced_wasserstein, wasserstein

__all__ = [
    "Coverage",
    "Estimate",
    "PrecisionRecall",
    "Ranks",
    "SampleScores",
    "c2st",
    "coverage",
    "mmd",
    "precision_recall",
    "sbc_ranks",
    "sliced_wasserstein",
    "wasserstein",
]
