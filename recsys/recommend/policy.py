"""From scored candidates to a list: order, distinct, length. Pure functions over arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


def best(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.floating[Any]], top_k: int) -> Order:
    """Positions of the best distinct candidates, best first; equal scores by the smaller id.

    Args:
        ids: (C,) candidate ids.
        scores: (C,) their scores, finite.
        top_k: at most this many.

    Returns:
        (K,) positions into `ids`.
    """
    order = np.lexsort((ids, -scores))
    _, first = np.unique(ids[order], return_index=True)
    kept: Order = order[np.sort(first)][:top_k]
    return kept
