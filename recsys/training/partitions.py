"""Users in parts of bounded size, each a parquet file with its users' features and all their edges.

A user's row number is its place in the order of all parts. Friends are named by it, and places by their row in the
table of places, so a part is read without looking an id up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.atomic import replacing
from recsys.constants import D_EDGE_USER_USER, MAX_NEIGHBORHOODS_PER_USER
from recsys.errors import DataError
from recsys.features import FeatureStore
from recsys.graph import Edges
from recsys.lake import Lake
from recsys.models.backbone import D_PAIR_FEATURES
from recsys.models.sparse import Relation
from recsys.training.as_of import Ints, ints, known_rows, pairs_as_of, places_as_of, ties_as_of, users_as_of
from recsys.training.inputs import stack_pairs

PART_USERS: Final = 65_536
_FLOATS = pa.list_(pa.float32())
PART_SCHEMA: Final = pa.schema(
    [
        ("user_id", pa.int64()), ("x", _FLOATS), ("area_ids", pa.list_(pa.int32())),
        ("places", pa.list_(pa.int32())), ("pair_features", _FLOATS),
        ("friends", pa.list_(pa.int64())), ("tie_features", _FLOATS),
    ]
)  # fmt: skip
_EDGES: Final = ["places", "pair_features", "friends", "tie_features"]
_OF_USERS: Final = """FROM interactions WHERE "timestamp" < $as_of AND user_id BETWEEN $low AND $high"""
_OF_TIES: Final = """FROM user_user_edges WHERE as_of <= $as_of
    AND (user_u BETWEEN $low AND $high OR user_v BETWEEN $low AND $high)"""


@dataclass(frozen=True)
class PartEdges:
    """Edges of n consecutive users.

    Attributes:
        pairs: these users → all places. pair_features: (14, E).
        friends: (F,) int64 row numbers, ascending, of those whom they know. ties: these friends → these users.
        tie_features: (3, T).
    """

    pairs: Relation
    pair_features: Tensor
    friends: Ints
    ties: Relation
    tie_features: Tensor


@dataclass(frozen=True)
class Part:
    """One file.

    Attributes:
        path: where. start: row number of its first user. n_users: how many it has.
    """

    path: Path
    start: int
    n_users: int

    @property
    def stop(self) -> int:
        """Row number after its last user."""
        return self.start + self.n_users

    def user_ids(self) -> pa.ChunkedArray:
        """Its users."""
        return pq.read_table(self.path, columns=["user_id"])["user_id"]

    def features(self, d_user: int) -> tuple[Tensor, Tensor]:
        """(n, d_user) float32 and (n, 5) int64, as `GraphInputs` has them."""
        table = pq.read_table(self.path, columns=["x", "area_ids"])
        x = _values(table["x"]).reshape(self.n_users, -1)
        if x.shape[1] != d_user:
            raise DataError(f"{self.path}: x must have {d_user} columns (got {x.shape[1]})")
        areas = _values(table["area_ids"]).reshape(self.n_users, MAX_NEIGHBORHOODS_PER_USER)
        return torch.from_numpy(x.copy()), torch.from_numpy(areas.astype(np.int64))

    def edges(self, n_places: int) -> PartEdges:
        """All edges of its users.

        Raises:
            DataError: an edge has another number of features, or names a place that is not there.
        """
        table = pq.read_table(self.path, columns=_EDGES)
        place, friend = (_values(table[name]).astype(np.int64) for name in ("places", "friends"))
        user, knows = (self._ends(table[name]) for name in ("places", "friends"))
        friends, source = np.unique(friend, return_inverse=True)
        return PartEdges(
            pairs=Relation.from_edges(_index(user, place), self.n_users, n_places),
            pair_features=self._told(table["pair_features"], len(place), D_PAIR_FEATURES),
            friends=friends,
            ties=Relation.from_edges(_index(source, knows), len(friends), self.n_users),
            tie_features=self._told(table["tie_features"], len(friend), D_EDGE_USER_USER),
        )

    def _ends(self, lists: pa.ChunkedArray) -> Ints:
        return np.repeat(np.arange(self.n_users), pc.list_value_length(lists).to_numpy())

    def _told(self, lists: pa.ChunkedArray, edges: int, width: int) -> Tensor:
        values = _values(lists)
        if len(values) != edges * width:
            raise DataError(f"{self.path}: {edges} edges must have {width} features each (got {len(values)} in all)")
        features = torch.from_numpy(values.reshape(edges, width).T.copy())
        if not bool(torch.isfinite(features).all()):
            raise DataError(f"{self.path}: an edge's feature is not finite")
        return features


@dataclass(frozen=True)
class Parts:
    """All parts of a folder, in the order of their names."""

    folder: Path

    def __iter__(self) -> Iterator[Part]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def n_users(self) -> int:
        """How many all parts have."""
        return self._all[-1].stop if self._all else 0

    @cached_property
    def _all(self) -> list[Part]:
        found, start = [], 0
        for path in sorted(self.folder.glob("part-*.parquet")):
            found.append(Part(path, start, pq.read_metadata(path).num_rows))
            start = found[-1].stop
        return found


def write_part(
    path: Path, user_ids: Ints, x: Tensor, areas: npt.NDArray[Any], pairs: Edges, pair_features: Tensor, ties: Edges
) -> None:
    """Write one part, whole or not at all.

    Args:
        path: of the file.
        user_ids: (n,) its users. x: (n, d_user). areas: (n, 5), -1 for none.
        pairs: edges from these users, by their number within the part, to places. pair_features: (14, E).
        ties: edges from friends, by row number, to these users, by their number within the part.
    """
    n, by_user = len(user_ids), np.argsort(pairs.source, kind="stable")
    by_friend = np.argsort(ties.target, kind="stable")
    told, known = pair_features.numpy().T[by_user], ties.attr[by_friend]
    columns = {
        "user_id": pa.array(user_ids),
        "x": _lists(np.arange(n), n, x.numpy()),
        "area_ids": _lists(np.arange(n), n, areas.astype(np.int32)),
        "places": _lists(pairs.source, n, pairs.target[by_user].astype(np.int32)),
        "pair_features": _lists(pairs.source, n, told),
        "friends": _lists(ties.target, n, ties.source[by_friend]),
        "tie_features": _lists(ties.target, n, known),
    }
    with replacing(path) as aside:
        table = pa.Table.from_arrays([columns[field.name] for field in PART_SCHEMA], schema=PART_SCHEMA)
        pq.write_table(table, aside, use_dictionary=False, compression="zstd", compression_level=1)


def write_parts(
    lake: Lake, store: FeatureStore, as_of: datetime, folder: Path, *, users: int = PART_USERS
) -> Iterator[tuple[int, int]]:
    """Everybody as of a moment, part by part; parts that are there stay.

    Args:
        lake: which ids and pairs were known.
        store: point-in-time features of those.
        as_of: the moment, a midnight in UTC.
        folder: where the parts go.
        users: of a part.

    Yields:
        How many parts are there, and of how many.
    """
    when, widths = {"as_of": as_of}, lake.taxonomy().widths
    user_ids, place_ids = (
        ints(lake.query(f"SELECT {kind}_id FROM {kind}s WHERE as_of <= $as_of ORDER BY 1", when), f"{kind}_id")
        for kind in ("user", "place")
    )
    starts = range(0, len(user_ids), users)
    for number, start in enumerate(starts):
        path = folder / f"part-{number:05d}.parquet"
        if not path.exists():
            own = user_ids[start : start + users]
            here = {**when, "low": int(own[0]), "high": int(own[-1])}
            nodes, _ = users_as_of(store, own, as_of, widths)
            known = lake.query(f"SELECT DISTINCT user_id, place_id {_OF_USERS} ORDER BY ALL", here)
            known = known_rows(known, {"user_id": own, "place_id": place_ids})
            pairs, _ = pairs_as_of(store, known, own, place_ids, as_of)
            tied = lake.query(f"SELECT user_u, user_v {_OF_TIES} ORDER BY ALL", here)
            ties, _ = ties_as_of(store, tied, user_ids, as_of)
            extra = [torch.from_numpy(np.asarray(pairs.extra[name], np.float32)) for name in ("count", "age_days")]
            features = stack_pairs(torch.from_numpy(pairs.attr), *extra)
            assert nodes.areas is not None
            x = nodes.x(widths.user_x, "user")
            write_part(path, own, x, nodes.areas, pairs, features, _towards(ties, start, start + len(own)))
        yield number + 1, len(starts)


def place_features(lake: Lake, store: FeatureStore, as_of: datetime) -> tuple[Ints, Tensor]:
    """Ids and (M, d_place) features of the places that parts name by their rows."""
    widths = lake.taxonomy().widths
    found = lake.query("SELECT place_id FROM places WHERE as_of <= $as_of ORDER BY 1", {"as_of": as_of})
    nodes, _ = places_as_of(store, ints(found, "place_id"), as_of, widths)
    return nodes.ids, nodes.x(widths.place_x, "place")


def _towards(ties: Edges, start: int, stop: int) -> Edges:
    """Ties, each once, as edges to the users of [start, stop): one between two of them in both directions."""
    source, target = np.concatenate([ties.source, ties.target]), np.concatenate([ties.target, ties.source])
    own = (target >= start) & (target < stop)
    return Edges(source[own], target[own] - start, np.concatenate([ties.attr, ties.attr])[own], {})


def _lists(row: Ints, n: int, values: npt.NDArray[Any]) -> pa.ListArray:
    """(E,) or (E, width) values, in the order of their rows → a list a row."""
    width = 1 if values.ndim == 1 else values.shape[1]
    offsets = np.zeros(n + 1, dtype=np.int32)
    offsets[1:] = np.bincount(row, minlength=n).cumsum() * width
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1)))


def _values(lists: pa.ChunkedArray) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values


def _index(source: Ints, target: Ints) -> Tensor:
    return torch.from_numpy(np.stack([source, target]))
