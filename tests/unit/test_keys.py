"""The distinct keys, and the order of keys, are those that NumPy finds, whatever repeats."""

import numpy as np
import pytest

from recsys.keys import order, unique


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
@pytest.mark.parametrize("high", [1, 3, 10**12])
def test_distinct_keys_ascending(size: int, high: int) -> None:
    keys = np.random.default_rng(size).integers(-high, high, size)
    before = keys.copy()
    np.testing.assert_array_equal(unique(keys), np.unique(keys))
    np.testing.assert_array_equal(keys, before)


@pytest.mark.parametrize("size", [0, 1, 2, 1000, 1024])
@pytest.mark.parametrize("high", [1, 3, 10**12, 2**52, 2**53, 2**62])  # the last ones do not fit beside 1,000 positions
def test_keys_in_order_and_equal_ones_as_they_were(size: int, high: int) -> None:
    keys = np.random.default_rng(size).integers(0, high, size)
    keys[size // 2 :] = keys[: size - size // 2]
    np.testing.assert_array_equal(order(keys), np.argsort(keys, kind="stable"))
