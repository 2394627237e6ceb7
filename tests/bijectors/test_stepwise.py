"""The stepwise engine against D passes, its gradients, its checks, and networks of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn import perturbed

from tfp_flows import FlowModel, bijectors, conditioners, elementwise, flows, testing
from tfp_flows.bijectors.modes import reading

MAF, IAF = bijectors.MaskedAutoregressive, bijectors.InverseAutoregressive


@keras.saving.register_keras_serializable(package="tests")
class RunningSum(keras.layers.Layer):
    """A user's own network on `[4]`: parameters from a weighted sum of the entries before."""

    num_steps, step_entries = 4, np.array([[2], [0], [3], [1]])

    def build(self, input_shape):
        initializer = keras.initializers.RandomNormal(stddev=0.5, seed=1)
        self.kernel = self.add_weight(name="kernel", shape=(2, 4), initializer=initializer)

    def call(self, x):
        order = self.step_entries[:, 0]
        before = tf.cumsum(tf.gather(x, order, axis=1), axis=1, exclusive=True)
        before = tf.gather(before, np.argsort(order), axis=1)
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.tanh(tf.concat([before * kernel[0], before * kernel[1]], 1))

    def init_cache(self, n, context, dtype):
        return tf.zeros([n, 1], dtype)

    def step(self, cache, s, previous):
        before = cache + previous
        here = tf.gather(self.step_entries[:, 0], s)
        kernel = tf.gather(tf.cast(self.kernel, previous.dtype), here, axis=1)
        return tf.tanh(before[:, tf.newaxis] * kernel[:, tf.newaxis]), before


def wavenet(
    shape=(5, 2), *, kind=MAF, map_name="affine", dtype="float64", bijector_dtype=None, **kwargs
):
    """A bijector with random weights."""
    elementwise_map = elementwise.get(map_name)
    kwargs = {"filters": 3, "dilations": (1, 2), "activation": "tanh", **kwargs}
    layer = conditioners.WaveNet(
        shape, elementwise_map.num_parameters, seed=0, dtype=dtype, **kwargs
    )
    return perturbed(kind(layer, elementwise_map, dtype=bijector_dtype or dtype))


def by_passes(bijector, u, context=None):
    """The plain reference: as many evaluations of the network as there are entries."""
    x = log_det = tf.zeros_like(u)
    act = bijector.elementwise.forward if type(bijector) is MAF else bijector.elementwise.inverse
    kwargs = {} if context is None else {"context": context}
    for _ in range(np.prod(u.shape[1:])):
        x, log_det = act(u, bijector.conditioner(x, **kwargs))
    return x, tf.reduce_sum(log_det, axis=list(range(1, u.shape.rank)))


def sequentially(bijector, u, context=None):
    act = bijector.forward_and_log_det if type(bijector) is MAF else bijector.inverse_and_log_det
    x, log_det = act(u, context)
    return x, tf.broadcast_to(log_det, u.shape[:1])


def value_and_gradients(run, bijector, u, context=None):
    sources = [u, *bijector.trainable_variables, *tf.nest.flatten(context)]
    sources = [s for s in sources if s is not None]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        x, log_det = run(bijector, u, context)
        target = tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(log_det**2)
    zero = tf.UnconnectedGradients.ZERO
    return [x, log_det, *tape.gradient(target, sources, unconnected_gradients=zero)]


def own(kind=MAF):
    return kind(RunningSum(dtype="float64"), size=4, dtype=tf.float64)


