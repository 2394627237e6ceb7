"""Flow libraries in PyTorch: nflows, normflows, zuko and FrEIA, eager as their users run them.

This module imports no TensorFlow: it runs in an environment of its own
(`benchmark.py --peers-python`).
"""

import itertools
import math
import time

import torch
from torch import nn

from peers import works

LEARNING_RATE = 1e-3


def mlp(inputs, hidden_units, outputs):
    """Returns dense layers with ReLU whose last one starts at zero."""
    layers, previous = [], inputs
    for units in hidden_units:
        layers += [nn.Linear(previous, units), nn.ReLU()]
        previous = units
    last = nn.Linear(previous, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def convnet(inputs, outputs, filters=128):
    """Returns Glow's network: 3x3, 1x1 and 3x3 convolutions, the last one zero."""
    last = nn.Conv2d(filters, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first, middle = nn.Conv2d(inputs, filters, 3, padding=1), nn.Conv2d(filters, filters, 1)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)


class NflowsMLP(nn.Module):
    """A network with the signature nflows calls."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs, context=None):
        """Returns the parameters; there is no context."""
        return self.network(inputs)


def nflows(work, options):
    """Returns (module, log_prob, sample) of nflows."""
    from nflows import distributions, flows, transforms

    def mask(dim, turn):
        return (torch.arange(dim) % 2 == turn % 2).float() * 2 - 1

    steps, dim = [], work.event_shape[0]
    if work.name in works.MAF_SIZES:
        num_layers, hidden_units = works.MAF_SIZES[work.name]
        for _ in range(num_layers):
            steps.append(
                transforms.MaskedAffineAutoregressiveTransform(
                    dim, hidden_units[0], num_blocks=1, use_residual_blocks=False
                )
            )
            steps.append(transforms.ReversePermutation(dim))
    elif work.name == "realnvp":
        for turn in range(10):
            steps.append(
                transforms.AffineCouplingTransform(
                    mask(dim, turn), lambda i, o: NflowsMLP(mlp(i, (512, 512), o))
                )
            )
    elif work.name == "spline":
        for turn in range(6):
            steps.append(
                transforms.PiecewiseRationalQuadraticCouplingTransform(
                    mask(dim, turn),
                    lambda i, o: NflowsMLP(mlp(i, (128, 128), o)),
                    num_bins=works.SPLINE_BINS,
                    tails="linear",
                    tail_bound=works.SPLINE_BOUND,
                )
            )
    else:
        multiscale = transforms.MultiscaleCompositeTransform(num_transforms=3)
        shape = (3, 32, 32)
        for _ in range(3):
            squeeze = transforms.SqueezeTransform()
            shape = squeeze.get_output_shape(*shape)
            level = [squeeze]
            for _ in range(options["glow_steps"]):
                level += [
                    transforms.ActNorm(shape[0]),
                    transforms.OneByOneConvolution(shape[0]),
                    transforms.AffineCouplingTransform(
                        (torch.arange(shape[0]) >= shape[0] // 2).float() * 2 - 1,
                        lambda i, o: NflowsMLP(convnet(i, o)),
                    ),
                ]
            shape = multiscale.add_transform(transforms.CompositeTransform(level), shape)
        transform, base = multiscale, distributions.StandardNormal([3 * 32 * 32])
        flow = flows.Flow(transform, base)
        return flow, flow.log_prob, flow.sample
    flow = flows.Flow(transforms.CompositeTransform(steps), distributions.StandardNormal([dim]))
    return flow, flow.log_prob, flow.sample


def normflows(work, options):
    """Returns (module, log_prob, sample) of normflows."""
    import normflows as nf

    dim, steps = work.event_shape[0], []
    if work.name == "glow":
        channels = [12, 24, 48]
        levels, merges, bases = [], [], []
        for i, width in enumerate(reversed(channels)):
            blocks = [nf.flows.GlowBlock(width, 128) for _ in range(options["glow_steps"])]
            levels.append([*blocks, nf.flows.Squeeze()])
            size = 4 * 2**i
            if i > 0:
                merges.append(nf.flows.Merge())
            bases.append(nf.distributions.DiagGaussian((width // (1 if i == 0 else 2), size, size)))
        flow = nf.MultiscaleFlow(bases, levels, merges, class_cond=False)
        return flow, lambda x: flow.log_prob(x, None), lambda n: flow.sample(n)[0]
    if work.name in works.MAF_SIZES:
        num_layers, hidden_units = works.MAF_SIZES[work.name]
        for _ in range(num_layers):
            steps.append(
                nf.flows.MaskedAffineAutoregressive(
                    dim, hidden_units[0], num_blocks=1, use_residual_blocks=False
                )
            )
            steps.append(nf.flows.Permute(dim, mode="swap"))
    elif work.name == "realnvp":
        for turn in range(10):
            mask = (torch.arange(dim) % 2 == turn % 2).float()
            networks = [mlp(dim, (512, 512), dim) for _ in range(2)]
            steps.append(nf.flows.MaskedAffineFlow(mask, *networks))
    else:
        for turn in range(6):
            steps.append(
                nf.flows.CoupledRationalQuadraticSpline(
                    dim, 1, 128, num_bins=8, tail_bound=works.SPLINE_BOUND, reverse_mask=turn % 2
                )
            )
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), steps)
    return flow, flow.log_prob, lambda n: flow.sample(n)[0]


def zuko(work, options):
    """Returns (module, log_prob, sample) of zuko."""
    import zuko

    dim = work.event_shape[0]
    if work.name in works.MAF_SIZES:
        num_layers, hidden_units = works.MAF_SIZES[work.name]
        flow = zuko.flows.MAF(dim, transforms=num_layers, hidden_features=hidden_units)
    elif work.name == "realnvp":
        flow = zuko.flows.RealNVP(dim, transforms=10, hidden_features=(512, 512))
    elif work.name == "spline":
        # An autoregressive order of two passes is a coupling.
        flow = zuko.flows.NSF(
            dim, transforms=6, bins=works.SPLINE_BINS, passes=2, hidden_features=(128, 128)
        )
    else:
        raise works.Unsupported("zuko has no image flow")
    return flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))


def freia(work, options):
    """Returns (module, log_prob, sample) of FrEIA."""
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    def log_density(z, log_det):
        parts = z if isinstance(z, (tuple, list)) else [z]
        z = torch.cat([part.flatten(1) for part in parts], dim=1)
        return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    if work.name == "realnvp":
        flow = ff.SequenceINN(work.event_shape[0])
        for _ in range(10):
            flow.append(fm.PermuteRandom)
            flow.append(
                fm.AffineCouplingOneSided, subnet_constructor=lambda i, o: mlp(i, (512, 512), o)
            )
        shapes = [work.event_shape]
    elif work.name == "glow":
        nodes = [ff.InputNode(3, 32, 32)]
        outputs, shapes, last, width, size = [], [], nodes[0].out0, 3, 32

        def add(last, module, args=None):
            nodes.append(ff.Node(last, module, args or {}))
            return nodes[-1].out0

        for level in range(3):
            last = add(last, fm.IRevNetDownsampling)
            width, size = width * 4, size // 2
            for _ in range(options["glow_steps"]):
                last = add(last, fm.ActNorm)
                last = add(last, fm.PermuteRandom)
                last = add(last, fm.AffineCouplingOneSided, {"subnet_constructor": convnet})
            if level < 2:
                nodes.append(ff.Node(last, fm.Split, {}))
                width //= 2
                outputs.append(nodes[-1].out1)
                shapes.append((width, size, size))
                last = nodes[-1].out0
        outputs.append(last)
        shapes.append((width, size, size))
        flow = ff.GraphINN([*nodes, *(ff.OutputNode(output) for output in outputs)])
    else:
        raise works.Unsupported(f"FrEIA has no model for {work.name!r}")

    def sample(n):
        device = next(flow.parameters()).device
        parts = [torch.randn(n, *shape, device=device) for shape in shapes]
        return flow(parts if len(parts) > 1 else parts[0], rev=True, jac=False)[0]

    return flow, lambda x: log_density(*flow(x)), sample


LIBRARIES = {"nflows": nflows, "normflows": normflows, "zuko": zuko, "freia": freia}


class Contender(works.Contender):
    """One PyTorch library."""

    def __init__(self, library, work, xla, options):
        super().__init__(work, xla, options)
        torch.set_num_threads(options["threads"])
        torch.manual_seed(0)
        self.cuda = options["gpu"] and torch.cuda.is_available()
        device = torch.device("cuda" if self.cuda else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
        torch.backends.cudnn.allow_tf32 = options["tf32"]
        flow, log_prob, sample = LIBRARIES[library](work, options)
        flow.to(device).train()
        data = works.make_batches(work)
        if work.name == "glow":
            data = data.transpose(0, 1, 4, 2, 3).copy()
        data = [torch.from_numpy(batch).to(device) for batch in data]
        batches = itertools.cycle(data)
        with torch.no_grad():
            # Data-dependent initialisations.
            log_prob(data[0])
        optimizer = torch.optim.Adam(flow.parameters(), LEARNING_RATE, fused=self.cuda or None)

        def train():
            optimizer.zero_grad(set_to_none=True)
            loss = -log_prob(next(batches)).mean()
            loss.backward()
            optimizer.step()

        def without_gradients(call):
            def timed():
                flow.eval()
                with torch.no_grad():
                    call().cpu()
                flow.train()

            return timed

        self.calls = {
            "train": train,
            "log_prob": without_gradients(lambda: log_prob(data[0])),
            "sample": without_gradients(lambda: sample(work.sample)),
        }
        parameters = sum(p.numel() for p in flow.parameters())
        self.notes = f"{parameters:,} parameters on {device.type}"

    def first_step(self):
        """Trains one step and waits for it."""
        self.calls["train"]()
        if self.cuda:
            torch.cuda.synchronize()

    def time_calls(self, cell, num):
        """Times training as `fit` is: one figure, the steps running ahead of the device."""
        if cell != "train":
            return super().time_calls(cell, num)
        num = max(num, 20)
        start = time.perf_counter()
        for _ in range(num):
            self.calls["train"]()
        if self.cuda:
            torch.cuda.synchronize()
        return [(time.perf_counter() - start) * 1e3 / num]

    def device_memory_mb(self):
        """Returns the peak of what PyTorch has allocated on the GPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.cuda else None
