"""From scored candidates to a list: order, and each once. Pure functions over arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


def best_first(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.floating[Any]]) -> Order:
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
