"""Many states in two arrays, whatever their lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.errors import DataError

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class States:
    """N states, one after the other; an unknown one is empty.

    Attributes:
        values: (S,) float64.
        offsets: (N + 1,) int64; state i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: Doubles
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of_arrow(cls, column: pa.ChunkedArray) -> Self:
        """A list<double> column; null is unknown."""
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # of no chunk at all
            return cls.of_rows([])
        lengths = np.asarray(array.value_lengths().fill_null(0), dtype=np.int64)
        return cls(np.asarray(array.flatten(), dtype=np.float64), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def of_rows(cls, rows: Sequence[Doubles | None]) -> Self:
        """One array a state, None for an unknown one."""
        lengths = [0 if row is None else len(row) for row in rows]
        there = [row for row in rows if row is not None]
        values = np.concatenate(there) if there else np.empty(0)
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))

    def lengths(self) -> Ints:
        """(N,) values of each state."""
        out: Ints = np.diff(self.offsets)
        return out

    def matrix(self, width: int) -> tuple[Doubles, npt.NDArray[np.bool_]]:
        """States of one length as (N, width), zeros where unknown, and (N,) which are known.

        Raises:
            DataError: a state of another length.
        """
        lengths = self.lengths()
        known = lengths > 0
        if not (lengths[known] == width).all():
            raise DataError(f"a state must have {width} values (got {sorted(set(lengths[known].tolist()))[:3]})")
        out = np.zeros((len(self), width))
        out[known] = self.values.reshape(-1, width)
        return out, known
