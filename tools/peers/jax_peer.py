"""Flow libraries in JAX: flowjax and distrax, their steps jitted.

This module imports no TensorFlow: it runs in an environment of its own
(`benchmark.py --peers-python`).
"""

import itertools
import time

import jax
import jax.numpy as jnp
import optax

from peers import works

LEARNING_RATE = 1e-3


def flowjax(work):
    """Returns (parameters, log_prob(parameters, x), sample(parameters, key, n)) of flowjax."""
    import equinox as eqx
    import paramax
    from flowjax import bijections, distributions, flows

    (dim,) = work.event_shape
    options = {"key": jax.random.key(0), "base_dist": distributions.Normal(jnp.zeros(dim))}
    if work.name in works.MAF_SIZES:
        num_layers, hidden_units = works.MAF_SIZES[work.name]
        flow = flows.masked_autoregressive_flow(
            **options, flow_layers=num_layers, nn_width=hidden_units[0], nn_depth=len(hidden_units)
        )
    elif work.name == "realnvp":
        flow = flows.coupling_flow(**options, flow_layers=10, nn_width=512, nn_depth=2)
    else:
        spline = bijections.RationalQuadraticSpline(
            knots=works.SPLINE_BINS, interval=works.SPLINE_BOUND
        )
        flow = flows.coupling_flow(
            **options, transformer=spline, flow_layers=6, nn_width=128, nn_depth=2
        )
    leaf = lambda node: isinstance(node, paramax.NonTrainable)  # noqa: E731
    parameters, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=leaf)

    def whole(parameters):
        return paramax.unwrap(eqx.combine(parameters, static))

    return (
        parameters,
        lambda parameters, x: whole(parameters).log_prob(x),
        lambda parameters, key, n: whole(parameters).sample(key, (n,)),
    )


def distrax(work):
    """Returns (parameters, log_prob(parameters, x), sample(parameters, key, n)) of distrax."""
    import distrax
    import haiku as hk

    (dim,) = work.event_shape
    if work.name == "realnvp":
        couplings, hidden_units, outputs = 10, (512, 512), 2
    elif work.name == "spline":
        couplings, hidden_units, outputs = 6, (128, 128), 3 * works.SPLINE_BINS + 1
    else:
        raise works.Unsupported(f"distrax has no model for {work.name!r}")

    def bijector(parameters):
        if work.name == "spline":
            return distrax.RationalQuadraticSpline(
                parameters,
                range_min=-works.SPLINE_BOUND,
                range_max=works.SPLINE_BOUND,
                boundary_slopes="unconstrained",
            )
        shift, log_scale = parameters[..., 0], parameters[..., 1]
        return distrax.ScalarAffine(shift=shift, log_scale=jnp.tanh(log_scale))

    def make():
        layers = []
        for turn in range(couplings):
            network = hk.Sequential(
                [
                    hk.nets.MLP(hidden_units, activate_final=True),
                    hk.Linear(dim * outputs, w_init=jnp.zeros, b_init=jnp.zeros),
                    hk.Reshape((dim, outputs), preserve_dims=-1),
                ]
            )
            layers.append(
                distrax.MaskedCoupling(jnp.arange(dim) % 2 == turn % 2, network, bijector)
            )
        base = distrax.MultivariateNormalDiag(jnp.zeros(dim), jnp.ones(dim))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    log_prob = hk.without_apply_rng(hk.transform(lambda x: make().log_prob(x)))
    sample = hk.transform(lambda n: make().sample(seed=hk.next_rng_key(), sample_shape=(n,)))
    parameters = log_prob.init(jax.random.key(0), jnp.zeros((2, dim)))
    return parameters, log_prob.apply, sample.apply


LIBRARIES = {"flowjax": flowjax, "distrax": distrax}


class Contender(works.Contender):
    """One JAX library; everything is compiled by XLA, whatever the mode."""

    def __init__(self, library, work, xla, options):
        super().__init__(work, xla, options)
        if len(work.event_shape) != 1:
            raise works.Unsupported(f"{library} has no image flow")
        precision = "default" if options["tf32"] else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        parameters, log_prob, sample = LIBRARIES[library](work)
        data = [jnp.asarray(batch) for batch in works.make_batches(work)]
        batches = itertools.cycle(data)
        optimizer = optax.adam(LEARNING_RATE)

        @jax.jit
        def step(parameters, state, x):
            loss = lambda parameters: -log_prob(parameters, x).mean()  # noqa: E731
            gradients = jax.grad(loss)(parameters)
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state

        self.state = (parameters, optimizer.init(parameters))
        density, draw = jax.jit(log_prob), jax.jit(sample, static_argnums=2)
        if library == "distrax":
            draw = jax.jit(lambda parameters, key, n: sample(parameters, key, n), static_argnums=2)
        keys = iter(lambda: jax.random.key(next(numbers)), None)
        numbers = itertools.count()

        def train():
            self.state = step(*self.state, next(batches))

        self.calls = {
            "train": train,
            "log_prob": lambda: jax.block_until_ready(density(self.state[0], data[0])),
            "sample": lambda: jax.block_until_ready(
                draw(self.state[0], next(keys), self.work.sample)
            ),
        }
        sizes = sum(leaf.size for leaf in jax.tree_util.tree_leaves(parameters))
        self.notes = f"{sizes:,} parameters on {jax.default_backend()}"

    def first_step(self):
        """Trains one step and waits for it."""
        self.calls["train"]()
        jax.block_until_ready(self.state)

    def time_calls(self, cell, num):
        """Times training as `fit` is: one figure, the steps running ahead of the device."""
        if cell != "train":
            return super().time_calls(cell, num)
        num = max(num, 20)
        start = time.perf_counter()
        for _ in range(num):
            self.calls["train"]()
        jax.block_until_ready(self.state)
        return [(time.perf_counter() - start) * 1e3 / num]

    def device_memory_mb(self):
        """Returns the peak of what JAX has in use on the GPU."""
        stats = jax.devices()[0].memory_stats() or {}
        return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None
