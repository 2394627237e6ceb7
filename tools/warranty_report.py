"""What each elementwise map keeps at the edge of its arguments: a table.

    python tools/warranty_report.py                       # every map
    python tools/warranty_report.py --maps affine bernstein --modes eager graph

Arguments of a size up to 1e3, a third of them within 4; raw parameters with a deviation of 1
("usual") and up to 50 either way ("extreme"); float32 and float64; both directions. The figures:

  round trip     the largest error of there and back, in roundings: over eps times the larger of
                 the arguments' and results' sizes (at least 1) and times what the way back
                 magnifies by. Some tens are good; of a rounding that is magnified by 1e6, 1e6 is
                 unavoidable.
  absolute       the largest error of there and back of an argument within 4, as it is.
  log-det        the largest error of the log-det, over 1 + |log-det|, against float64 at the
                 same arguments; in float64 against that of autodiff of the formula.
  not finite     how many values, log-dets and gradients (by argument and parameters) are not.
  modes          the largest difference of graph and XLA from eager mode, in roundings as above.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

from tfp_flows import elementwise

MAPS = {
    "shift": elementwise.get("shift"),
    "affine": elementwise.get("affine"),
    "affine, sigmoid": elementwise.get("affine", log_scale="sigmoid"),
    **{
        name: elementwise.get(name)
        for name in (
            "linear_spline",
            "quadratic_spline",
            "rational_quadratic_spline",
            "affine_rational_quadratic_spline",
            "circular_rational_quadratic_spline",
            "bernstein",
            "logistic_mixture_cdf",
            "monotone_network",
        )
    },
}
BACK = {"forward": "inverse", "inverse": "forward"}
PARAMETERS = ("usual", "extreme")


def draw(m, rows, kind, dtype):
    """Arguments `[rows, 1]` and parameters, the same numbers in either dtype."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=rows)
    x = np.where(np.arange(rows) % 3 == 0, rng.uniform(0, 4, rows), 10 ** rng.uniform(-3, 3, rows))
    x[:4] = [0.0, 3.0, 4.0, 1e3]
    if isinstance(m, elementwise.CircularRationalQuadraticSpline):
        x = rng.uniform(0, np.pi, rows)
    shape = (rows, m.num_parameters)
    parameters = rng.normal(size=shape)
    if kind == "extreme":
        # Of any size up to the largest, and all of them the largest in every fourth row.
        parameters = rng.uniform(-50, 50, size=shape) * rng.uniform(size=(rows, 1))
        parameters[::4] = rng.choice([-50.0, 50.0], size=parameters[::4].shape)
    # Through float32, so that both dtypes see the same numbers.
    both = (signs * x)[:, np.newaxis], parameters
    return [tf.constant(v.astype(np.float32).astype(dtype)) for v in both]


def evaluate(m, direction, mode):
    """A function of argument and parameters: value, log-det, way back and gradients."""

    def call(v, parameters):
        with tf.GradientTape() as tape:
            tape.watch([v, parameters])
            value, log_det = getattr(m, direction)(v, parameters)
            # Far out a square is infinite; a sine is not.
            target = tf.reduce_sum(tf.sin(value) + tf.sin(log_det))
        gradients = tape.gradient(target, [v, parameters], unconnected_gradients="zero")
        back, _ = getattr(m, BACK[direction])(value, parameters)
        return value, log_det, back, *gradients

    if mode == "eager":
        return call
    return tf.function(call, jit_compile=mode == "xla")


def distance(m, a, b):
    """|a - b|, on the circle for angles."""
    error = np.abs(a.astype(np.float64) - b)
    if isinstance(m, elementwise.CircularRationalQuadraticSpline):
        error = np.minimum(error, 2 * np.pi - error)
    return error


def magnified(v, value, log_det, eps, lost):
    """The size that one rounding on the way there and back has in the argument."""
    size = np.maximum(1.0, np.abs(v))
    return eps * (size + np.maximum(1.0, np.abs(value)) * np.exp(-log_det) + lost)


def autodiff_log_det(m, direction, v, parameters):
    """The log of the derivative by autodiff."""
    with tf.GradientTape() as tape:
        tape.watch(v)
        value, _ = getattr(m, direction)(v, parameters)
    return np.log(tape.gradient(value, v))


def row(m, kind, dtype, direction, modes, rows):
    """The figures of one line."""
    eps = float(np.finfo(dtype).eps)
    v, parameters = draw(m, rows, kind, dtype)
    found = {mode: evaluate(m, direction, mode)(v, parameters) for mode in modes}
    found = {mode: [t.numpy() for t in tensors] for mode, tensors in found.items()}
    value, log_det, back, *_ = found[modes[0]]
    exact = [tf.cast(t, tf.float64) for t in (v, parameters)]
    if dtype == np.float64:
        wanted = autodiff_log_det(m, direction, *exact)
    else:
        wanted = getattr(m, direction)(*exact)[1].numpy()
    v = v.numpy()
    error = distance(m, back, v)
    # A parameter as large as 50 is lost in a rounding as an argument of 50 is.
    lost = np.abs(parameters.numpy()).max(axis=1, keepdims=True)
    rounding = magnified(v, value, log_det.astype(np.float64), eps, lost)
    near = np.abs(v) <= 4
    differences = [
        (distance(m, tensors[0], value) / (rounding * np.maximum(np.exp(log_det), 1.0))).max()
        for tensors in found.values()
    ]
    return {
        "round trip": (error / rounding).max(),
        "absolute": error[near].max(),
        "log-det": (np.abs(log_det - wanted) / (1 + np.abs(wanted))).max(),
        "not finite": sum(int((~np.isfinite(t)).sum()) for ts in found.values() for t in ts),
        "modes": max(differences),
    }


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", nargs="*", default=list(MAPS), choices=list(MAPS))
    parser.add_argument("--modes", nargs="*", default=["eager", "graph", "xla"])
    parser.add_argument("--rows", type=int, default=2000)
    args = parser.parse_args()
    start = time.perf_counter()
    columns = ("round trip", "absolute", "log-det", "not finite", "modes")
    print("| map | dtype | parameters | direction |", " | ".join(columns), "|")
    print("|---" * (4 + len(columns)) + "|")
    total = 0
    for name in args.maps:
        for dtype in (np.float32, np.float64):
            for kind in PARAMETERS:
                for direction in BACK:
                    figures = row(MAPS[name], kind, dtype, direction, args.modes, args.rows)
                    total += figures["not finite"]
                    cells = [f"{figures[c]:.2g}" for c in columns]
                    cells[3] = str(figures["not finite"])
                    print(
                        f"| {name} | {dtype.__name__} | {kind} | {direction} |",
                        " | ".join(cells),
                        "|",
                        flush=True,
                    )
    print(f"\n{total} values or gradients that are not finite, {args.rows} rows a line, modes")
    print(f"{', '.join(args.modes)}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
