"""Candidates of many sources, by reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.sources.rows import Floats, Ints

_PER_SOURCE: Final = 80  # candidates that a source may name
_RANK: Final = 20.0  # reciprocal rank fusion adds 1 / (this + rank)


class Fusion:
    """Scores of C candidates for B users, which sources add to.

    Args:
        users: B.
        start: (C,) what decides between those whom no source names; small beside what a source adds.
    """

    def __init__(self, users: int, start: Floats) -> None:
        self._rows = np.arange(users)[:, None]
        self._score = np.tile(start, (users, 1))
        self._marks = np.zeros(self._score.shape, dtype=np.uint8)
        self._most = len(start)

    def listed(self, bit: int, at: Ints) -> None:
        """A source names (B, n) or, for all alike, (1, n) positions, best first."""
        self._score[self._rows, at] += 1 / (_RANK + np.arange(at.shape[1], dtype=np.float32))
        self._marks[self._rows, at] |= 1 << bit

    def valued(self, bit: int, values: Floats, *, always: bool = False) -> None:
        """A source names the largest of (B, C) values that are above 0; `always`: before all of the others."""
        at = _top(values, _PER_SOURCE)
        positive = np.take_along_axis(values, at, axis=1) > 0
        fused = 1 / (_RANK + np.arange(at.shape[1], dtype=np.float32)) + always
        self._score[self._rows, at] += np.where(positive, fused, 0)
        self._marks[self._rows, at] |= np.where(positive, 1 << bit, 0).astype(np.uint8)

    def bar(self, user: Ints, at: Ints) -> None:
        """(n,) users and positions that are not theirs to find, whatever is said of them."""
        self._score[user, at] = -np.inf
        self._most -= int(np.bincount(user).max(initial=0))

    def scores(self, at: Ints) -> Floats:
        """(B, n) positions → (B, n) what the sources add up to, in [0, 1); 0 for who is barred."""
        odds = np.exp(-np.take_along_axis(self._score, at, axis=1))
        out: Floats = (1 / (1 + odds)).astype(np.float32)
        return out

    def best(self, size: int, without: npt.NDArray[np.bool_] | None = None) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """(B, size) positions in no order, and a bit a source that named them; (B, C) `without` come last."""
        score = self._score if without is None else self._score - 1e3 * without.astype(np.float32)
        size = min(size, self._most)
        if size < 1:
            return np.zeros((len(score), 0), dtype=np.int64), self._marks[:, :0]
        chosen = np.argpartition(-score, size - 1, axis=1)[:, :size]
        return chosen, np.take_along_axis(self._marks, chosen, axis=1)


def top_list(values: npt.NDArray[Any]) -> Ints:
    """(C,) → positions of the largest, best first, as many as a source may name."""
    order: Ints = np.argsort(-values, kind="stable")[:_PER_SOURCE]
    return order


def _top(values: Floats, k: int) -> Ints:
    """(B, C) → (B, k) positions of the largest of each row, best first."""
    k = min(k, values.shape[1])
    if k == 0:
        return np.zeros((len(values), 0), dtype=np.int64)
    some = np.argpartition(-values, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
