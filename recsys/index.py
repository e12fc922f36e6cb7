"""Vector search, one protocol and two engines: Qdrant's own in process, and a Qdrant server. The only Qdrant imports.

A version is two collections, `places__<version>` and `users__<version>`. What is live is one record that names both at
once, so they always move together: the pointer file `live.json` (embedded), or both aliases in one call with the record
in the metadata of the collection they name (server, 1.16 or newer). An index keeps answering from the version that it
resolved first until `refresh()`, since the vectors must be those of the model that its caller has loaded.

City and exclusions are conditions inside the search, never a filter over its answer, and search is exact: a city holds
thousands of points, which the payload index on `city_id` finds and one scan scores in less than a millisecond.
"""

import asyncio
import fcntl
import hashlib
import json
import shutil
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from recsys.atomic import replacing_folder, write_json
from recsys.constants import D_MODEL
from recsys.errors import ConfigError, DataError, IndexUnavailable, NotReady

Collection = Literal["places", "users"]
NAMED: Final[Mapping[Collection, tuple[str, ...]]] = {"places": ("embedding",), "users": ("embedding", "people")}
KEPT_VERSIONS: Final = 3  # newest ones that stay published; the live and the previous one stay whatever their age
NORM_TOLERANCE: Final = 1e-3
_BATCH: Final = 1_000  # points a call: about 2 MB of JSON to a server, whose limit is 32
_ADMIN_TIMEOUT_S: Final = 60  # a server's deadline for publishing and rolling back
_MAX_ID: Final = 2**63
_pack = struct.Struct(f"{D_MODEL}f").pack  # a vector of Python floats → bytes, twice as fast as numpy.array
T = TypeVar("T")


@dataclass(frozen=True)
class Hits:
    """Answer of a search, best first, equal scores by id: ids (n,) int64, scores (n,) float32, vectors (n, 128) float32."""

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def of(cls, points: Iterable[Any], using: str) -> "Hits":
        """Hits from a vendor's scored points; both have `id`, `score` and `vector` by name."""
        rows = [(point.id, point.score, _pack(*point.vector[using])) for point in points]
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        scores = np.array([row[1] for row in rows], dtype=np.float32)
        vectors = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.float32).reshape(-1, D_MODEL)
        order = np.lexsort((ids, -scores))
        return cls(ids[order], scores[order], vectors[order])


@dataclass(frozen=True)
class Vectors:
    """Points of one collection: ids (n,) int64, city_ids (n,) int64, named: vectors (n, 128) float32 by name."""

    ids: npt.NDArray[np.int64]
    city_ids: npt.NDArray[np.int64]
    named: Mapping[str, npt.NDArray[np.float32]]

    @classmethod
    def of(cls, table: pa.Table, collection: Collection) -> "Vectors":
        """The columns of an artifact's table that are indexed: `place_id` or `user_id`, `city_id`, and the vectors.

        Raises:
            DataError: a column is missing or a row's vector has another length than 128.
        """
        key = f"{collection[:-1]}_id"
        if missing := {key, "city_id", *NAMED[collection]} - set(table.column_names):
            raise DataError(f"the table of {collection} lacks columns (got none of {sorted(missing)})")
        named = {}
        for name in NAMED[collection]:
            lists = table[name].combine_chunks()
            lengths = np.asarray(lists.value_lengths().fill_null(0))
            if (wrong := np.flatnonzero(lengths != D_MODEL)).size:
                raise DataError(f"{collection} row {wrong[0]}: {name} must have {D_MODEL} values (got {lengths[wrong[0]]})")
            named[name] = np.asarray(lists.flatten(), dtype=np.float32).reshape(-1, D_MODEL)
        return cls(np.asarray(table[key], dtype=np.int64), np.asarray(table["city_id"], dtype=np.int64), named)

    def check(self, collection: Collection) -> str:
        """Check what a collection needs of its points; return a digest of them.

        Raises:
            DataError: naming the row: an id twice or negative, a vector that is missing, not finite or not of length 1.
        """
        n = len(self.ids)
        if tuple(self.named) != NAMED[collection] or len(self.city_ids) != n or n == 0:
            raise DataError(f"{collection} need {NAMED[collection]} for every point (got {tuple(self.named)}, {n} points)")
        if np.unique(self.ids).size != n or int(self.ids.min()) < 0:
            twice = np.ones(n, dtype=bool)
            twice[np.unique(self.ids, return_index=True)[1]] = False
            row = int(np.flatnonzero(twice | (self.ids < 0))[0])
            raise DataError(f"{collection} row {row}: ids are unique and not negative (got {self.ids[row]})")
        digest = hashlib.sha256(self.ids.tobytes() + self.city_ids.tobytes())
        for name, vectors in self.named.items():
            if vectors.shape != (n, D_MODEL) or vectors.dtype != np.float32:
                raise DataError(f"{collection}.{name} must be ({n}, {D_MODEL}) float32 (got {vectors.shape} {vectors.dtype})")
            norms = np.linalg.norm(vectors, axis=1)
            if (wrong := np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))).size:
                row = int(wrong[0])
                raise DataError(
                    f"{collection} row {row} (id {self.ids[row]}): {name} must be a unit vector (got length {norms[row]:.4g})"
                )
            digest.update(np.ascontiguousarray(vectors).tobytes())
        return digest.hexdigest()


