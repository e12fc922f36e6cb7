"""Historical and online features: the only module that knows Feast.

What history gives as of a moment and what Redis gives at that moment go through the same finishing functions, so
training and serving read the same numbers. Feast applies a view's ttl in history but not on ordinary online reads;
here both ends compare timestamps (`row <= now <= row + ttl`).
"""

import contextlib
import io
import logging
import runpy
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis
from feast import Entity, FeatureService, FeatureView, FileSource
from feast import FeatureStore as FeastStore
from feast.errors import FeatureServiceNotFoundException
from feast.repo_config import load_repo_config
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.constants import (
    D_EDGE_USER_PLACE,
    D_EDGE_USER_USER,
    PLACE_ACTIVITY,
    SECONDS_PER_DAY,
    USER_ACTIVITY,
)
from recsys.errors import DataError, FeatureStoreUnavailable, NotReady
from recsys.online import Floats, Ints, PlaceRow, UserRow, finish_activity, finish_pairs
from recsys.taxonomy import CITY, Widths

_SPINE_CHUNK: Final = 500_000  # rows of one point-in-time join: bounds its memory at about 0.6 GB
_MICROSECOND: Final = timedelta(microseconds=1)


def matrix(column: pa.ChunkedArray, width: int) -> Floats:
    """A list column as (N, width) float32; rows without a value are zeros.

    Raises:
        DataError: a list of another length.
    """
    array = column.combine_chunks()
    out = np.zeros((len(array), width), dtype=np.float32)
    valid = np.asarray(array.is_valid())
    lengths = array.value_lengths().drop_null()
    if len(lengths) and not (np.asarray(lengths) == width).all():
        raise DataError(f"a feature list must have {width} values (got {sorted(set(lengths.to_pylist()))[:3]})")
    out[valid] = np.asarray(array.drop_null().flatten(), dtype=np.float32).reshape(-1, width)
    return out


