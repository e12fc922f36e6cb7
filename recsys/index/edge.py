"""Qdrant's engine in process: a folder a collection, a pointer file, and a copy of hard links a reader."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from recsys.atomic import locked, replacing_folder, write_json
from recsys.constants import D_MODEL
from recsys.errors import DataError, IndexUnavailable, NotReady
from recsys.index.base import BATCH, COLLECTIONS, Collection, Floats, Hits, IndexReader, Vectors, hits

_POINTER: Final = "live.json"
_READERS: Final = "readers"
_WAL: Final = "wal"
_SWEEP_S: Final = 10.0


class EdgeIndex:
    """Qdrant's engine in this process. Any number of processes may read, and one at a time publish."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, str | None] = {"live": None, "previous": None}

    @property
    def live(self) -> str | None:  # noqa: D102
        return self._seen["live"]

    @property
    def previous(self) -> str | None:  # noqa: D102
        return self._seen["previous"]

    async def refresh(self) -> str | None:  # noqa: D102
        self._seen = await asyncio.to_thread(self._pointer)
        return self.live

    async def versions(self) -> list[str]:  # noqa: D102
        found = [{p.name.removeprefix(f"{c}__") for p in self._folder.glob(f"{c}__*")} for c in COLLECTIONS]
        return sorted(set.intersection(*found))

    async def publish(self, version: str, places: Vectors, users: Vectors) -> None:  # noqa: D102
        for collection, points in zip(COLLECTIONS, (places, users), strict=True):
            points.check(collection)
            path = self._folder / f"{collection}__{version}"
            if not path.exists():  # a folder of that name is complete: it was renamed into place
                _write_shard(path, points)
        pointer = self._pointer()
        if pointer["live"] != version:
            write_json(self._folder / _POINTER, {"live": version, "previous": pointer["live"]})
        keep = self._pointer().values()
        for path in self._folder.glob("*__*"):
            if path.name.split("__", 1)[1] not in keep:
                shutil.rmtree(path)
        await self.refresh()

    async def rollback(self) -> str:  # noqa: D102
        pointer = self._pointer()
        previous = pointer["previous"]
        if previous is None:
            raise NotReady("there is no version before this one: publish a second one first")
        write_json(self._folder / _POINTER, {"live": previous, "previous": pointer["live"]})
        await self.refresh()
        return previous

    async def reader(self, version: str) -> IndexReader:  # noqa: D102
        return await asyncio.to_thread(_EdgeReader, self._folder, version)

    async def close(self) -> None:
        """Nothing: what is open belongs to readers."""

    def _pointer(self) -> dict[str, str | None]:
        path = self._folder / _POINTER
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {"live": content["live"], "previous": content["previous"]}
        except FileNotFoundError:
            return {"live": None, "previous": None}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: remove it, and run `recsys publish` (got {error!r})") from error


