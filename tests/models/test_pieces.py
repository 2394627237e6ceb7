"""`compile(micro_batch_size=...)`: a batch in pieces is the batch; and Keras's own accumulation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from fitting import C, W, X, real_nvp, same, tfd

import tfp_flows
from tfp_flows import FlowModel, bijectors, flows, masks, objectives, preprocessing
from tfp_flows.models.pieces import sum_over_pieces

IMAGES = np.random.default_rng(3).integers(0, 17, size=(40, 4, 4, 1)).astype("uint8")


class Regularized(keras.layers.Layer):
    """A network with a regularizer, and with a weight that no loss reaches."""

    def build(self, input_shape):
        zeros = {"initializer": "zeros"}
        self.kernel = self.add_weight(shape=(1, 2), regularizer="l2", initializer="ones")
        self.bias = self.add_weight(shape=(2,), **zeros)
        self.unused = self.add_weight(shape=(1,), **zeros)

    def call(self, x):
        return tf.tanh(tf.matmul(x, tf.convert_to_tensor(self.kernel))) + self.bias


def coupling():
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    part = bijectors.AffineCoupling(Regularized(), masks.halves(2))
    return tfd.TransformedDistribution(base, part)


def conditional():
    return FlowModel(real_nvp(context_size=3, actnorm=True))


def images():
    flow = flows.glow([4, 4, 1], num_levels=1, num_steps=2, hidden_filters=4, seed=0)
    return FlowModel(flow, dequantization=preprocessing.UniformDequantization(17, seed=3))


def matching():
    flow = flows.continuous([2], hidden_units=(4,), solver="rk4", num_steps=1, seed=0)
    return FlowModel(flow, objective=objectives.FlowMatching())


# Model, data, the optimizer's arguments, compile's, most rows of a piece: of batches of 16, 16, 8.
CASES = {
    "weights_context": (
        conditional,
        {"x": X, "y": C, "sample_weight": W},
        {"use_ema": True},
        {"steps_per_execution": 2},
        7,
    ),
    "dequantized_clipped": (images, {"x": IMAGES}, {"global_clipnorm": 0.5}, {}, 5),
    "xla": (conditional, {"x": X, "y": C}, {}, {"jit_compile": True}, 8),
    "objective": (matching, {"x": X}, {}, {}, 7),  # Its noise is by the row.
    "eager": (lambda: FlowModel(coupling()), {"x": X}, {}, {"run_eagerly": True}, 6),
}


def trained(case, size):
    """Weights, the optimizer's state and what was reported."""
    make, data, optimizer, options, _ = CASES[case]
    model = make()
    optimizer = keras.optimizers.Adam(0.02, epsilon=0.01, **optimizer)
    model.compile(optimizer, micro_batch_size=size, **options)
    validation = {"validation_data": tuple(data.values())} if len(data) == 3 else {}
    history = model.fit(**data, **validation, batch_size=16, shuffle=False, verbose=0).history
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]], history


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("case", CASES)
def test_a_batch_in_pieces_is_the_batch(case):
    whole, history = trained(case, None)
    pieces, in_pieces = trained(case, CASES[case][-1])
    same(pieces, whole, rtol=2e-6, atol=1e-6)
    assert not np.allclose(whole[0], 0.0)
    for name, values in history.items():
        np.testing.assert_allclose(in_pieces[name], values, rtol=1e-5)


def test_memory_is_that_of_a_piece():
    memory = tf.config.experimental
    weights = tf.Variable(tf.ones([1, 256]))

    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.tanh(tf.exp(tf.sin(x @ weights))))
        return loss, tape.gradient(loss, weights), None

    def peak(function):
        function = tf.function(function, autograph=False)
        x = tf.linspace([0.0], [1.0], 4097)
        results = function(x)
        before = memory.get_memory_info("CPU:0")["current"]
        memory.reset_memory_stats("CPU:0")
        function(x)
        return memory.get_memory_info("CPU:0")["peak"] - before, results

    sizes = []

    def of_piece(x, n, number):
        sizes.append(x.shape.as_list())
        return gradient(x)

    whole, expected = peak(gradient)
    pieces, found = peak(lambda x: sum_over_pieces(of_piece, x, 256))
    assert found[2] is None and sizes == [[None, 1]]
    same(found[:2], expected[:2], rtol=1e-5)
    assert pieces < whole / 8


