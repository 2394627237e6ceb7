"""What a `FlowModel` is trained for: the likelihood of data, by default, or something else."""

from tfp_flows.objectives.base import Objective
from tfp_flows.objectives.flow_matching import FlowMatching
from tfp_flows.objectives.maximum_likelihood import MaximumLikelihood
from tfp_flows.objectives.noisy_likelihood import NoisyLikelihood
from tfp_flows.objectives.reverse_kl import ReverseKL

__all__ = ["FlowMatching", "MaximumLikelihood", "NoisyLikelihood", "Objective", "ReverseKL"]
