"""Facets of places: what filters ask, vectorised over the places of a city, or over a few as read online."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.aggregates.states import Ints
from recsys.constants import FACETS
from recsys.online import PlaceRow

Bools = npt.NDArray[np.bool_]
Wanted = Mapping[str, tuple[int, ...]]  # by facet: at least one of these values, in every facet that is named


class Facets:
    """Facets of P places.

    Args:
        n: how many places.
        values: by facet, the place's number from 0 and a value of it, any number of values a place.
    """

    def __init__(self, n: int, values: Mapping[str, tuple[Ints, Ints]]) -> None:
        self._n, self._values = n, values

    @classmethod
    def of_table(cls, places: pa.Table, rows: Ints) -> "Facets":
        """Of some rows of an artifact's `places` table, in their order."""
        values = {}
        for facet in FACETS:
            column = places[facet].combine_chunks().take(pa.array(rows))
            lengths = np.ones(len(rows), dtype=np.int64)
            if pa.types.is_list(column.type):
                lengths, column = column.value_lengths().to_numpy(zero_copy_only=False), column.flatten()
            values[facet] = np.repeat(np.arange(len(rows)), lengths), column.to_numpy().astype(np.int64)
        return cls(len(rows), values)

    @classmethod
    def of_rows(cls, rows: Sequence[PlaceRow]) -> "Facets":
        """As read online."""
        kinds = [np.flatnonzero(row.category_one_hot > 0) for row in rows]
        tags = [np.flatnonzero(row.fine_tag_vector > 0) for row in rows]
        ones = [(row.price_band, row.neighborhood_id, row.typical_time_slot) for row in rows]
        price, area, slot = np.array(ones, dtype=np.int64).reshape(len(rows), 3).T
        alone = np.arange(len(rows))
        values = ((alone, price), _flat(kinds), _flat(tags), (alone, area), (alone, slot))
        return cls(len(rows), dict(zip(FACETS, values, strict=True)))

    def match(self, wanted: Wanted) -> Bools:
        """(P,) which of them meet all that is wanted."""
        out = np.ones(self._n, dtype=bool)
        for facet, said in wanted.items():
            place, value = self._values[facet]
            out &= np.bincount(place[np.isin(value, said)], minlength=self._n) > 0
        return out


def _flat(lists: Sequence[Ints]) -> tuple[Ints, Ints]:
    lengths = [len(values) for values in lists]
    return np.repeat(np.arange(len(lists)), lengths), np.concatenate([*lists, np.empty(0, dtype=np.int64)])
