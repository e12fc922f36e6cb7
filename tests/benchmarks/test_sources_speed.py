"""Products of sparse matrices into dense ones, which the sources fit and ask by: a loop of rows, and scipy's own."""

import time

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.sources.rows import matrix, times

_USERS, _PLACES, _VISITS = 8_000, 5_000, 120


def _visits() -> csr_array:
    """(U, C), 1 where a user was; a few places have most of the visitors."""
    rng = np.random.default_rng(0)
    place = (_PLACES * rng.random((_USERS, _VISITS)) ** 2).astype(np.int64)
    key = np.unique(np.arange(_USERS)[:, None] * _PLACES + place)
    return matrix(np.ones(len(key)), (key // _PLACES, key % _PLACES), (_USERS, _PLACES))


def test_dense_products_of_sparse_matrices(capsys: pytest.CaptureFixture[str]) -> None:
    seen = _visits()
    across = csr_array(seen.T)
    kinds = {"common visitors of all places": (across, seen), "48 users by their common places": (seen[:48], across)}
    for name, (rows, by) in kinds.items():
        ours, scipys = [], []
        for _ in range(3):
            start = time.process_time()
            found = times(rows, by)
            between = time.process_time()
            expected = (rows @ by).toarray()
            ours.append(between - start)
            scipys.append(time.process_time() - between)
            assert np.array_equal(found, expected), "sums of whole numbers, so to the last digit"
        with capsys.disabled():
            print(f"\n{name}: {min(ours):.3f} s, {min(scipys) / min(ours):.1f} times as fast as scipy", end="")
        assert min(ours) <= min(scipys) / 1.5
    with capsys.disabled():
        print()