SETTINGS = {
    "iaf, both contexts, right to left": (
        lambda: wavenet(kind=IAF, context_size={"all": 2, "steps": [5, 3]}, order="right-to-left"),
        (5, 2),
    ),
    "shift": (lambda: wavenet(map_name="shift"), (5, 2)),
    "spline": (lambda: wavenet((3, 1), map_name="rational_quadratic_spline"), (3, 1)),
    "one of one's own": (own, (4,)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_agrees_with_one_pass_an_entry_and_so_do_its_gradients(name):
    make, shape = SETTINGS[name]
    bijector = make()
    rng = np.random.default_rng(5)
    u = tf.constant(rng.normal(size=(3, *shape)))
    context = None
    if bijector.context_size is not None:
        context = {
            "all": tf.constant(rng.normal(size=(3, 2))),
            "steps": tf.constant(rng.normal(size=(3, 5, 3))),
        }
    wanted = value_and_gradients(by_passes, bijector, u, context)
    got = value_and_gradients(sequentially, bijector, u, context)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    assert all(np.abs(g).max() > 1e-6 for g in wanted[2:])


def test_gradient_inside_a_compiled_function():
    bijector, u = own(IAF), tf.constant(np.random.default_rng(0).normal(size=(3, 4)))
    run = tf.function(lambda: value_and_gradients(sequentially, bijector, u)[2:], jit_compile=True)
    wanted = value_and_gradients(by_passes, bijector, u)[2:]
    for a, b in zip(run(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


class Bend(elementwise.OneWayMap):
    """v + sinh(exp(a) v), whose inverse has no formula."""

    num_parameters = 1

    def _closed(self, v, natural):
        rate = tf.exp(natural[0])
        return v + tf.sinh(rate * v), tf.math.log1p(rate * tf.cosh(rate * v))

    def _bracket(self, w, natural):
        return -tf.abs(w), tf.abs(w)


@pytest.mark.parametrize("rows", [False, True])
def test_gradients_of_a_numeric_map_in_a_loop_are_those_of_the_closed_way(rows):
    """Of y = f(x) the gradients are those of x = f^-1(y), which no loop goes."""
    numeric = Bend()
    kwargs = {"seed": 0, "dtype": "float64", "filters": 3, "zero_output": False}
    if rows:
        net = conditioners.RowConvNet(1, **kwargs)
        flow = bijectors.MaskedConvolution(net, [3, 1, 1], numeric, dtype=tf.float64)
    else:
        net = conditioners.WaveNet([3, 1], 1, dilations=(1,), **kwargs)
        flow = bijectors.MaskedAutoregressive(net, numeric, dtype=tf.float64)
    rng = np.random.default_rng(0)
    for v in flow.trainable_variables:
        v.assign_add(0.3 * rng.normal(size=v.shape))
    weights, x = flow.trainable_variables, tf.constant(rng.normal(size=(1, *flow._domain)))
    y = flow.forward(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, y])
        last = tf.reshape(tf.function(flow.forward, autograph=False)(x), [3])[2]
        back = tf.unstack(tf.reshape(flow.inverse(tf.identity(y)), [3]))
    jacobian = np.stack([np.reshape(tape.gradient(entry, y), [3]) for entry in back])
    row = np.linalg.inv(jacobian)[2]  # Of dy/dx, and dy/dw = -(dy/dx) dx/dw.
    np.testing.assert_allclose(np.reshape(tape.gradient(last, x), [3]), row, rtol=1e-8, atol=1e-10)
    found = tape.gradient(last, weights, unconnected_gradients="zero")
    bars = [tf.constant(-r) for r in row]
    wanted = tape.gradient(back, weights, bars, unconnected_gradients="zero")
    assert max(float(tf.reduce_max(abs(g))) for g in wanted) > 1e-3
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_second_derivatives():
    bijector, u = own(), tf.constant(np.random.default_rng(0).normal(size=(2, 4)))

    def second(run):
        with tf.GradientTape() as outer:
            outer.watch(u)
            gradient = value_and_gradients(run, bijector, u)[2]
            target = tf.reduce_sum(tf.cos(gradient))
        return outer.gradient(target, u)

    np.testing.assert_allclose(second(sequentially), second(by_passes), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("batch", [(), (2, 1, 2)])
def test_any_batch_shape_and_a_context_that_broadcasts(batch):
    bijector = wavenet(context_size=[5, 2], kind=IAF)
    rng = np.random.default_rng(0)
    y, context = tf.constant(rng.normal(size=(*batch, 5, 2))), tf.constant(rng.normal(size=(5, 2)))
    x, log_det = bijector.inverse_and_log_det(y, context)
    assert x.shape == y.shape and log_det.shape == batch
    back, minus = bijector.forward_and_log_det(x, context)
    np.testing.assert_allclose(back, y, atol=1e-12)
    np.testing.assert_allclose(minus, -log_det, atol=1e-12)


def test_the_graph_and_the_cache_do_not_grow_with_the_number_of_steps():
    def sizes(steps):
        bijector = wavenet((steps, 1), dtype="float32")
        cache = bijector.conditioner.init_cache(2, None, tf.float32)
        kept = sum(int(ring.size()) for ring in cache["rings"])
        traced = tf.function(bijector.forward).get_concrete_function(
            tf.TensorSpec([None, steps, 1], tf.float32)
        )
        graph = traced.graph.as_graph_def()
        return kept, len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert sizes(64) == sizes(8)
    assert sizes(8)[0] == 5  # 2 + 3, the dilations and the step itself


def test_half_precision_networks_are_sampled_in_the_dtype_of_the_bijector():
    bijector = wavenet(dtype="mixed_bfloat16", bijector_dtype="float32")
    exact = wavenet(dtype="float32")
    u = tf.constant(np.random.default_rng(0).normal(size=(3, 5, 2)), tf.float32)
    np.testing.assert_allclose(bijector.forward(u), exact.forward(u), rtol=1e-5, atol=1e-5)
    near = bijector.inverse(exact.forward(u)).numpy()  # by the call, in bfloat16
    np.testing.assert_allclose(near, u, atol=0.1)
    assert np.abs(near - u).max() > 1e-4
    bijector.check_conditioner()


def test_eager_calls_read_what_is_put_in_place_of_variables():
    bijector, u = own(), tf.constant(np.random.default_rng(0).normal(size=(2, 4)))
    before = bijector.forward(tf.identity(u)).numpy()
    (variable,) = bijector.trainable_variables
    with reading([(variable, tf.zeros_like(variable))]):
        np.testing.assert_allclose(bijector.forward(tf.identity(u)), u)
    np.testing.assert_array_equal(bijector.forward(tf.identity(u)), before)


# --- What it refuses, and what it says. ---


class Leaking(RunningSum):
    """Its call sees the entry itself."""

    def call(self, x):
        return super().call(x + 0.0) + 1e-2 * tf.concat([x, x], 1)


class Disagreeing(RunningSum):
    """Its steps forget a part of what came before."""

    def step(self, cache, s, previous):
        return super().step(tf.where(s == 3, 0.5 * cache, cache), s, previous)


class Narrow(RunningSum):
    """Its steps give too few parameters."""

    def step(self, cache, s, previous):
        parameters, cache = super().step(cache, s, previous)
        return parameters[:, :1], cache


class Twice(RunningSum):
    step_entries = np.array([[0], [1], [2], [2]])


class Short(RunningSum):
    num_steps = 3


class InPairs(RunningSum):
    """Its steps know their place in a cycle as an integer."""

    cycle = 2

    def step(self, cache, s, previous, phase):
        there = tf.debugging.assert_equal(s % 2, phase)
        with tf.control_dependencies([there]):
            return super().step(cache + (0.0, 1e-9)[phase], s, previous)


class InThrees(RunningSum):
    cycle = 3


class Still(RunningSum):
    cycle = 0


class CallAlone(keras.layers.Layer):
    """The network of `RunningSum`, without steps."""

    build, call = RunningSum.build, RunningSum.call
    step_entries = RunningSum.step_entries


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            Leaking,
            "not autoregressive: the parameters of entry 0, which step 1 gives, depend on "
            "entry 0 of step 1",
        ),
        (Disagreeing, "step and call of .* disagree: .* 1 of 4 entries, .* first about entry 1"),
    ],
)
def test_networks_that_break_their_word(layer, message):
    MAF(layer(), size=4)  # not asked for
    with pytest.raises(ValueError, match=message):
        MAF(layer(), size=4, validate_args=True)
    with pytest.raises(AssertionError, match="conditioners_are_autoregressive.*" + message):
        testing.assert_bijector(
            lambda: MAF(layer(), size=4),
            np.ones([3, 4], "float32"),
            event_ndims=1,
            skip=set(testing.CHECKS) - {"conditioners_are_autoregressive"},
        )


def test_a_step_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"parameters of shape \[n, 2, 1\], got \(None, 1, 1\)"):
        MAF(Narrow(), size=4).forward(tf.zeros([2, 4]))


