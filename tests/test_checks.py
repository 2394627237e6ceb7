"""The checks of arguments that all parts share."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import _checks


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), tf.constant(3)])
def test_integers(value):
    found = _checks.positive_integer(value, "size", "Part 'p'")
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [2.0, True, np.bool_(True), np.float32(2.0), "2", None, [2]])
def test_what_is_no_integer_is_refused_alike(value):
    with pytest.raises(TypeError, match=r"^Part 'p': size must be an integer >= 1, got .* of type"):
        _checks.positive_integer(value, "size", "Part 'p'")


def test_ranges():
    assert _checks.integer(0, "seed", "p", least=0) == 0
    with pytest.raises(ValueError, match="^p: seed must be an integer >= 0, got -1.$"):
        _checks.integer(-1, "seed", "p", least=0)
    with pytest.raises(ValueError, match="^p: size must be an integer >= 1, got 0.$"):
        _checks.positive_integer(0, "size", "p")


def test_sequences():
    assert _checks.positive_integers(np.array([3, 4]), "units", "p") == (3, 4)
    assert _checks.positive_integers([], "units", "p") == ()
    for value, remedy in [(8, r"write \(8,\)"), ("88", "give a tuple"), (2.0, "give a tuple")]:
        with pytest.raises(TypeError, match=f"p: units must be a sequence.*{remedy}"):
            _checks.positive_integers(value, "units", "p")
    with pytest.raises(TypeError, match="units must be an integer >= 1, got True"):
        _checks.positive_integers([8, True], "units", "p")


def test_numbers():
    for value in (2, 0.5, np.float32(0.5), np.int64(2)):
        found = _checks.positive_number(value, "epsilon", "p")
        assert found == value and type(found) is float
    for value in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="p: epsilon must be positive and finite, got"):
            _checks.positive_number(value, "epsilon", "p")
    with pytest.raises(ValueError, match="p: epsilon must be positive and finite, got inf"):
        _checks.positive_number(float("inf"), "epsilon", "p")
    for value in (True, "1", None, 1j):
        with pytest.raises(TypeError, match="p: epsilon must be a number, got"):
            _checks.positive_number(value, "epsilon", "p")


def test_seeds():
    assert _checks.optional_seed(None, "p") is None and _checks.optional_seed(np.int64(3), "p") == 3
    with pytest.raises(ValueError, match="^p: seed must be an integer >= 0, got -1.$"):
        _checks.optional_seed(-1, "p")


def test_shapes():
    for value in ([3, 4], np.array([3, 4]), tf.TensorShape([3, 4])):
        assert _checks.known_shape(value, "event_shape", "p") == (3, 4)
    assert _checks.known_shape([3], "event_shape", "p", ranks=(1, 3)) == (3,)
    for value in ([], [None, 4], [0], [2.5], 4, "4", tf.TensorShape(None)):
        with pytest.raises(ValueError, match="^p: event_shape must be known and not empty, got"):
            _checks.known_shape(value, "event_shape", "p")
    with pytest.raises(ValueError, match=r"must be \[D\] or \[H, W, C\], known .*got \[3, 4\]"):
        _checks.known_shape([3, 4], "event_shape", "p", ranks=(1, 3))


def test_names():
    assert _checks.one_of("a", ("a", None), "kind", "p") == "a"
    assert _checks.one_of(None, ("a", None), "kind", "p") is None
    for value in ("b", 3, np.array(["a", "a"])):
        with pytest.raises(ValueError, match=r"p: kind must be one of \('a', None\), got"):
            _checks.one_of(value, ("a", None), "kind", "p")