class VectorIndex(Protocol):
    """Published vectors of one live version. Every method may raise `IndexUnavailable`."""

    def publish(self, version: str, places: Vectors, users: Vectors) -> None:
        """Write both collections, check their counts and make them live in one step; a no-op when they are live.

        Raises:
            DataError: a point is not what its collection needs, or the live version has other points.
        """

    def rollback(self) -> str:
        """Make the version that was live before live again, and return it.

        Raises:
            NotReady: there is none.
        """

    def versions(self) -> tuple[str | None, list[str]]:
        """The version that is live now, whatever this index answers from, and all published ones, oldest first."""

    @property
    def live(self) -> str | None:
        """The version that this index answers from."""

    def refresh(self) -> str | None:
        """Answer from the version that is live now, and return it."""

    async def search(
        self,
        collection: Collection,
        vector: npt.NDArray[np.float32],
        *,
        city_id: int,
        limit: int,
        exclude: Sequence[int] = (),
        using: str = "embedding",
    ) -> Hits:
        """The `limit` points of a city with the largest dot product with `vector` (128,); fewer only when fewer exist.

        Raises:
            NotReady: nothing is published.
            ConfigError: no such vector name, another shape, or a limit below 1.
        """

    async def vectors(
        self, collection: Collection, ids: Sequence[int], using: str = "embedding"
    ) -> dict[int, npt.NDArray[np.float32]]:
        """Vectors (128,) by id; ids that are not there are absent."""

    def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True)
class Record:
    """What is published, as both engines keep it.

    Attributes:
        live: the version that answers.
        history: versions that were live before, newest last.
        versions: published and kept, oldest first.
    """

    live: str | None = None
    history: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Record":
        """From JSON."""
        return cls(content["live"], tuple(content["history"]), tuple(content["versions"]))

    def published(self, version: str) -> "Record":
        """After a version went live: the newest `KEPT_VERSIONS`, the live and the previous one are kept."""
        previous = (self.live,) if self.live not in (None, version) else ()
        history = (*(v for v in self.history if v not in (version, self.live)), *previous)
        versions = (*(v for v in self.versions if v != version), version)
        kept = {*versions[-KEPT_VERSIONS:], *history[-1:], version}
        return Record(version, tuple(v for v in history if v in kept), tuple(v for v in versions if v in kept))

    def rolled_back(self) -> "Record":
        """After the previous version went live again.

        Raises:
            NotReady: there is none.
        """
        if not self.history:
            raise NotReady(f"no earlier version to go back to (got {self.live or 'nothing'} live): run `recsys publish`")
        return Record(self.history[-1], self.history[:-1], self.versions)


