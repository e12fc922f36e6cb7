"""The distinct keys are those that NumPy finds, whatever repeats."""

import numpy as np
import pytest

from recsys.keys import unique


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
@pytest.mark.parametrize("high", [1, 3, 10**12])
def test_distinct_keys_ascending(size: int, high: int) -> None:
    keys = np.random.default_rng(size).integers(-high, high, size)
    before = keys.copy()
    np.testing.assert_array_equal(unique(keys), np.unique(keys))
    np.testing.assert_array_equal(keys, before)