def test_pieces_are_as_large_as_can_be():
    x = tf.range(11)

    def rows(piece, n, number):
        return tf.one_hot(n, 3, dtype=tf.int32) * tf.size(piece)

    for function in (sum_over_pieces, tf.function(sum_over_pieces)):
        # Of a batch whose size is known too: no trace may be of one piece's size.
        assert function(rows, x, 4).numpy().tolist() == [3, 4, 4]
        assert function(rows, x[:0], 4).numpy().tolist() == [0, 0, 0]


def test_each_piece_has_a_seed_of_its_own():
    """Of an objective that draws its own noise."""

    class Draws(objectives.Objective):
        seen = []

        def loss(self, distribution, batch, seed):
            self.seen.append(seed.numpy().tolist())
            return -distribution.log_prob(batch[0])

    model = FlowModel(coupling(), objective=Draws())
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True, micro_batch_size=4)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        model.fit(X[:16], batch_size=8, verbose=0)
    assert len({tuple(seed) for seed in Draws.seen}) == len(Draws.seen) == 4


def test_what_a_sum_over_pieces_would_not_be():
    model = FlowModel(real_nvp())
    with pytest.raises(
        ValueError, match="compile: micro_batch_size must be an integer >= 1, got 0"
    ):
        model.compile(micro_batch_size=0)
    with pytest.raises(TypeError, match="micro_batch_size"):
        model.compile(micro_batch_size=2.0)
    with pytest.raises(ValueError, match="MMD compares the rows.*take a smaller batch"):
        FlowModel(real_nvp(), objective=objectives.MMD()).compile(micro_batch_size=4)
    flow, pairs = flows.continuous([2]), objectives.FlowMatching(coupling="optimal_transport")
    with pytest.raises(ValueError, match="FlowMatching compares the rows"):
        FlowModel(flow, objective=pairs).compile(micro_batch_size=4)
    with pytest.raises(ValueError, match="BatchNorm '.*' normalizes by the moments.*ActNorm"):
        FlowModel(real_nvp(batch_normalization=True)).compile(micro_batch_size=4)
    network = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    part = bijectors.AffineCoupling(network, masks.halves(2))
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), part)
    with pytest.raises(ValueError, match="BatchNormalization '.*' normalizes"):
        FlowModel(flow).compile(micro_batch_size=4)


def test_a_file_keeps_it(tmp_path):
    model = FlowModel(real_nvp())
    model.compile(micro_batch_size=6)
    model.save(tmp_path / "model.keras")
    loaded = tfp_flows.load(tmp_path / "model.keras")
    assert loaded.get_compile_config()["micro_batch_size"] == 6
    model.compile()
    assert "micro_batch_size" not in model.get_compile_config()


# --- Keras's own: the mean of the means of batches. ---


def test_accumulated_batches_are_one_batch():
    """Equal ones, with clipping, which is of the sum."""

    def fit(steps):
        model = FlowModel(real_nvp(actnorm=True))
        optimizer = keras.optimizers.Adam(
            0.02, epsilon=0.01, clipnorm=0.5, gradient_accumulation_steps=steps
        )
        model.compile(optimizer)
        model.initialize(X)
        size = 20 // (steps or 1)
        model.fit(X, batch_size=size, epochs=2, shuffle=False, verbose=0)
        return [v.numpy() for v in model.variables]

    whole, accumulated = fit(None), fit(4)
    same(accumulated, whole, rtol=1e-6, atol=1e-6)
