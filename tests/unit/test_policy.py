"""Order and distinctness, against a plain sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.recommend.policy import best_first

candidates = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.1, 0.25, 0.5, 0.75])), max_size=60)


@given(candidates)
def test_best_first_is_a_stable_sort_of_the_distinct(pairs: list[tuple[int, float]]):
    ids, scores = np.array([i for i, _ in pairs], dtype=np.int64), np.array([s for _, s in pairs], dtype=np.float32)
    chosen = best_first(ids, scores)
    strongest: dict[int, float] = {}
    for i, s in pairs:
        strongest[i] = max(s, strongest.get(i, 0.0))
    expected = sorted(strongest, key=lambda i: (-strongest[i], i))
    assert ids[chosen].tolist() == expected
    assert np.allclose(scores[chosen], [strongest[i] for i in expected])
