"""Feast's registry, point-in-time joins and online reads behind a few methods.

What history gives as of a moment and what Redis gives at that moment are the same states, finished by the same
functions (`recsys.aggregates`). Feast applies a view's ttl in history but not on ordinary online reads: the finishing
does, in both.
"""

import contextlib
import runpy
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import ibis
import numpy as np
import pyarrow as pa
import redis
from feast import Entity, FeatureService, FeatureView, FileSource
from feast import FeatureStore as FeastStore
from feast.errors import FeatureServiceNotFoundException
from feast.repo_config import load_repo_config
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.aggregates import finish_pairs, finish_places, finish_ties, finish_users, pairs_of
from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.errors import DataError, FeatureStoreUnavailable, NotReady
from recsys.features.cache import PlaceCache
from recsys.features.format import Rows, decode, floats, value
from recsys.features.lean import quiet
from recsys.features.wire import Wire
from recsys.online import Candidates, PlaceRow, UserProfile, UserRow
from recsys.taxonomy import CITY, Widths

_SPINE_CHUNK: Final = 2_000_000  # rows of one point-in-time join: bounds its memory at about 2 GB
_USER_FIELDS: Final = (
    "name", "home_city_id", "home_neighborhood_id", "cat_pref", "fine_pref", "vibe_pref", "area_ids", "area_weights",
)  # fmt: skip
_PLACE_FIELDS: Final = (
    "name", "city_id", "neighborhood_id", "category_one_hot", "fine_tag_vector", "price_band", "typical_time_slot",
)  # fmt: skip


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
    """The feature store. Online reads are synchronous; call them through a thread from async code."""

    def __init__(
        self, repo: Path, *, data_dir: Path, redis_url: str, timeout_s: float | None = None,
        widths: Widths = CITY.widths, place_cache_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Open the repository.

        Args:
            repo: folder with `feature_store.yaml` and `definitions.py`.
            data_dir: where `features/` and the registry are.
            redis_url: `redis://host:port/db`.
            timeout_s: deadline of every online read; None waits (for jobs).
            widths: of the vectors that online reads must give.
            place_cache_s: how long this process may answer from a place's state that it has read; 0: not at all.
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
        self.wire = Wire(self._redis, timeout_s)
        self._rows: dict[str, Rows] = {}
        self._cache = PlaceCache(place_cache_s)

    @property
    def project(self) -> str:
        """What all keys of this store end in."""
        return str(self._store.project)

    # -------------------------------------------------------------------------------------------------------- registry
    def apply(self) -> dict[str, int]:
        """Register entities, sources, views and services; return how many of each kind."""
        objects = self._defined()
        views = [v for v in objects if isinstance(v, FeatureView)]
        sources = [v.batch_source for v in views if isinstance(v.batch_source, FileSource)]
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with quiet():
            self._store.apply([*sources, *objects])
        self._rows.clear()
        kinds = {"entities": Entity, "views": FeatureView, "services": FeatureService}
        return {name: sum(isinstance(o, kind) for o in objects) for name, kind in kinds.items()}

    def schema(self) -> dict[str, dict[str, str]]:
        """Features and their types by registered view, and what stands where in packed ones."""
        return _schema(self._store.list_feature_views())

    def defined_schema(self) -> dict[str, dict[str, str]]:
        """The same of the definitions, which may have changed since they were registered."""
        return _schema([view for view in self._defined() if isinstance(view, FeatureView)])

    def rows(self, view: str) -> Rows:
        """Where a view's rows are online.

        Raises:
            NotReady: the view is not registered.
        """
        if not self._rows:  # reading the registry costs a millisecond: once
            found = {v.name: Rows.of(self.project, v) for v in self._store.list_feature_views()}
            self._rows = found
        if view not in self._rows:
            raise NotReady(f"no feature view {view}: run `recsys materialize`, or `feast apply`")
        return self._rows[view]

    def materialize(self, view: str, start: datetime, end: datetime) -> None:
        """Through Feast: write to Redis, for every key of a view, its last row stamped in (start, end].

        Raises:
            FeatureStoreUnavailable: Redis went away; running it again completes it.
        """
        with quiet(), self.redis_errors():
            self._store.materialize(start + timedelta(microseconds=1), end, feature_views=[view])

    def mark_materialized(self, view: str, start: datetime, end: datetime) -> None:
        """Note in the registry what is online, as Feast's own materialization does."""
        self._store.registry.apply_materialization(self._store.get_feature_view(view), self.project, start, end)

    # --------------------------------------------------------------------------------------------------------- history
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
            with quiet():
                job = self._store.get_historical_features(frame, self._service(service), full_feature_names=True)
                chunk = job.to_arrow()
            if len(chunk) != len(frame):
                raise DataError(f"{service}: point-in-time join must keep {len(frame)} rows (got {len(chunk)})")
            chunks.append(chunk.sort_by("row_id"))  # the join returns rows in an order of its own
        return pa.concat_tables(chunks).drop_columns(["row_id", "event_timestamp"])

    # ---------------------------------------------------------------------------------------------------------- online
    def users(self, ids: Sequence[int], now: datetime) -> list[UserRow | None]:
        """Users by id, None where the store knows none."""
        asked = np.asarray(ids, dtype=np.int64)
        commands, replies = self._ask_users(asked)
        answers = self._ask(commands, replies)
        return self._users(asked, answers, finish_users(decode(answers[len(asked) : 2 * len(asked)]), _micros(now)))

    def profiles(self, ids: Sequence[int]) -> list[UserProfile | None]:
        """Profiles of users by id, None where the store knows none. They hold until the next, so no moment is asked."""
        asked = np.asarray(ids, dtype=np.int64)
        answers = self._ask(self.rows("user_profile").get_many([asked], _USER_FIELDS), len(asked))
        return [
            None if (row := self._profile(user_id, answer)) is None else UserProfile(**row)
            for user_id, answer in zip(asked.tolist(), answers, strict=True)
        ]

    def places(self, ids: Sequence[int]) -> list[PlaceRow | None]:
        """Places by id, None where the store knows none. A profile holds until the next one, so no moment is asked."""
        asked = np.asarray(ids, dtype=np.int64)
        answers = self._ask(self.rows("place_profile").get_many([asked], _PLACE_FIELDS), len(asked))
        rows: list[PlaceRow | None] = []
        for place_id, answer in zip(asked.tolist(), answers, strict=True):
            name, city, area, categories, tags, price, slot = answer
            if (kinds := floats(categories, self._widths.categories)) is None:
                rows.append(None)
                continue
            rows.append(
                PlaceRow(
                    place_id=place_id,
                    name=str(value(name)),
                    city_id=int(value(city)),
                    neighborhood_id=int(value(area)),
                    category_one_hot=kinds,
                    fine_tag_vector=_filled(tags, self._widths.tags),
                    price_band=int(value(price)),
                    typical_time_slot=int(value(slot)),
                )
            )
        return rows

    def rank_places(self, user_id: int, place_ids: Sequence[int] | Ints, now: datetime) -> Candidates:
        """A user and C candidate places with their pairs, in one round trip."""
        ids, now_us = np.asarray(place_ids, dtype=np.int64), _micros(now)
        user, places, pairs = np.array([user_id]), self.rows("place_activity"), self.rows("user_place")
        features, missing, age_s = self._cache.look_up(ids, now_us)
        commands, n = self._ask_users(user)
        wanted = ids[missing]
        answers = self._ask(
            commands
            + places.get([wanted])
            + pairs.get(_by_name(pairs, user_id=np.full_like(ids, user_id), place_id=ids)),
            n + len(wanted) + len(ids),
        )
        if len(wanted):
            features[missing] = finish_places(decode(answers[n : n + len(wanted)]), now_us)
            self._cache.keep(wanted, features[missing], now_us)
        history = finish_pairs(pairs_of(decode(answers[n + len(wanted) :]), now_us))
        (row,) = self._users(user, answers[:n], finish_users(decode(answers[1:2]), now_us))
        return Candidates(row, np.concatenate([features, history], axis=1), age_s)

    def rank_people(self, user_id: int, peer_ids: Sequence[int] | Ints, now: datetime) -> Candidates:
        """A user and C candidate people with their ties, in one round trip."""
        ids, now_us = np.asarray(peer_ids, dtype=np.int64), _micros(now)
        user, peers, ties = np.array([user_id]), self.rows("user_activity"), self.rows("user_user")
        commands, n = self._ask_users(user)
        ends = _by_name(ties, user_u=np.minimum(ids, user_id), user_v=np.maximum(ids, user_id))
        answers = self._ask(commands + ties.get(ends) + peers.get([ids]), n + 2 * len(ids))
        met = finish_ties(decode(answers[n : n + len(ids)]))
        activity = finish_users(decode([*answers[1:2], *answers[n + len(ids) :]]), now_us)  # the user's own first
        (row,) = self._users(user, answers[:n], activity[:1])
        return Candidates(row, np.concatenate([met, activity[1:]], axis=1), 0.0)

    def cached(self) -> tuple[int, int]:
        """Places of candidates whose features were at hand, and those whose were read, since the start."""
        return self._cache.hits, self._cache.misses

    def ping(self) -> None:
        """Raise FeatureStoreUnavailable unless Redis answers within the deadline."""
        with self.redis_errors():
            self._redis.ping()

    def close(self) -> None:
        """Close the connections, also the one that Feast's offline store keeps in ibis."""
        self.wire.close()
        self._redis.close()
        if (backend := ibis.options.default_backend) is not None:
            backend.disconnect()
            ibis.options.default_backend = None

    @contextlib.contextmanager
    def redis_errors(self) -> Iterator[None]:
        """Say which server did not answer."""
        try:
            yield
        except redis.RedisError as error:
            where = urlsplit(self._url)
            said = f"the online store at {where.hostname}:{where.port} did not answer: `recsys up`"
            raise FeatureStoreUnavailable(f"{said} (got {type(error).__name__}: {error})") from error

    def _defined(self) -> list[Entity | FeatureView | FeatureService]:
        names = runpy.run_path(str(self._repo / "definitions.py"), init_globals={"DATA_DIR": self._data_dir})
        return [v for v in names.values() if isinstance(v, (Entity, FeatureView, FeatureService))]

    def _service(self, name: str) -> FeatureService:
        try:
            return self._store.get_feature_service(name)
        except FeatureServiceNotFoundException as error:
            raise NotReady(f"no feature service {name}: run `recsys materialize`, or `feast apply`") from error

    def _ask(self, commands: bytes, replies: int) -> list[Any]:
        with self.redis_errors():
            return self.wire.ask(commands, replies)

    def _ask_users(self, ids: Ints) -> tuple[bytes, int]:
        parts = [self.rows("user_profile").get_many([ids], _USER_FIELDS)]
        parts += [self.rows(view).get([ids]) for view in ("user_activity", "user_recent")]
        return b"".join(parts) if len(ids) else b"", 3 * len(ids)

    def _users(self, ids: Ints, answers: Sequence[Any], activity: Floats) -> list[UserRow | None]:
        n = len(ids)
        rows: list[UserRow | None] = []
        for i, user_id in enumerate(ids.tolist()):
            row = self._profile(user_id, answers[i])
            if row is None:
                rows.append(None)
                continue
            recent = decode([answers[2 * n + i]]).values[1::2]
            rows.append(UserRow(**row, activity=activity[i], recent=recent.astype(np.int64)))
        return rows

    def _profile(self, user_id: int, answer: Sequence[bytes | None]) -> dict[str, Any] | None:
        """The fields of a `UserProfile` by name; None where the store knows none."""
        name, city, area, categories, tags, vibes, areas, weights = answer
        if (likes := floats(categories, self._widths.categories)) is None:
            return None
        return {
            "user_id": user_id,
            "name": str(value(name)),
            "home_city_id": int(value(city)),
            "home_neighborhood_id": int(value(area)),
            "cat_pref": likes,
            "fine_pref": _filled(tags, self._widths.tags),
            "vibe_pref": _filled(vibes, self._widths.vibes),
            "areas": dict(zip(value(areas) or [], value(weights) or [], strict=True)),
        }


def _schema(views: Sequence[FeatureView]) -> dict[str, dict[str, str]]:
    return {
        view.name: {f.name: " ".join([str(f.dtype), *map("=".join, sorted(f.tags.items()))]) for f in view.features}
        for view in sorted(views, key=lambda v: v.name)
    }


def _by_name(rows: Rows, **ids: Ints) -> list[Ints]:
    return [ids[name] for name in rows.join_keys]


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _filled(reply: bytes | None, width: int) -> Floats:
    if (values := floats(reply, width)) is None:
        raise DataError(f"a feature list must have {width} values (got none)")
    return values