class _EdgeReader:
    """A version's shards in a copy of this reader's own, made of hard links, gone when it is closed.

    An engine locks its log, and nothing else of a shard that is only searched. So a reader has its own, empty log
    (the segments were flushed when they were written) and shares the segments, whoever else reads or publishes.
    """

    def __init__(self, folder: Path, version: str) -> None:
        from qdrant_edge import EdgeShard

        self._version = version
        self._shards: dict[str, Any] = {}
        with contextlib.ExitStack() as held:
            own = _claim(folder / _READERS, held)
            held.callback(self._close_shards)
            for collection in COLLECTIONS:
                source = folder / f"{collection}__{version}"
                try:
                    shutil.copytree(source, own / collection, copy_function=_link, ignore=_without_log)
                except (OSError, shutil.Error) as error:
                    if source.exists():
                        raise IndexUnavailable(f"{source.name} cannot be opened (got {error})") from error
                    raise NotReady(  # also where a publish removed it meanwhile
                        f"the index holds no version {version}: run `recsys publish --version {version}`"
                    ) from error
                (own / collection / _WAL).mkdir()
                with _edge_errors(source.name):
                    self._shards[collection] = EdgeShard.load(str(own / collection))
            self._held = held.pop_all()

    @property
    def version(self) -> str:
        return self._version

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
        from qdrant_edge import FieldCondition, Filter, HasIdCondition, MatchAny, MatchValue, Query, QueryRequest

        must: list[Any] = [FieldCondition(key="city_id", match=MatchValue(int(city_id)))]
        must += [FieldCondition(key=name, match=MatchAny([int(v) for v in any_of])) for name, any_of in where.items()]
        without: list[Any] | None = [HasIdCondition({int(i) for i in exclude})] if len(exclude) else None
        request = QueryRequest(
            limit=limit,
            query=Query.Nearest(vector.tolist(), using=using),
            filter=Filter(must=must, must_not=without),
            with_vector=False,
            with_payload=False,
        )
        with _edge_errors(collection):
            return hits(self._shards[collection].query(request))

    async def vectors(self, collection: Collection, ids: Sequence[int], using: str = "embedding") -> dict[int, Floats]:
        with _edge_errors(collection):
            records = self._shards[collection].retrieve([int(i) for i in ids], with_payload=False, with_vector=[using])
        return {int(r.id): np.asarray(r.vector[using], dtype=np.float32) for r in records}

    async def close(self) -> None:
        await asyncio.to_thread(self._held.close)

    def _close_shards(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()


def _claim(readers: Path, held: contextlib.ExitStack) -> Path:
    """A folder of one's own until `held` is closed; those whose process is gone are removed."""
    with locked(readers / ".lock", _SWEEP_S, IndexUnavailable):
        for lock in readers.glob("[!.]*.lock"):
            with contextlib.suppress(IndexUnavailable), locked(lock, 0.0, IndexUnavailable):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
        own = readers / secrets.token_hex(8)
        held.enter_context(locked(own.with_suffix(".lock"), 0.0, IndexUnavailable))
    held.callback(own.with_suffix(".lock").unlink, missing_ok=True)
    held.callback(shutil.rmtree, own, ignore_errors=True)
    return own


_without_log = shutil.ignore_patterns(_WAL)


def _link(source: str, to: str) -> None:
    """A hard link; a copy of the settings, which loading may write, and where there are no hard links."""
    if not source.endswith(".json"):
        with contextlib.suppress(OSError):
            os.link(source, to)
            return
    shutil.copy2(source, to)


def _write_shard(path: Path, points: Vectors) -> None:
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeOptimizersConfig,
        EdgeShard,
        EdgeVectorParams,
        PayloadSchemaType,
        Point,
        UpdateOperation,
    )

    vectors = {name: EdgeVectorParams(size=D_MODEL, distance=Distance.Dot) for name in points.named}
    with replacing_folder(path) as aside, _edge_errors(path.name):
        # No graph: over one city's points an exact scan takes a millisecond or two, and building costs minutes.
        exact = EdgeOptimizersConfig(indexing_threshold=0)
        # Requests are answered side by side: more threads for one would only wait for work, busily.
        config = EdgeConfig(vectors=vectors, optimizers=exact, max_search_threads=1)
        shard = EdgeShard.create(str(aside), config)
        # The payload index comes first: what is written after it is indexed as it comes.
        for name in ("city_id", *points.facets):
            shard.update(UpdateOperation.create_field_index(name, PayloadSchemaType.Integer))
        for at in range(0, len(points.ids), BATCH):
            rows = range(at, min(at + BATCH, len(points.ids)))
            batch = [
                Point(
                    int(points.ids[i]),
                    {n: v[i].tolist() for n, v in points.named.items()},
                    points.payload(i),
                )
                for i in rows
            ]
            shard.update(UpdateOperation.upsert_points(batch))
        shard.optimize()
        shard.flush()
        written = _edge_count(shard)
        shard.close()
        if written != len(points.ids):
            raise IndexUnavailable(f"{path.name} must hold {len(points.ids)} points (got {written})")


def _edge_count(shard: Any) -> int:
    from qdrant_edge import CountRequest

    return int(shard.count(CountRequest(exact=True)))


@contextlib.contextmanager
def _edge_errors(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # Edge raises the bare class, and nothing else does
            raise
        raise IndexUnavailable(f"the embedded index failed on {what} (got {error})") from error
