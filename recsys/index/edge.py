"""Qdrant's engine in process: a folder a collection, and a pointer file."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from recsys.atomic import replacing_folder, write_json
from recsys.constants import D_MODEL
from recsys.errors import IndexUnavailable, NotReady
from recsys.index.base import BATCH, COLLECTIONS, Collection, Floats, Hits, Vectors, hits

_POINTER: Final = "live.json"


class EdgeIndex:
    """Qdrant's engine in this process. A collection belongs to one process at a time: its log is locked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, Any] = {}
        self._live = self._pointer()["live"]

    @property
    def live(self) -> str | None:  # noqa: D102
        return self._live

    async def refresh(self) -> str | None:  # noqa: D102
        live = self._pointer()["live"]
        if live != self._live:
            self._live = live
            self._close()
        return live

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

    async def search(  # noqa: D102
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
            with_vector=[using],
            with_payload=False,
        )
        with _edge_errors(collection):
            return hits(self._shard(collection).query(request), using)

    async def vectors(  # noqa: D102
        self, collection: Collection, ids: Sequence[int], using: str = "embedding"
    ) -> dict[int, Floats]:
        with _edge_errors(collection):
            records = self._shard(collection).retrieve([int(i) for i in ids], with_payload=False, with_vector=[using])
        return {int(r.id): np.asarray(r.vector[using], dtype=np.float32) for r in records}

    async def close(self) -> None:  # noqa: D102
        self._close()

    def _close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def _pointer(self) -> dict[str, str | None]:
        try:
            content = json.loads((self._folder / _POINTER).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"live": None, "previous": None}
        return {"live": content["live"], "previous": content["previous"]}

    def _shard(self, collection: Collection) -> Any:
        from qdrant_edge import EdgeShard

        if self._live is None:
            raise NotReady("no version is published: run `recsys publish`")
        if collection not in self._shards:
            self._shards[collection] = EdgeShard.load(str(self._folder / f"{collection}__{self._live}"))
        return self._shards[collection]


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
        shard = EdgeShard.create(str(aside), EdgeConfig(vectors=vectors, optimizers=exact))
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
        if "WouldBlock" in str(error):
            raise IndexUnavailable(f"{what} is open in another process: one process at a time, or a server") from error
        raise IndexUnavailable(f"the embedded index failed on {what} (got {error})") from error
