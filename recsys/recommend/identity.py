"""Our numbers and the ids that the sources know: a request may say either, an answer says both."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from recsys.errors import InvalidField, NotFound

EMPTY: Final = pa.schema([("id", pa.int64()), ("source", pa.string()), ("source_id", pa.string())]).empty_table()


@dataclass(frozen=True)
class Own:
    """What a source calls somebody or something; both None in data without ids of their own."""

    source: str | None = None
    source_id: str | None = None


class SourceIds:
    """The ids of one kind, "user" or "place", both ways, by binary search in Arrow columns.

    Args:
        kind: for messages.
        table: an artifact's `user_ids` or `place_ids`: id (int64), source, source_id (string); None: there are none.
        unknown: the error for an id that nobody has.
    """

    def __init__(self, kind: str, table: pa.Table | None, unknown: Callable[[str], NotFound]) -> None:
        self._kind, self._unknown = kind, unknown
        rows = (EMPTY if table is None else table).sort_by([("source_id", "ascending"), ("source", "ascending")])
        self._source, self._source_id = (rows[name].combine_chunks() for name in ("source", "source_id"))
        self._numbers = rows["id"].to_numpy()
        self._by_number = np.argsort(self._numbers)
        self._sources = frozenset(rows["source"].unique().to_pylist())

    def number(self, field: str, given: int | str) -> int:
        """Our number of what a request names.

        Args:
            field: the request's field, for messages.
            given: our number, or an id of a source; "source:id" where two sources have the same one.

        Raises:
            InvalidField: several sources have this id.
            NotFound: no source has it.
        """
        if isinstance(given, int):
            return given
        found = self._rows(given)
        if not found:
            source, _, source_id = given.partition(":")
            if source in self._sources:
                found = [row for row in self._rows(source_id) if self._source[row].as_py() == source]
        if len(found) > 1:
            names = [f"{self._source[row].as_py()}:{given}" for row in found[:5]]
            raise InvalidField(field, f"{len(found)} sources have this id: say {' or '.join(names)} (got {given!r})")
        if not found:
            hint = "" if self._sources else f": this data set has no ids of its own, {self._kind}s are numbers"
            raise self._unknown(f"there is no {self._kind} {given!r} in the live version{hint}")
        return int(self._numbers[found[0]])

    def own(self, number: int) -> Own:
        """What the source calls one of our numbers."""
        at = int(np.searchsorted(self._numbers, number, sorter=self._by_number))
        if at == len(self._numbers) or self._numbers[row := int(self._by_number[at])] != number:
            return Own()
        return Own(self._source[row].as_py(), self._source_id[row].as_py())

    def _rows(self, source_id: str) -> list[int]:
        def at(row: int) -> str:
            return str(self._source_id[row].as_py())

        row = bisect_left(range(len(self._numbers)), source_id, key=at)
        found = []
        while row < len(self._numbers) and at(row) == source_id:
            found.append(row)
            row += 1
        return found