class EdgeIndex:
    """Qdrant's engine in this process: one folder a collection, `live.json` in place of aliases.

    One process owns a shard, which it opens at its first use and keeps. Publishing writes new folders only, so it works
    while an API serves the version before. A search runs on the caller's thread: it takes less than a hop to another.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[Collection, Any] = {}
        self._live = self._record().live

    @property
    def live(self) -> str | None:
        """The version that this index answers from."""
        return self._live

    def publish(self, version: str, places: Vectors, users: Vectors) -> None:
        """See `VectorIndex.publish`. A killed run leaves nothing that counts: run it again."""
        _check_name(version)
        points: dict[Collection, Vectors] = {"places": places, "users": users}
        marks = {name: {"points": len(v.ids), "digest": v.check(name)} for name, v in points.items()}
        with self._publishing():
            record = self._record()
            for name, wanted in marks.items():
                path = self._path(name, version)
                if _read_json(path / _MARK) == wanted:
                    continue
                if version == record.live and path.exists():
                    raise DataError(f"version {version} is live with other {name}: give the new ones a new version")
                with replacing_folder(path) as aside:
                    _write_shard(aside, name, points[name])
                    write_json(aside / _MARK, wanted)
            if version != record.live:
                record = record.published(version)
                write_json(self._folder / _POINTER, asdict(record))
            self._remove_all_but(record.versions)
        self.refresh()

    def rollback(self) -> str:
        """See `VectorIndex.rollback`."""
        with self._publishing():
            record = self._record().rolled_back()
            write_json(self._folder / _POINTER, asdict(record))
        self.refresh()
        return str(record.live)

    def versions(self) -> tuple[str | None, list[str]]:
        """See `VectorIndex.versions`; reads the pointer and opens no shard."""
        record = self._record()
        return record.live, list(record.versions)

    def refresh(self) -> str | None:
        """See `VectorIndex.refresh`; when the new version does not open, the old one stays."""
        live = self._record().live
        if live != self._live:
            opened = {name: _open_shard(self._path(name, live)) for name in self._shards} if live else {}
            # Not closed here: a search that runs in another thread holds its shard, and the last one to let go frees it.
            self._live, self._shards = live, opened
        return live

    async def search(
        self,
        collection: Collection,
        vector: npt.NDArray[np.float32],
        *,
        city_id: int,
        limit: int,
        exclude: Sequence[int] = (),
        using: str = "embedding",
    ) -> Hits:
        """See `VectorIndex.search`."""
        _check_query(collection, vector, limit, using)
        shard = self._shard(collection)
        city = edge.FieldCondition("city_id", match=edge.MatchValue(int(city_id)))
        unwanted = [edge.HasIdCondition(set(_valid(exclude)))]
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=using),
            filter=edge.Filter(must=[city], must_not=unwanted),
            with_vector=[using],
            with_payload=False,
            params=edge.SearchParams(exact=True),
        )
        with _edge_errors(self._path(collection, self._live)):
            return Hits.of(shard.query(request), using)

    async def vectors(
        self, collection: Collection, ids: Sequence[int], using: str = "embedding"
    ) -> dict[int, npt.NDArray[np.float32]]:
        """See `VectorIndex.vectors`."""
        _check_using(collection, using)
        with _edge_errors(self._path(collection, self._live)):
            found = self._shard(collection).retrieve(_valid(ids), with_payload=False, with_vector=[using])
        return {point.id: np.array(point.vector[using], dtype=np.float32) for point in found}

    def close(self) -> None:
        """Close the shards, so that another process can open them."""
        for shard in self._shards.values():
            shard.close()
        self._shards = {}

    def _path(self, collection: Collection, version: str | None) -> Path:
        return self._folder / f"{collection}__{version}"

    def _shard(self, collection: Collection) -> Any:
        if self._live is None and self.refresh() is None:
            raise NotReady("no version is published: run `recsys publish`")
        if collection not in self._shards:
            self._shards[collection] = _open_shard(self._path(collection, self._live))
        return self._shards[collection]

    def _record(self) -> Record:
        content = _read_json(self._folder / _POINTER)
        try:
            return Record.read(content) if content else Record()
        except (KeyError, TypeError) as error:
            raise DataError(f"{self._folder / _POINTER} is damaged (got {content}): remove it and publish") from error

    def _remove_all_but(self, versions: Sequence[str]) -> None:
        kept = {self._path(name, version) for name in NAMED for version in versions}
        for path in self._folder.glob("*__*"):  # what a killed run left aside, too
            if path not in kept and not _in_use(path):
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".publishing").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise IndexUnavailable(f"another process is publishing to {self._folder}: wait until it ends") from error
            yield