class FeatureStore:
    """Feast's registry, offline joins and online reads behind a few methods.

    Online reads are synchronous; call them through a thread from async code.
    """

    def __init__(
        self, repo: Path, *, data_dir: Path, redis_url: str, timeout_s: float | None = None,
        widths: Widths = CITY.widths,
    ) -> None:  # fmt: skip
        """Open the repository.

        Args:
            repo: folder with `feature_store.yaml` and `definitions.py`.
            data_dir: where `features/` and the registry are.
            redis_url: `redis://host:port/db`.
            timeout_s: deadline of every online operation; None waits (for jobs).
            widths: of the vectors that online reads must give.
        """
        self._repo, self._data_dir, self._url, self._widths = repo, data_dir.resolve(), redis_url, widths
        config = load_repo_config(repo, repo / "feature_store.yaml")
        config.registry.path = str(self._data_dir / "registry.db")
        self._store = FeastStore(config=config)
        # Feast's own client retries for seconds against a dead or frozen server, whatever its connection string says:
        # ours, with a deadline and no retries, takes its place.
        self._redis = redis.Redis.from_url(
            redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._store._get_provider().online_store._client = self._redis
        self._services: dict[str, FeatureService] = {}
        self._ttls: dict[str, timedelta] = {}

    def apply(self) -> dict[str, int]:
        """Register entities, sources, views and services; return how many of each kind."""
        names = runpy.run_path(str(self._repo / "definitions.py"), init_globals={"DATA_DIR": self._data_dir})
        objects = [v for v in names.values() if isinstance(v, (Entity, FeatureView, FeatureService))]
        views = [v for v in objects if isinstance(v, FeatureView)]
        sources = [v.batch_source for v in views if isinstance(v.batch_source, FileSource)]
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self._store.apply([*sources, *objects])
        self._services.clear()
        self._ttls.clear()
        kinds = {"entities": Entity, "views": FeatureView, "services": FeatureService}
        return {name: sum(isinstance(o, kind) for o in objects) for name, kind in kinds.items()}

    def materialize(self, view: str, start: datetime, end: datetime) -> None:
        """Write to Redis, for every key of a view, its last row stamped in (start, end].

        Raises:
            FeatureStoreUnavailable: Redis went away; running it again completes it.
        """
        with _quiet(), self._redis_errors():
            self._store.materialize(start + _MICROSECOND, end, feature_views=[view])

    def keys(self) -> dict[str, int]:
        """Keys online by kind of entity, counted by scanning."""
        counts: dict[str, int] = {}
        with self._redis_errors():
            for key in self._redis.scan_iter(match=f"*{self._store.project}", count=10_000):
                kind = "_".join(kind for name, kind in _KINDS.items() if name in key)
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def source(self) -> str | None:
        """Fingerprint of the data that Redis was filled from."""
        with self._redis_errors():
            value = self._redis.get(f"{self._store.project}:source")
        return value.decode() if isinstance(value, bytes) else None

    def mark_source(self, fingerprint: str) -> None:
        """Say which data Redis is filled from."""
        with self._redis_errors():
            self._redis.set(f"{self._store.project}:source", fingerprint)

    def clear(self) -> None:
        """Remove every key of this project."""
        with self._redis_errors(), self._redis.pipeline(transaction=False) as pipe:
            self._redis.unlink(f"{self._store.project}:source")  # first: half cleared is filled from nothing
            for i, key in enumerate(self._redis.scan_iter(match=f"*{self._store.project}", count=10_000)):
                pipe.unlink(key)
                if i % 10_000 == 9_999:
                    pipe.execute()
            pipe.execute()

    def historical(self, service: str, spine: Mapping[str, Ints], as_of: datetime) -> pa.Table:
        """Point-in-time features: for every row of the spine, each view's last row at or before `as_of`, within ttl.

        Args:
            service: feature service.
            spine: entity column → (N,) ids.
            as_of: the moment, for every row.

        Returns:
            Table of N rows in the spine's order: the entity columns and `<view>__<feature>`, null where unknown.

        Raises:
            NotReady: the registry or the views' files are not there.
            DataError: the store returned another number of rows.
        """
        import pandas as pd

        total = len(next(iter(spine.values())))
        chunks = []
        for first in range(0, max(total, 1), _SPINE_CHUNK):
            frame = pd.DataFrame({name: ids[first : first + _SPINE_CHUNK] for name, ids in spine.items()})
            frame["row_id"] = np.arange(first, first + len(frame))
            frame["event_timestamp"] = pd.Timestamp(as_of).as_unit("us")
            with _quiet():
                job = self._store.get_historical_features(frame, self._service(service), full_feature_names=True)
                chunk = job.to_arrow()
            if len(chunk) != len(frame):
                raise DataError(f"{service}: point-in-time join must keep {len(frame)} rows (got {len(chunk)})")
            chunks.append(chunk.sort_by("row_id"))  # the join returns rows in an order of its own
        return pa.concat_tables(chunks).drop_columns(["row_id", "event_timestamp"])

    def users(self, ids: Sequence[int], now: datetime) -> list[UserRow | None]:
        """Users by id, None where the store knows none."""
        read = self._read("query_user_v1", {"user_id": list(ids)})
        activity = self._activity(read, "user_activity", len(USER_ACTIVITY), now)
        rows: list[UserRow | None] = []
        for i, user_id in enumerate(ids):
            row = {name: read.value("user_profile", name, i) for name in _USER_FIELDS}
            if row["cat_pref"] is None:
                rows.append(None)
                continue
            rows.append(
                UserRow(
                    user_id=int(user_id),
                    name=str(row["name"]),
                    home_city_id=int(row["home_city_id"]),
                    home_neighborhood_id=int(row["home_neighborhood_id"]),
                    cat_pref=_vector(row["cat_pref"], self._widths.categories),
                    fine_pref=_vector(row["fine_pref"], self._widths.tags),
                    vibe_pref=_vector(row["vibe_pref"], self._widths.vibes),
                    areas=dict(zip(row["area_ids"] or [], row["area_weights"] or [], strict=True)),
                    activity=activity[i],
                )
            )
        return rows

    def places(self, ids: Sequence[int]) -> list[PlaceRow | None]:
        """Places by id, None where the store knows none. A profile holds until the next one, so no moment is asked."""
        read = self._read("show_places_v1", {"place_id": list(ids)})
        rows: list[PlaceRow | None] = []
        for i, place_id in enumerate(ids):
            row = {name: read.value("place_profile", name, i) for name in _PLACE_FIELDS}
            if row["category_one_hot"] is None:
                rows.append(None)
                continue
            rows.append(
                PlaceRow(
                    place_id=int(place_id),
                    name=str(row["name"]),
                    city_id=int(row["city_id"]),
                    neighborhood_id=int(row["neighborhood_id"]),
                    category_one_hot=_vector(row["category_one_hot"], self._widths.categories),
                    fine_tag_vector=_vector(row["fine_tag_vector"], self._widths.tags),
                    price_band=int(row["price_band"]),
                    typical_time_slot=int(row["typical_time_slot"]),
                )
            )
        return rows

    def rank_places(self, user_id: int, place_ids: Sequence[int] | Ints, now: datetime) -> Floats:
        """Online features of candidate places for one user: (C, 24) float32, ONLINE_PLACE."""
        ids = [int(i) for i in place_ids]
        read = self._read("rank_places_v1", {"user_id": [user_id] * len(ids), "place_id": ids})
        stats = read.matrix("user_place", "stats", D_EDGE_USER_PLACE)
        count = np.array([read.value("user_place", "count", i) or 0 for i in range(len(ids))], dtype=np.int64)
        last_us = np.array([read.value("user_place", "last_at_us", i) or 0 for i in range(len(ids))], dtype=np.float64)
        age = (now.timestamp() - last_us / 1e6) / SECONDS_PER_DAY
        pairs = finish_pairs(stats, count, age)
        return np.concatenate([self._activity(read, "place_activity", len(PLACE_ACTIVITY), now), pairs], axis=1)

    def rank_people(self, user_id: int, peer_ids: Sequence[int] | Ints, now: datetime) -> Floats:
        """Online features of candidate people for one user: (C, 13) float32, ONLINE_PEOPLE."""
        ids = [int(i) for i in peer_ids]
        spine = {"user_u": [min(user_id, i) for i in ids], "user_v": [max(user_id, i) for i in ids], "user_id": ids}
        read = self._read("rank_people_v1", spine)
        ties = finish_activity(read.matrix("user_user", "stats", D_EDGE_USER_USER), self._fresh(read, "user_user", now))
        return np.concatenate([ties, self._activity(read, "user_activity", len(USER_ACTIVITY), now)], axis=1)

    def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers within the deadline."""
        with self._redis_errors():
            self._redis.ping()

    def close(self) -> None:
        """Close the connections, also the one that Feast's offline store keeps in ibis."""
        self._redis.close()
        if (backend := ibis.options.default_backend) is not None:
            backend.disconnect()
            ibis.options.default_backend = None

    def _service(self, name: str) -> FeatureService:
        if name not in self._services:  # reading the registry costs 1 ms: once
            try:
                self._services[name] = self._store.get_feature_service(name)
                for view in self._store.list_feature_views():
                    self._ttls[view.name] = view.ttl or timedelta(0)
            except FeatureServiceNotFoundException as error:
                raise NotReady(f"no feature service {name}: run `recsys materialize`, or `feast apply`") from error
        return self._services[name]

    def _read(self, service: str, keys: Mapping[str, list[int]]) -> "_Read":
        if not any(keys.values()):
            return _Read({})  # Feast refuses a request for nobody
        with self._redis_errors():
            response = self._store.get_online_features(
                features=self._service(service), entity_rows=dict(keys), full_feature_names=True
            )
        proto = response.proto
        return _Read(dict(zip(proto.metadata.feature_names.val, proto.results, strict=True)))

    def _fresh(self, read: "_Read", view: str, now: datetime) -> npt.NDArray[np.bool_]:
        stamps = read.stamps(view, "stats")
        ttl = self._ttls[view].total_seconds() or np.inf
        age = now.timestamp() - stamps
        return (stamps > 0) & (age >= 0) & (age <= ttl)

    def _activity(self, read: "_Read", view: str, width: int, now: datetime) -> Floats:
        return finish_activity(read.matrix(view, "stats", width), self._fresh(read, view, now))

    @contextlib.contextmanager
    def _redis_errors(self) -> Any:
        try:
            yield
        except redis.RedisError as error:
            where = urlsplit(self._url)
            said = f"the online store at {where.hostname}:{where.port} did not answer: `recsys up`"
            raise FeatureStoreUnavailable(f"{said} (got {type(error).__name__}: {error})") from error


_USER_FIELDS: Final = (
    "name", "home_city_id", "home_neighborhood_id", "cat_pref", "fine_pref", "vibe_pref", "area_ids", "area_weights",
)  # fmt: skip
_PLACE_FIELDS: Final = (
    "name", "city_id", "neighborhood_id", "category_one_hot", "fine_tag_vector", "price_band", "typical_time_slot",
)  # fmt: skip
_KINDS: Final = {b"user_id": "user", b"place_id": "place", b"user_u": "user", b"user_v": "user"}


def _vector(values: Sequence[float], width: int) -> Floats:
    if len(values) != width:
        raise DataError(f"a feature list must have {width} values (got {len(values)})")
    return np.asarray(values, dtype=np.float32)


class _Read:
    """One online answer, read straight from its protobuf: `to_dict` would add a third."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns

    def value(self, view: str, feature: str, row: int) -> Any:
        """A Python value, or None: the store's status is no guide, it says PRESENT for what it does not know."""
        value = self._columns[f"{view}__{feature}"].values[row]
        kind = value.WhichOneof("val")
        if kind is None or kind == "null_val":
            return None
        content = getattr(value, kind)
        return list(content.val) if hasattr(content, "val") else content

    def matrix(self, view: str, feature: str, width: int) -> Floats:
        """A list feature as (N, width) float32, zeros where unknown."""
        values = self._columns[f"{view}__{feature}"].values if self._columns else ()
        out = np.zeros((len(values), width), dtype=np.float32)
        for i, value in enumerate(values):
            content = value.float_list_val.val
            if content:
                out[i] = content
        return out

    def stamps(self, view: str, feature: str) -> npt.NDArray[np.float64]:
        """(N,) event timestamps in seconds since the epoch, 0 where unknown."""
        stamps = self._columns[f"{view}__{feature}"].event_timestamps if self._columns else ()
        return np.array([s.seconds + s.nanos / 1e9 for s in stamps], dtype=np.float64)


@contextlib.contextmanager
def _quiet() -> Any:
    """Feast prints its progress; the jobs show their own."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
