"""Order and distinctness, against a plain sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.recommend.policy import arrange, best_first

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


row = st.tuples(st.integers(0, 30), st.floats(0, 1, width=32), st.floats(0, 5, width=16))
rows = st.lists(row, min_size=1, max_size=25, unique_by=lambda r: r[0])


@given(
    rows, st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 30), st.integers(0, 99)
)
def test_an_arrangement_is_the_greedy_loop(made: list, diversity: float, novelty: float, top_k: int, seed: int):
    ids, scores, visitors = (np.array(column) for column in zip(*made, strict=True))
    vectors = np.random.default_rng(seed).normal(size=(len(ids), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = arrange(ids, scores, vectors, visitors, diversity=diversity, novelty=novelty, top_k=top_k)
    assert sorted(order.tolist()) == list(range(len(ids)))

    def scaled(values: np.ndarray) -> np.ndarray:
        spread = values.max() - values.min()
        return (values - values.min()) / spread if spread > 0 else np.zeros(len(values))

    worth = scores
    if novelty:
        worth = (1 - novelty) * scaled(scores) + novelty * (1 - scaled(visitors))
    if not diversity:
        assert order.tolist() == sorted(range(len(ids)), key=lambda i: (-worth[i], ids[i]))
        return
    worth, taken = scaled(worth), []
    for at in order[:top_k].tolist():

        def value(i: int, taken: list[int]) -> float:
            nearest = max((float(vectors[i] @ vectors[j]) for j in taken), default=0.0)
            return (1 - diversity) * float(worth[i]) - diversity * nearest

        best = max(value(i, taken) for i in range(len(ids)) if i not in taken)
        assert value(at, taken) >= best - 1e-9
        taken.append(at)