def test_steps_that_are_told_their_place_in_a_cycle():
    u = tf.constant(np.random.default_rng(0).normal(size=(2, 4)))
    y = MAF(InPairs(dtype="float64"), size=4, dtype=tf.float64).forward(u)
    np.testing.assert_allclose(y, own().forward(u), atol=1e-8)


def test_a_sound_network_passes_and_gets_its_weights_back():
    layer = RunningSum()
    bijector = MAF(layer, size=4)
    before = layer.kernel.numpy()
    bijector.check_conditioner()
    np.testing.assert_array_equal(layer.kernel, before)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Twice, r"each of the 4 entries once, got one of shape \[4, 1\]"),
        (Short, "has 3 num_steps, but step_entries of 4 steps"),
        (InThrees, "has a cycle of 3, which must divide its 4 steps"),
        (Still, "cycle of '.*' must be an integer >= 1, got 0"),
    ],
)
def test_wrong_step_entries(layer, message):
    with pytest.raises(ValueError, match=message):
        MAF(layer(), size=4)


def test_call_alone_works_and_says_what_to_add():
    bijector = MAF(CallAlone(dtype="float64"), size=4, dtype=tf.float64)
    u = tf.constant(np.random.default_rng(0).normal(size=(2, 4)))
    with pytest.warns(UserWarning, match="called 4 times.*give it num_steps, init_cache, step "):
        y = bijector.forward(u)
    np.testing.assert_allclose(y, own().forward(u), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"event_shape": [4, 2]},
            r"got event_shape \[4, 2\], .* made for events of shape \[5, 2\]",
        ),
        ({"size": 5}, "got size 5, but"),
        ({"size": 5, "event_shape": [5, 2]}, "got both"),
        ({"event_shape": []}, "one or more sizes"),
    ],
)
def test_wrong_event_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        MAF(conditioners.WaveNet([5, 2], filters=2), **arguments)


