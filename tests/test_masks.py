"""Masks of couplings and degrees of MADE."""

import subprocess
import sys

import numpy as np
import pytest

from tfp_flows import masks


def test_imports_without_tensorflow():
    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('masks', {masks.__file__!r});"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "mask, expected",
    [
        (masks.halves(2), [1, 0]),
        (masks.halves(5), [1, 1, 1, 0, 0]),
        (masks.halves(5, flip=True), [0, 0, 0, 1, 1]),
        (masks.alternating(5), [1, 0, 1, 0, 1]),
        (masks.alternating(4, flip=True), [0, 1, 0, 1]),
        (masks.explicit([3, 0], 4), [1, 0, 0, 1]),
        (masks.explicit(np.array([1]), np.int64(2)), [0, 1]),
        (masks.checkerboard([2, 2, 1])[..., 0], [[1, 0], [0, 1]]),
        (masks.checkerboard([3, 2, 1], flip=True)[..., 0], [[0, 1], [1, 0], [0, 1]]),
        (masks.checkerboard((1, 2, 1))[..., 0], [[1, 0]]),
        (masks.channel([1, 1, 3])[0, 0], [1, 1, 0]),
        (masks.channel([1, 1, 3], flip=True)[0, 0], [0, 0, 1]),
    ],
)
def test_entries(mask, expected):
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, np.array(expected, dtype=bool))


def test_image_masks_are_full_and_constant_where_they_should_be():
    board = masks.checkerboard([4, 6, 3])
    assert board.shape == (4, 6, 3)
    assert (board == board[..., :1]).all() and board.sum() == 36
    parts = masks.channel([4, 6, 3])
    assert parts.shape == (4, 6, 3)
    assert (parts == parts[0, 0]).all() and parts.sum() == 48


@pytest.mark.parametrize(
    "make",
    [
        lambda flip: masks.halves(7, flip=flip),
        lambda flip: masks.alternating(7, flip=flip),
        lambda flip: masks.checkerboard([3, 5, 2], flip=flip),
        lambda flip: masks.channel([3, 5, 2], flip=flip),
    ],
)
def test_flip_is_the_complement(make):
    np.testing.assert_array_equal(make(True), ~make(False))
    assert masks.check(make(False)) is not None
    assert make(False).flags.writeable


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: masks.halves(1), ValueError, "halves: size must be at least 2, got 1: one part"),
        (lambda: masks.alternating(0), ValueError, "alternating: size must be at least 2, got 0"),
        (lambda: masks.halves(2.0), TypeError, r"halves: size must be an integer, got 2\.0"),
        (lambda: masks.halves(True), TypeError, "halves: size must be an integer, got True"),
        (lambda: masks.explicit([0], 1), ValueError, "explicit: size must be at least 2, got 1"),
        (lambda: masks.explicit([4], 4), ValueError, r"lie in 0\.\.3, got \[4\]"),
        (lambda: masks.explicit([-1], 4), ValueError, r"lie in 0\.\.3, got \[-1\]"),
        (lambda: masks.explicit([1, 1], 4), ValueError, r"distinct, got \[1, 1\]"),
        (lambda: masks.explicit([0.5], 4), TypeError, r"each index must be an integer, got 0\.5"),
        (
            lambda: masks.explicit([], 4),
            ValueError,
            "explicit: the mask passes nothing",
        ),
        (
            lambda: masks.explicit([0, 1], 2),
            ValueError,
            "explicit: the mask transforms nothing",
        ),
        (lambda: masks.checkerboard([4, 4]), ValueError, r"must be \[H, W, C\].*got \[4, 4\]"),
        (lambda: masks.checkerboard([4, 0, 1]), ValueError, r"all positive, got \[4, 0, 1\]"),
        (lambda: masks.checkerboard([1, 1, 8]), ValueError, "H \\* W >= 2.*masks.channel"),
        (lambda: masks.checkerboard([4.0, 4, 1]), TypeError, "each entry of event_shape"),
        (lambda: masks.channel([4, 4, 1]), ValueError, "C >= 2.*Squeeze the image first"),
        (lambda: masks.channel([4]), ValueError, r"must be \[H, W, C\].*got \[4\]"),
        (lambda: masks.check([1, 2]), ValueError, "expected a Boolean mask, got int64"),
        (lambda: masks.check([True, True]), ValueError, "transforms nothing: all 2 entries"),
        (lambda: masks.check([[False]]), ValueError, "passes nothing through: all 1 entries"),
        (lambda: masks.check(np.zeros(0, bool)), ValueError, "transforms nothing"),
        (lambda: masks.input_degrees(0), ValueError, "input_degrees: size must be at least 1"),
        (lambda: masks.input_degrees(3, "sideways"), ValueError, "left-to-right.*got 'sideways'"),
        (
            lambda: masks.input_degrees(3, [0, 1]),
            ValueError,
            r"permutation of 0\.\.2, got \[0, 1\]",
        ),
        (lambda: masks.input_degrees(3, [1, 2, 3]), ValueError, r"permutation of 0\.\.2"),
        (lambda: masks.input_degrees(3, [0, 1, 1]), ValueError, r"permutation of 0\.\.2"),
        (lambda: masks.input_degrees(2, [0.0, 1.0]), ValueError, r"permutation of 0\.\.1"),
        (lambda: masks.input_degrees(2, None), ValueError, "got None"),
        (lambda: masks.hidden_degrees(0, 3), ValueError, "units must be at least 1, got 0"),
        (lambda: masks.hidden_degrees(2.5, 3), TypeError, "units must be an integer"),
        (lambda: masks.hidden_degrees(4, 3, how="odd"), ValueError, "'equal', 'random', got 'odd'"),
        (lambda: masks.hidden_degrees(4, 3, minimum=3), ValueError, r"0\.\.2 for size 3, got 3"),
        (lambda: masks.hidden_degrees(4, 3, minimum=-1), ValueError, r"0\.\.2 for size 3, got -1"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_input_degrees():
    np.testing.assert_array_equal(masks.input_degrees(4), [1, 2, 3, 4])
    np.testing.assert_array_equal(masks.input_degrees(4, "right-to-left"), [4, 3, 2, 1])
    np.testing.assert_array_equal(masks.input_degrees(3, (2, 0, 1)), [3, 1, 2])
    np.testing.assert_array_equal(masks.input_degrees(1), [1])
    drawn = masks.input_degrees(50, "random", seed=1)
    np.testing.assert_array_equal(drawn, masks.input_degrees(50, "random", seed=1))
    np.testing.assert_array_equal(np.sort(drawn), np.arange(1, 51))
    assert (drawn != masks.input_degrees(50, "random", seed=2)).any()


@pytest.mark.parametrize("how", ["equal", "random"])
@pytest.mark.parametrize(
    "units, size, minimum", [(64, 8, None), (7, 8, 0), (3, 8, 5), (5, 1, None)]
)
def test_hidden_degrees(how, units, size, minimum):
    degrees = masks.hidden_degrees(units, size, how=how, seed=3, minimum=minimum)
    least = min(1, size - 1) if minimum is None else minimum
    assert degrees.shape == (units,) and np.issubdtype(degrees.dtype, np.integer)
    assert (np.diff(degrees) >= 0).all()
    assert degrees.min() >= least and degrees.max() <= size - 1
    np.testing.assert_array_equal(
        degrees, masks.hidden_degrees(units, size, how=how, seed=3, minimum=minimum)
    )
    if how == "equal":
        counts = np.bincount(degrees, minlength=size)[least:]
        assert counts.max() - counts.min() <= 1
