"""Networks for bijectors: Keras 3 layers that map an input and a context to parameters."""

from tfp_flows.conditioners.base import Conditioner
from tfp_flows.conditioners.convnet import ConvNet
from tfp_flows.conditioners.made import MADE
from tfp_flows.conditioners.mlp import MLP
from tfp_flows.conditioners.resnet import ResNet

__all__ = ["Conditioner", "ConvNet", "MADE", "MLP", "ResNet"]
