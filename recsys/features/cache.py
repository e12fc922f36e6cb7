"""Finished features of candidates, shared by the requests of one process for a bounded time."""

import threading
from typing import Final

import numpy as np

from recsys.aggregates.finish import Bools, Floats
from recsys.aggregates.states import Doubles, Ints

_ROWS: Final = 1 << 17  # 10 MB; a full cache begins anew


class FeatureCache:
    """Features by id of what was read lately, one view's. Safe for use from several threads.

    Attributes:
        hits, misses: ids that were asked for and at hand, and those that had to be read; since the start.

    Args:
        max_age_s: an entry older than this is read again; 0: nothing is kept.
        width: D, features of each.
    """

    def __init__(self, max_age_s: float, width: int) -> None:
        self._max_age_us, self._width = int(max_age_s * 1e6), width
        self._lock = threading.Lock()
        self.hits = self.misses = 0
        self._clear()

    def look_up(self, ids: Ints, now_us: int) -> tuple[Floats, Ints, float]:
        """(C, D) features, zeros where they must be read; which those are; and the age in seconds of the oldest."""
        out = np.zeros((len(ids), self._width), dtype=np.float32)
        if not self._max_age_us:
            with self._lock:
                self.misses += len(ids)
            return out, np.arange(len(ids)), 0.0
        with self._lock:
            at = np.array([self._row.get(i, 0) for i in ids.tolist()], dtype=np.int64)
            age = now_us - self._read_at[at]
            fresh: Bools = (age >= 0) & (age <= self._max_age_us)
            out[fresh] = self._features[at[fresh]]
            found = int(fresh.sum())
            self.hits, self.misses = self.hits + found, self.misses + len(ids) - found
        oldest = float(age[fresh].max()) / 1e6 if fresh.any() else 0.0
        return out, np.flatnonzero(~fresh), oldest

    def keep(self, ids: Ints, features: Floats, now_us: int) -> None:
        """Remember what was just read."""
        if not self._max_age_us:
            return
        with self._lock:
            if len(self._row) + len(ids) >= _ROWS:
                self._clear()
            for i in ids.tolist():
                self._row.setdefault(i, len(self._row) + 1)
            at = np.array([self._row[i] for i in ids.tolist()], dtype=np.int64)
            self._features[at] = features
            self._read_at[at] = now_us

    def _clear(self) -> None:
        self._row: dict[int, int] = {}
        self._features: Floats = np.zeros((_ROWS if self._max_age_us else 1, self._width), dtype=np.float32)
        self._read_at: Doubles = np.full(len(self._features), -np.inf)  # row 0 is nobody's
