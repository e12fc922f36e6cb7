"""A Qdrant server, through qdrant-client."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from recsys.constants import D_MODEL
from recsys.errors import IndexUnavailable, NotReady
from recsys.index.base import BATCH, COLLECTIONS, Collection, Floats, Hits, IndexReader, Ints, Layout, Vectors, hits


class ServerIndex:
    """A Qdrant server. Four aliases, `places`, `users` and both with `_previous`, move in one request."""

    def __init__(self, client: Any, *, owned: bool = True, layout: Layout | None = None) -> None:
        """Wrap a `qdrant_client.AsyncQdrantClient`; `owned`: close it with the index; `layout`: what is published."""
        self._client, self._owned, self._layout = client, owned, layout or Layout()
        self._live: str | None = None
        self._previous: str | None = None

    @property
    def live(self) -> str | None:  # noqa: D102
        return self._live

    @property
    def previous(self) -> str | None:  # noqa: D102
        return self._previous

    async def refresh(self) -> str | None:  # noqa: D102
        aliases = await self._aliases()
        self._live, self._previous = aliases.get("places"), aliases.get("places_previous")
        return self._live

    async def versions(self) -> list[str]:  # noqa: D102
        with _server_errors():
            names = {c.name for c in (await self._client.get_collections()).collections}
        found = [{n.removeprefix(f"{c}__") for n in names if n.startswith(f"{c}__")} for c in COLLECTIONS]
        return sorted(set.intersection(*found))

    async def publish(self, version: str, places: Vectors, users: Vectors) -> None:  # noqa: D102
        with _server_errors():
            for collection, points in zip(COLLECTIONS, (places, users), strict=True):
                points.check(collection)
                await self._upload(f"{collection}__{version}", points)
        aliases = await self._aliases()
        live = aliases.get("places")
        if live != version:
            await self._move({"": version, "_previous": live}, aliases)
        keep = set((await self._aliases()).values())
        with _server_errors():
            for old in await self.versions():
                if old not in keep:
                    for collection in COLLECTIONS:
                        await self._client.delete_collection(f"{collection}__{old}")
        await self.refresh()

    async def rollback(self) -> str:  # noqa: D102
        aliases = await self._aliases()
        previous = aliases.get("places_previous")
        if previous is None:
            raise NotReady("there is no version before this one: publish a second one first")
        await self._move({"": previous, "_previous": aliases.get("places")}, aliases)
        await self.refresh()
        return previous

    async def reader(self, version: str) -> IndexReader:  # noqa: D102
        if version not in await self.versions():
            raise NotReady(f"the index holds no version {version}: run `recsys publish --version {version}`")
        with _server_errors():
            cities = {collection: await self._cities(f"{collection}__{version}") for collection in COLLECTIONS}
        return _ServerReader(self._client, version, cities)

    async def close(self) -> None:  # noqa: D102
        if self._owned:
            await self._client.close()

    async def _cities(self, name: str) -> frozenset[int] | None:
        """Cities that are shards of a collection; None where it is not laid out so, whatever the settings say now."""
        from qdrant_client import models as m

        params = (await self._client.get_collection(name)).config.params
        if getattr(params, "sharding_method", None) != m.ShardingMethod.CUSTOM:
            return None
        return frozenset(int(one.key) for one in (await self._client.list_shard_keys(name)).shard_keys or ())

    async def _aliases(self) -> dict[str, str]:
        with _server_errors():
            aliases = (await self._client.get_aliases()).aliases
        return {a.alias_name: a.collection_name.split("__", 1)[1] for a in aliases if "__" in a.collection_name}

    async def _move(self, targets: Mapping[str, str | None], aliases: Mapping[str, str]) -> None:
        from qdrant_client import models as m

        steps: list[Any] = []
        for suffix, version in targets.items():
            for collection in COLLECTIONS:
                alias = f"{collection}{suffix}"
                if alias in aliases:
                    steps.append(m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name=alias)))
                if version is not None:
                    create = m.CreateAlias(collection_name=f"{collection}__{version}", alias_name=alias)
                    steps.append(m.CreateAliasOperation(create_alias=create))
        with _server_errors():
            await self._client.update_collection_aliases(change_aliases_operations=steps)

    async def _upload(self, name: str, points: Vectors) -> None:
        from qdrant_client import models as m

        if await self._client.collection_exists(name):
            if (await self._client.count(name, exact=True)).count == len(points.ids):
                return
            await self._client.delete_collection(name)  # a publish that died half-way
        params = {n: m.VectorParams(size=D_MODEL, distance=m.Distance.DOT) for n in points.named}
        layout = self._layout
        await self._client.create_collection(
            name,
            vectors_config=params,
            sharding_method=m.ShardingMethod.CUSTOM if layout.by_city else None,
            shard_number=1 if layout.by_city else None,  # of each key
            replication_factor=layout.replicas,
            write_consistency_factor=layout.write_consistency,
        )
        for city in np.unique(points.city).tolist() if layout.by_city else ():
            await self._client.create_shard_key(name, city)
        for key in ("city_id", *points.facets):
            await self._client.create_payload_index(name, key, field_schema=m.PayloadSchemaType.INTEGER)
        for city, rows in _batches(points, layout):
            batch = m.Batch(
                ids=points.ids[rows].tolist(),
                vectors={n: v[rows].tolist() for n, v in points.named.items()},
                payloads=[points.payload(i) for i in rows.tolist()],
            )
            await self._client.upsert(name, batch, wait=True, shard_key_selector=city)
        written = (await self._client.count(name, exact=True)).count
        if written != len(points.ids):
            raise IndexUnavailable(f"{name} must hold {len(points.ids)} points (got {written})")


class _ServerReader:
    """One version's collections, by their own names: an alias may move under a request."""

    def __init__(
        self, client: Any, version: str, cities: Mapping[Collection, frozenset[int] | None] = MappingProxyType({})
    ) -> None:
        self._client, self._version, self._cities = client, version, cities

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
        from qdrant_client import models as m

        if (cities := self._cities.get(collection)) is not None and city_id not in cities:
            return hits([])  # a server refuses a shard that does not exist
        must: list[Any] = [m.FieldCondition(key="city_id", match=m.MatchValue(value=int(city_id)))]
        must += [
            m.FieldCondition(key=name, match=m.MatchAny(any=[int(v) for v in any_of])) for name, any_of in where.items()
        ]
        without: list[Any] | None = [m.HasIdCondition(has_id=[int(i) for i in exclude])] if len(exclude) else None
        name = f"{collection}__{self._version}"
        with _server_errors():
            answer = await self._client.query_points(
                name, query=vector.tolist(), using=using, limit=limit, with_payload=False,
                with_vectors=False, query_filter=m.Filter(must=must, must_not=without),
                shard_key_selector=None if cities is None else int(city_id),
            )  # fmt: skip
        return hits(answer.points)

    async def vectors(self, collection: Collection, ids: Sequence[int], using: str = "embedding") -> dict[int, Floats]:
        name, wanted = f"{collection}__{self._version}", [int(i) for i in ids]
        with _server_errors():
            records = await self._client.retrieve(name, wanted, with_payload=False, with_vectors=[using])
        return {int(r.id): np.asarray(r.vector[using], dtype=np.float32) for r in records}

    async def close(self) -> None:
        """Nothing: the client is the index's."""


def _batches(points: Vectors, layout: Layout) -> Iterator[tuple[int | None, Ints]]:
    """Rows of one request each; by city, which comes with them, where a city is a shard."""
    groups: list[tuple[int | None, Ints]] = [(None, np.arange(len(points.ids)))]
    if layout.by_city:
        groups = [(city, np.flatnonzero(points.city == city)) for city in np.unique(points.city).tolist()]
    for city, rows in groups:
        for at in range(0, len(rows), BATCH):
            yield city, rows[at : at + BATCH]


@contextlib.contextmanager
def _server_errors() -> Iterator[None]:
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, QdrantException) as error:
        raise IndexUnavailable(f"the Qdrant server did not answer (got {error})") from error
