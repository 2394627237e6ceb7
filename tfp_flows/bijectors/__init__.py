"""The structures: `tfb.Bijector`s that take a conditioner and never build one."""

from tfp_flows.bijectors.actnorm import ActNorm
from tfp_flows.bijectors.base import FlowBijector, Weight
from tfp_flows.bijectors.batch_norm import BatchNorm
from tfp_flows.bijectors.chain import Chain
from tfp_flows.bijectors.composition import context_kwargs
from tfp_flows.bijectors.context_map import ContextMap
from tfp_flows.bijectors.continuous import Continuous
from tfp_flows.bijectors.conv1x1 import InvertibleConv1x1
from tfp_flows.bijectors.coupling import AdditiveCoupling, AffineCoupling, Coupling
from tfp_flows.bijectors.factor_out import FactorOut
from tfp_flows.bijectors.inverse_autoregressive import InverseAutoregressive
from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressive
from tfp_flows.bijectors.masked_convolution import MaskedConvolution
from tfp_flows.bijectors.modes import (
    data_dependent_initialization,
    in_training_mode,
    training_mode,
)
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.orthogonal import Householder, Orthogonal
from tfp_flows.bijectors.periodic import PeriodicConvolution
from tfp_flows.bijectors.planar import Planar
from tfp_flows.bijectors.radial import Radial
from tfp_flows.bijectors.repeat import Repeat
from tfp_flows.bijectors.rescale import Rescale
from tfp_flows.bijectors.residual import Residual
from tfp_flows.bijectors.squeeze import Squeeze
from tfp_flows.bijectors.stochastic import StochasticTransform, likelihood_of
from tfp_flows.bijectors.surjections import AbsoluteValue, Sort
from tfp_flows.bijectors.sylvester import Sylvester

__all__ = [
    "AbsoluteValue",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BatchNorm",
    "Chain",
    "ContextMap",
    "Continuous",
    "Coupling",
    "FactorOut",
    "FlowBijector",
    "Householder",
    "InverseAutoregressive",
    "InvertibleConv1x1",
    "MaskedAutoregressive",
    "MaskedConvolution",
    "Network",
    "Orthogonal",
    "PeriodicConvolution",
    "Planar",
    "Radial",
    "Repeat",
    "Rescale",
    "Residual",
    "Sort",
    "Squeeze",
    "StochasticTransform",
    "Sylvester",
    "Weight",
    "context_kwargs",
    "data_dependent_initialization",
    "in_training_mode",
    "likelihood_of",
    "training_mode",
]
