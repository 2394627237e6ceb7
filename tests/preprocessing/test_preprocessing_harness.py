"""The bijectors of preprocessing through the harness of all bijectors."""

import numpy as np
import pytest

from tfp_flows import preprocessing
from tfp_flows.testing import assert_bijector

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [[6], [2, 3], [2, 2, 3]], ids=str)
def test_logit(shape):
    # Points as far out as float32 has digits for: the sigmoid is flat there.
    size = [6, *shape]
    assert_bijector(
        lambda dtype: preprocessing.Logit(4.0, alpha=0.05, dtype=dtype),
        RNG.uniform(-5, 5, size),
        y=RNG.uniform(0, 4, size),
        event_ndims=len(shape),
        zero_pattern=~np.eye(np.prod(shape), dtype=bool),
    )


@pytest.mark.parametrize("shape", [[3], [2, 2, 3]], ids=str)
def test_standardize(shape):
    assert_bijector(
        lambda dtype: preprocessing.Standardize([1.0, -2.0, 30.0], [0.5, 1, 7.0], dtype=dtype),
        RNG.normal(size=[4, *shape]),
        event_ndims=len(shape),
        zero_pattern=~np.eye(np.prod(shape), dtype=bool),
    )