def test_one_vector_where_one_a_step_is_meant():
    bijector = wavenet(context_size=[5, 3])
    with pytest.raises(
        ValueError, match=r"\[..., 5, 3\], got \[2, 3\]. It has one vector an event"
    ):
        bijector.forward(tf.zeros([2, 5, 2], tf.float64), context=tf.zeros([2, 3]))


# --- As a whole. ---


@pytest.mark.parametrize(
    ("recipe", "shape", "kwargs"),
    [
        (flows.wavenet, [4, 1], {"filters": 4, "skip_filters": 512}),
        (flows.pixel_cnn, [2, 2, 1], {"hidden_filters": 512, "filters": 4, "num_layers": 1}),
        (flows.pixel_rnn, [2, 2, 1], {"hidden_filters": 512, "filters": 4, "num_layers": 1}),
        (
            flows.tarflow,
            [2, 2, 1],
            {"patch_size": 1, "width": 512, "expansion": 1, "num_layers": 1},
        ),
    ],
)
def test_recipes_go_to_and_fro_and_bound_what_a_step_of_adam_does(recipe, shape, kwargs):
    flow = recipe(shape, num_blocks=16, seed=0, **kwargs)
    blocks = flow.bijector.bijectors
    assert flow.event_shape == shape and flow.name == recipe.__name__ and len(blocks) == 16
    assert [b.conditioner.order for b in blocks[:3]] == [
        "left-to-right",
        "right-to-left",
        "left-to-right",
    ]
    assert blocks[0].elementwise.rate == 1 / 8  # (2048 / (16 * 512))^(3/2)
    assert blocks[0].elementwise.cap == 30 / 16
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(flow.bijector.inverse(x), x, atol=1e-6)  # fresh: the identity
    seeds = {b.conditioner.seed for b in blocks}
    assert len(seeds) == 16
    with pytest.raises(TypeError, match=f"flows.{recipe.__name__}: unexpected argument bins"):
        recipe(shape, bins=3)
    with pytest.raises(ValueError, match=f"flows.{recipe.__name__}: num_blocks"):
        recipe(shape, num_blocks=0)
    with pytest.raises(ValueError, match=f"flows.{recipe.__name__}: event_shape"):
        recipe([4])


def test_a_sequence_flow_trains_and_serves(tmp_path):
    """The base of the steps is white; the data are not: a random walk, whose density is known."""
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(256, 6, 1)), axis=1).astype("float32")
    model = FlowModel(flows.wavenet([6, 1], filters=8, dilations=(1, 2), seed=0))
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    first = -np.mean(model.log_prob(x))
    model.fit(x, epochs=12, batch_size=32, verbose=0)
    exact = 0.5 * 6 * np.log(2 * np.pi * np.e)  # nats, of six independent normal steps
    last = -np.mean(model.log_prob(x))
    assert last < exact + 0.3 * (first - exact)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    latent = rng.normal(size=(3, 6, 1)).astype("float32")
    np.testing.assert_allclose(
        served.forward(z=latent)["x"], model.forward(latent), rtol=1e-4, atol=1e-4
    )
