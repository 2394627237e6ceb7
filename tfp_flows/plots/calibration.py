"""Whether posteriors are as wide as they say, as a picture."""

import numpy as np

from tfp_flows.plots._canvas import FIRST, PALETTE, figure_of, labelled

_BINS = 20
_STYLES = ("-", "--", ":", "-.")


def calibration(ranks, coverage, *, labels=None):
    """The histogram of each parameter's ranks, and how often its intervals hold the truth.

    Grey is where right posteriors are expected, to two standard deviations. Ranks that are high at
    both ends: posteriors too narrow; in the middle: too wide; at one end: shifted. A curve of the
    last panel below the diagonal: too narrow, or shifted; above: too wide.

    Args:
      ranks: of `metrics.sbc_ranks`, for parameters `[d]`.
      coverage: of `metrics.coverage`, for the same ones.
      labels: names of the parameters. Default: `parameter 1`, ...

    Returns:
      A `matplotlib.figure.Figure`, as `plots.pairs`.

    Raises:
      ImportError: if matplotlib is not installed (extra `plots`).
      TypeError, ValueError: for anything else, or other numbers of parameters.

    >>> from tfp_flows import metrics
    >>> rng = np.random.default_rng(0)
    >>> draws, truths = rng.normal(size=(99, 500, 2)), rng.normal(size=(500, 2))
    >>> ranks, covered = metrics.sbc_ranks(draws, truths), metrics.coverage(draws, truths)
    >>> len(calibration(ranks, covered, labels=["mass", "spin"]).axes)
    3
    """
    owner = "plots.calibration"
    for value, name, attribute in ((ranks, "ranks", "ranks"), (coverage, "coverage", "observed")):
        if not hasattr(value, attribute):
            function = "sbc_ranks" if name == "ranks" else "coverage"
            raise TypeError(
                f"{owner}: {name} must be what metrics.{function} returns, got "
                f"{type(value).__name__}."
            )
    n = len(ranks.ranks)
    by_entry = ranks.ranks.reshape(n, -1)
    size = by_entry.shape[1]
    observed = coverage.observed.reshape(len(coverage.levels), -1)
    if observed.shape[1] != size:
        raise ValueError(
            f"{owner}: ranks are of {size} parameters, coverage is of {observed.shape[1]}. Make "
            "both of the same draws."
        )
    texts = labelled(labels, None, size, owner, default="parameter {}")
    across = min(size + 1, 4)
    down = -(-(size + 1) // across)
    figure, axes = figure_of(owner, down, across, (3.2 * across, 3.0 * down))
    panels = list(axes.ravel())
    edges = _edges(ranks.num_draws)
    counts = np.diff(edges)  # of the ranks that fall in each bin
    expected = n * counts / (ranks.num_draws + 1)
    spread = 2.0 * np.sqrt(expected * (1.0 - counts / (ranks.num_draws + 1)))
    p_values = ranks.p_values.reshape(-1)
    for entry in range(size):
        axis = panels[entry]
        band = {"baseline": expected - spread, "fill": True, "color": "0.85"}
        axis.stairs(expected + spread, edges, **band)
        found = np.histogram(by_entry[:, entry], edges)[0]
        axis.stairs(found, edges, color=FIRST, lw=1.5)
        axis.set_title(f"{texts[entry]}, p = {p_values[entry]:.2g}", fontsize=10)
        axis.set_xlabel(f"rank among {ranks.num_draws} draws")
        axis.set_ylim(0, None)
    axis = panels[size]
    levels, error = coverage.levels, 2.0 * coverage.standard_error
    axis.fill_between(levels, levels - error, levels + error, color="0.85")
    for entry in range(size):
        how = {"color": PALETTE[entry % len(PALETTE)], "marker": ".", "label": texts[entry]}
        axis.plot(levels, observed[:, entry], _STYLES[entry // len(PALETTE) % len(_STYLES)], **how)
    axis.set(xlabel="level of the interval", ylabel="share that holds the truth")
    axis.legend(fontsize=7)
    for axis in panels[size + 1 :]:
        axis.set_axis_off()
    return figure


def _edges(num_draws):
    """Edges between ranks, of bins as even as they can be."""
    bins = min(_BINS, num_draws + 1)
    first = np.arange(bins + 1) * (num_draws + 1) // bins
    return first - 0.5
