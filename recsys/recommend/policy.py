"""From scored candidates to a list: order, variety, and each once. Pure functions over arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.stages import stage

Order = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@stage("policy")
def best_first(ids: npt.NDArray[np.int64], scores: Floats) -> Order:
    """Positions of the distinct candidates, best first; equal scores by the smaller id.

    Args:
        ids: (C,) candidate ids.
        scores: (C,) their scores, finite.

    Returns:
        (K,) positions into `ids`; K is C where ids are distinct.
    """
    order = np.lexsort((ids, -scores))
    _, first = np.unique(ids[order], return_index=True)
    kept: Order = order[np.sort(first)]
    return kept


@stage("policy")
def arrange(
    ids: npt.NDArray[np.int64], scores: Floats, vectors: Floats, visitors: Floats, *, diversity: float, novelty: float,
    top_k: int,
) -> Order:  # fmt: skip
    """The order of an answer: best first, or with what a request asks of a list besides.

    Args:
        ids, scores: as for `best_first`.
        vectors: (C, D) unit vectors.
        visitors: (C,) how many had been there, on any scale that grows with it.
        diversity: 0 to 1: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998) with lambda = 1 - diversity,
            over the cosine of the vectors, for the first `top_k`.
        novelty: 0 to 1: the share of worth that is having few visitors instead of a high score, both scaled to [0, 1]
            over the candidates.
        top_k: how many will be taken.

    Returns:
        (K,) positions into `ids`; by the scores alone where both are 0.
    """
    worth = scores
    if novelty:
        worth = (1 - novelty) * _scaled(scores) + novelty * (1 - _scaled(visitors))
    order = best_first(ids, worth)
    return _spread(order, _scaled(worth), vectors, diversity, top_k) if diversity and len(order) else order


def _spread(order: Order, worth: Floats, vectors: Floats, diversity: float, top_k: int) -> Order:
    worth, vectors = worth[order], vectors[order]
    left, nearest = np.ones(len(order), dtype=bool), np.zeros(len(order))
    taken: list[int] = []
    for _ in range(min(top_k, len(order))):
        value = np.where(left, (1 - diversity) * worth - diversity * nearest, -np.inf)
        best = int(np.argmax(value))  # the first of equals: the better one by itself
        cosine = vectors @ vectors[best]
        nearest = np.maximum(nearest, cosine) if taken else cosine
        left[best] = False
        taken.append(best)
    return np.concatenate([order[taken], order[left]])


def _scaled(values: Floats) -> Floats:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    out: Floats = (values - low) / (high - low) if high > low else np.zeros(len(values))
    return out
