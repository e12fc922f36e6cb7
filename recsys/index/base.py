"""What an index holds, answers and promises, whichever engine stands behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from recsys.constants import D_MODEL
from recsys.errors import DataError

Collection = Literal["places", "users"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

COLLECTIONS: Final[tuple[Collection, ...]] = ("places", "users")
BATCH: Final = 2_000


@dataclass(frozen=True)
class Vectors:
    """Points of one collection.

    Attributes:
        ids: (N,) int64, distinct, at least 0.
        city: (N,) int64.
        named: unit vectors by name, each (N, 128) float32.
        facets: by name, what a search may ask for: of each point a number, or several.
    """

    ids: Ints
    city: Ints
    named: Mapping[str, Floats]
    facets: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] = field(default_factory=dict)

    def payload(self, row: int) -> dict[str, int | list[int]]:
        """What is kept beside the vectors of a point."""
        out: dict[str, int | list[int]] = {"city_id": int(self.city[row])}
        for name, values in self.facets.items():
            value = values[row]
            out[name] = int(value) if isinstance(value, int | np.integer) else [int(v) for v in value]
        return out

    def check(self, collection: str) -> None:
        """Raise DataError unless ids are distinct and every vector is a unit vector."""
        if len(np.unique(self.ids)) != len(self.ids) or (len(self.ids) and self.ids.min() < 0):
            raise DataError(f"{collection}: ids must be distinct and at least 0 (got {len(self.ids)} rows)")
        for name, values in self.named.items():
            if values.shape != (len(self.ids), D_MODEL):
                raise DataError(f"{collection}.{name} must be ({len(self.ids)}, {D_MODEL}) (got {values.shape})")
            off = ~(np.abs(np.linalg.norm(values, axis=1) - 1.0) < 1e-3)  # NaN is off too
            if off.any():
                raise DataError(f"{collection}.{name}: id {self.ids[off][0]} is no unit vector ({off.sum()} are not)")


@dataclass(frozen=True)
class Layout:
    """How a Qdrant cluster keeps the collections of a version that is published; by default as one server does.

    Attributes:
        by_city: whether every city is a shard of its own, on whichever node, so that a search asks that one only.
        replicas: copies of every shard; None: what the server is configured for.
        write_consistency: how many of them must have a write before it is acknowledged; None: likewise.
    """

    by_city: bool = False
    replicas: int | None = None
    write_consistency: int | None = None


@dataclass(frozen=True)
class Hits:
    """Found points, best first: ids (n,) int64, scores (n,) float32 dot products; vectors: `IndexReader.vectors`."""

    ids: Ints
    scores: Floats


class IndexReader(Protocol):
    """Searches one version, whichever is live meanwhile: an answer that asks twice never sees two."""

    @property
    def version(self) -> str:
        """The version that answers."""

    async def search(
        self,
        collection: Collection,
        vector: Floats,
        *,
        city_id: int,
        limit: int,
        exclude: Sequence[int] = (),
        where: Mapping[str, Sequence[int]] = MappingProxyType({}),
        using: str = "embedding",
    ) -> Hits:
        """The nearest points of a city by dot product; fewer than `limit` only when fewer may be found.

        Args:
            collection: where to look.
            vector: (128,) float32.
            city_id: the only city that may be found.
            limit: at most this many.
            exclude: ids that may not be found.
            where: by facet, values of which a point must have at least one.
            using: name of the vectors to compare with.

        Raises:
            IndexUnavailable: the engine did not answer.
        """

    async def vectors(self, collection: Collection, ids: Sequence[int], using: str = "embedding") -> dict[int, Floats]:
        """Vectors by id; ids that are not there are absent."""

    async def close(self) -> None:
        """Release what is held open."""


class VectorIndex(Protocol):
    """What both engines do with versions: publish, roll back, and open one for searching."""

    @property
    def live(self) -> str | None:
        """The version that should answer, when `refresh` was last called; None before the first publish."""

    @property
    def previous(self) -> str | None:
        """The one before it, likewise; None before the second publish."""

    async def refresh(self) -> str | None:
        """Read the pointer, and return the live version."""

    async def versions(self) -> list[str]:
        """Every complete version, by name."""

    async def publish(self, version: str, places: Vectors, users: Vectors) -> None:
        """Write both collections, then make them live in one step; the version before stays for `rollback`.

        A version that is complete is not written again. Readers of a version that goes keep what they hold open in
        the embedded engine; a server drops its collections.

        Raises:
            DataError: vectors of the wrong shape, or not of length one.
            IndexUnavailable: the engine did not take them.
        """

    async def rollback(self) -> str:
        """Swap the live version with the one before; NotReady when there is none."""

    async def reader(self, version: str) -> IndexReader:
        """Open a version for searching; close it before the index.

        Raises:
            NotReady: the index does not hold that version.
            IndexUnavailable: the engine could not open it.
        """

    async def close(self) -> None:
        """Release what is held open."""


def hits(points: Sequence[Any]) -> Hits:
    """Points of either engine, best first → `Hits`."""
    n = len(points)
    ids = np.fromiter((p.id for p in points), dtype=np.int64, count=n)
    return Hits(ids, np.fromiter((p.score for p in points), dtype=np.float32, count=n))
