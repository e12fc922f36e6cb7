"""People by name, and where places are: from the accepted tables, for pages that people look at.

Answers are made without this: a version knows no names of people and no positions. It is read when it is first asked
for, and again when a table has changed.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.aggregates.states import Ints
from recsys.dataset import read_source, world_of

_USERS: Final = ("user_id", "name", "home_city_id")
_PLACES: Final = ("place_id", "city_id", "neighborhood_id", "latitude", "longitude")


@dataclass(frozen=True)
class Person:
    """Somebody, as the table has them."""

    user_id: int
    name: str
    city_id: int


@dataclass(frozen=True)
class Spot:
    """Degrees north and east."""

    latitude: float
    longitude: float


class Directory:
    """Reads `users.parquet` and `places.parquet` of a lake. Safe for use from several threads; what it does blocks.

    Args:
        lake: the folder; it need not exist.
        world: the data set that is asked about: of another one's lake, nothing is told.
    """

    def __init__(self, lake: Path, world: str) -> None:
        self._lake, self._world = lake, world
        self._lock = threading.Lock()
        self._read: dict[str, tuple[int, pa.Table]] = {}

    @property
    def there(self) -> bool:
        """Whether the lake holds this data set."""
        return self._table("users", _USERS) is not None

    def find(self, text: str, limit: int, among: Ints) -> list[Person]:
        """People whose name contains a text, upper or lower case: first those whose name begins with it.

        Args:
            text: not empty.
            limit: at most so many.
            among: (N,) ids, ascending: nobody else.
        """
        users = self._table("users", _USERS)
        if users is None or not len(among):
            return []
        names = pc.utf8_lower(users["name"])
        wanted = text.lower()
        users = users.append_column("later", pc.invert(pc.starts_with(names, wanted)))
        found = users.filter(pc.match_substring(names, wanted))
        ids = found["user_id"].to_numpy()
        at = np.minimum(np.searchsorted(among, ids), len(among) - 1)
        found = found.filter(pa.array(among[at] == ids))
        found = found.sort_by([("later", "ascending"), ("name", "ascending"), ("user_id", "ascending")])
        return [Person(row["user_id"], row["name"], row["home_city_id"]) for row in found.slice(0, limit).to_pylist()]

    def people(self, ids: Collection[int]) -> dict[int, Person]:
        """Some people by id, of those that the table has."""
        users = self._table("users", _USERS)
        if users is None:
            return {}
        found = users.filter(pc.is_in(users["user_id"], pa.array(list(ids), pa.int64())))
        return {row["user_id"]: Person(row["user_id"], row["name"], row["home_city_id"]) for row in found.to_pylist()}

    def spots(self, ids: Collection[int]) -> dict[int, Spot]:
        """Where some places are, of those of which it is known."""
        places = self._table("places", _PLACES)
        if places is None:
            return {}
        found = places.filter(pc.is_in(places["place_id"], pa.array(list(ids), pa.int64()))).to_pylist()
        return {
            row["place_id"]: Spot(row["latitude"], row["longitude"])
            for row in found
            if row["latitude"] is not None and row["longitude"] is not None
        }

    def middles(self, city_id: int) -> dict[int, Spot]:
        """The middle of each neighborhood of a city: the median of its places' positions."""
        places = self._table("places", _PLACES)
        if places is None:
            return {}
        here = places.filter(pc.equal(places["city_id"], city_id)).drop_null()
        area = here["neighborhood_id"].to_numpy()
        degrees: npt.NDArray[Any] = np.stack([here["latitude"].to_numpy(), here["longitude"].to_numpy()])
        middle = {int(a): np.median(degrees[:, area == a], axis=1).tolist() for a in np.unique(area)}
        return {a: Spot(*at) for a, at in middle.items()}

    def _table(self, name: str, columns: tuple[str, ...]) -> pa.Table | None:
        """A table as it is now; None where it is not there, or of another data set."""
        path = self._lake / f"{name}.parquet"
        with self._lock:
            try:
                changed = path.stat().st_mtime_ns
                if name not in self._read or self._read[name][0] != changed:
                    if world_of(read_source(self._lake)) != self._world:
                        return None
                    self._read[name] = changed, pq.read_table(path, columns=list(columns))
            except FileNotFoundError:
                return None
            return self._read[name][1]
