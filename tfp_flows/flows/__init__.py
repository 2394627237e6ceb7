"""Recipes: each composes bijectors and conditioners into a `tfd.TransformedDistribution`."""

from tfp_flows.flows.continuous import continuous
from tfp_flows.flows.flow_plus_plus import flow_plus_plus
from tfp_flows.flows.gaussian import gaussian
from tfp_flows.flows.glow import glow
from tfp_flows.flows.guided import guided
from tfp_flows.flows.iaf import iaf
from tfp_flows.flows.jet import jet
from tfp_flows.flows.macow import macow
from tfp_flows.flows.made import made
from tfp_flows.flows.maf import maf
from tfp_flows.flows.nice import nice
from tfp_flows.flows.pixel_cnn import pixel_cnn
from tfp_flows.flows.pixel_rnn import pixel_rnn
from tfp_flows.flows.planar import planar
from tfp_flows.flows.real_nvp import real_nvp
from tfp_flows.flows.residual import residual
from tfp_flows.flows.resnet_vae import resnet_vae
from tfp_flows.flows.sylvester import sylvester
from tfp_flows.flows.tarflow import tarflow
from tfp_flows.flows.wavenet import wavenet

__all__ = [
    "continuous",
    "flow_plus_plus",
    "gaussian",
    "glow",
    "guided",
    "iaf",
    "jet",
    "macow",
    "made",
    "maf",
    "nice",
    "pixel_cnn",
    "pixel_rnn",
    "planar",
    "real_nvp",
    "residual",
    "resnet_vae",
    "sylvester",
    "tarflow",
    "wavenet",
]
