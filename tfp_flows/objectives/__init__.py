"""What a `FlowModel` is trained for: the likelihood of data, by default, or something else."""

from tfp_flows.objectives.base import Objective
from tfp_flows.objectives.distillation import Distillation
from tfp_flows.objectives.elbo import ELBO, WarmUp
from tfp_flows.objectives.flow_matching import FlowMatching
from tfp_flows.objectives.maximum_likelihood import MaximumLikelihood
from tfp_flows.objectives.noisy_likelihood import NoisyLikelihood
from tfp_flows.objectives.reverse_kl import ReverseKL
from tfp_flows.objectives.two_samples import MMD, SlicedWasserstein

__all__ = [
    "Distillation",
    "ELBO",
    "FlowMatching",
    "MMD",
    "MaximumLikelihood",
    "NoisyLikelihood",
    "Objective",
    "ReverseKL",
    "SlicedWasserstein",
    "WarmUp",
]
