"""Networks for bijectors: Keras 3 layers that map an input and a context to parameters.

Any Keras layer will do in their place, but take care in half precision on a CPU. Under
`mixed_bfloat16` the bias of a stock `Dense` or convolution has a wrong gradient there: Keras
adds it by `tf.nn.bias_add`, whose gradient TensorFlow sums in bfloat16 (Keras 3.15, TF 2.21), which
is far off for thousands of rows. Use these layers, which add it otherwise, or compile by XLA
(`compile(..., jit_compile=True)`), which sums in float32.
"""

from tfp_flows.conditioners.base import Conditioner
from tfp_flows.conditioners.causal_transformer import CausalTransformer
from tfp_flows.conditioners.convnet import ConvNet
from tfp_flows.conditioners.convolution import Convolution
from tfp_flows.conditioners.diagonal_bilstm import DiagonalBiLSTM
from tfp_flows.conditioners.gated_convnet import GatedConvNet
from tfp_flows.conditioners.lipschitz import LipschitzMLP
from tfp_flows.conditioners.made import MADE
from tfp_flows.conditioners.mlp import MLP
from tfp_flows.conditioners.pixel_cnn import PixelCNN
from tfp_flows.conditioners.resnet import ResNet
from tfp_flows.conditioners.row_convnet import RowConvNet
from tfp_flows.conditioners.row_lstm import RowLSTM
from tfp_flows.conditioners.vision_transformer import VisionTransformer
from tfp_flows.conditioners.wavenet import WaveNet

__all__ = [
    "CausalTransformer",
    "Conditioner",
    "ConvNet",
    "Convolution",
    "DiagonalBiLSTM",
    "GatedConvNet",
    "LipschitzMLP",
    "MADE",
    "MLP",
    "PixelCNN",
    "ResNet",
    "RowConvNet",
    "RowLSTM",
    "VisionTransformer",
    "WaveNet",
]
