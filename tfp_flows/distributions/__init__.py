"""Densities that are no bijection over a base, and flows with their context.

A `FlowModel` takes them as it takes a flow, and they may be the base of one.
"""

from tfp_flows.distributions.augmented import Augmented, Slice
from tfp_flows.distributions.autoregressive import AutoregressiveDistribution
from tfp_flows.distributions.conditioned import Conditioned, condition
from tfp_flows.distributions.ladder import LadderVAE
from tfp_flows.distributions.level_outputs import (
    BernoulliOutput,
    CategoricalOutput,
    DiscretizedLogisticMixtureOutput,
)
from tfp_flows.distributions.made import MADEDistribution
from tfp_flows.distributions.output import Output
from tfp_flows.distributions.outputs import get_output
from tfp_flows.distributions.real_outputs import GaussianMixtureOutput, NormalOutput
from tfp_flows.distributions.sampler import Sampler
from tfp_flows.distributions.stochastic import StochasticDistribution
from tfp_flows.distributions.surjected import Surjected
from tfp_flows.distributions.vae import VAE
from tfp_flows.distributions.vamp_prior import VampPrior

__all__ = [
    "Augmented",
    "AutoregressiveDistribution",
    "BernoulliOutput",
    "CategoricalOutput",
    "Conditioned",
    "DiscretizedLogisticMixtureOutput",
    "GaussianMixtureOutput",
    "LadderVAE",
    "MADEDistribution",
    "NormalOutput",
    "Output",
    "Sampler",
    "Slice",
    "StochasticDistribution",
    "Surjected",
    "VAE",
    "VampPrior",
    "condition",
    "get_output",
]
