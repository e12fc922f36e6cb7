"""Feast's registry, point-in-time joins and online reads behind a few methods.

What history gives as of a moment and what Redis gives at that moment are the same states, finished by the same
functions (`recsys.aggregates`). Feast applies a view's ttl in history but not on ordinary online reads: the finishing
does, in both.
"""

import contextlib
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import ibis
import numpy as np
import pyarrow as pa
import redis
from feast import Entity, FeatureService, FeatureView
from feast import FeatureStore as FeastStore
from feast.data_source import DataSource
from feast.errors import FeatureServiceNotFoundException
from redis.exceptions import RedisClusterException

from recsys.address import Address
from recsys.aggregates import (
    ONLINE_USER,
    PLACE_ACTIVITY,
    finish_pairs,
    finish_places,
    finish_ties,
    finish_users,
    pairs_of,
)
from recsys.aggregates.finish import Bools, Floats
from recsys.aggregates.states import Ints, States
from recsys.errors import DataError, FeatureStoreUnavailable, NotReady
from recsys.features.cache import FeatureCache
from recsys.features.clients import open_client, open_wire
from recsys.features.config import SPARK, read_config
from recsys.features.format import Rows, decode
from recsys.features.lean import quiet
from recsys.features.profiles import PLACE_FIELDS, USER_FIELDS, place_row, user_profile
from recsys.features.wire import Commands
from recsys.online import Candidates, PlaceRow, UserProfile, UserRow
from recsys.taxonomy import CITY, Widths

_SPINE_CHUNK: Final = 2_000_000  # rows of one point-in-time join: bounds its memory at about 2 GB


class FeatureStore:
    """The feature store. Online reads are synchronous; call them through a thread from async code."""

    def __init__(
        self, repo: Path, *, data_dir: Path, redis_url: str, timeout_s: float | None = None,
        widths: Widths = CITY.widths, feature_cache_s: float = 0.0, yaml: str = "feature_store.yaml",
        history: bool = True,
    ) -> None:  # fmt: skip
        """Open the repository.

        Args:
            repo: folder with `yaml` and `definitions.py`.
            data_dir: where `features/` and the registry are.
            redis_url: `redis://host:port/db`, or `redis+cluster://host:port,host:port`.
            timeout_s: deadline of every online read; None waits (for jobs).
            widths: of the vectors that online reads must give.
            feature_cache_s: how long this process may answer from what it has read of a candidate; 0: not at all.
            yaml: Feast's configuration; its offline store decides which kind of sources the definitions have.
            history: whether more than what is online is read or written: a store that only serves needs no engine.

        Raises:
            ConfigError: there is no such configuration.
        """
        self._repo, self._data_dir, self._widths = repo, data_dir.resolve(), widths
        self._address = Address.parse(redis_url)
        config, self._engine = read_config(repo / yaml, self._data_dir, redis_url, history=history)
        self._store = FeastStore(config=config)
        # Feast's own client retries for seconds against a dead or frozen server, whatever its connection string says:
        # ours, with a deadline, takes its place.
        self._timeout_s = timeout_s
        self._client: redis.Redis | redis.RedisCluster | None = None
        self._store._get_provider().online_store._get_client = lambda _: self._feasts()
        self.wire = open_wire(self._address, timeout_s)
        self._rows: dict[str, Rows] = {}
        widths_of = {"place_activity": len(PLACE_ACTIVITY) + 1, "user_activity": len(ONLINE_USER)}
        self._caches = {view: FeatureCache(feature_cache_s, width) for view, width in widths_of.items()}

    @property
    def project(self) -> str:
        """What all keys of this store end in."""
        return str(self._store.project)

    # -------------------------------------------------------------------------------------------------------- registry
    def apply(self) -> dict[str, int]:
        """Register entities, sources, views and services; return how many of each kind."""
        objects = self._defined()
        views = [v for v in objects if isinstance(v, FeatureView)]
        sources = [v.batch_source for v in views if isinstance(v.batch_source, DataSource)]
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
                # of a Spark job Feast makes an Arrow table by way of pandas, which loses the types
                chunk = job.to_spark_df().toArrow() if self._engine == SPARK else job.to_arrow()
            if len(chunk) != len(frame):
                raise DataError(f"{service}: point-in-time join must keep {len(frame)} rows (got {len(chunk)})")
            chunks.append(chunk.sort_by("row_id"))  # the join returns rows in an order of its own
        return pa.concat_tables(chunks).drop_columns(["row_id", "event_timestamp"])

    # ---------------------------------------------------------------------------------------------------------- online
    def users(self, ids: Sequence[int], now: datetime) -> list[UserRow | None]:
        """Users by id, None where the store knows none."""
        asked = np.asarray(ids, dtype=np.int64)
        parts = [self.rows("user_profile").get_many([asked], USER_FIELDS)]
        parts += [self.rows(view).get([asked]) for view in ("user_activity", "user_recent")]
        answers, n = self._ask(Commands.join(parts))[0], len(asked)
        activity = finish_users(decode(answers[n : 2 * n]), _micros(now))
        recent = [decode([answer]).values[1::2].astype(np.int64) for answer in answers[2 * n :]]
        rows = zip(self._profiles(asked.tolist(), answers[:n]), activity, recent, strict=True)
        return [None if row is None else UserRow(**vars(row), activity=done, recent=at) for row, done, at in rows]

    def profiles(self, ids: Sequence[int], lost: set[int] | None = None) -> list[UserProfile | None]:
        """Profiles of users by id, None where the store knows none. They hold until the next, so no moment is asked.

        Args:
            ids: whose.
            lost: takes the ids of those whose node of a cluster does not answer; None: that is an error.
        """
        asked = np.asarray(ids, dtype=np.int64)
        answers = self._one_each(self.rows("user_profile").get_many([asked], USER_FIELDS), asked, lost)
        return self._profiles(asked.tolist(), answers)

    def places(self, ids: Sequence[int], lost: set[int] | None = None) -> list[PlaceRow | None]:
        """Places by id, None where the store knows none; otherwise like `profiles`."""
        asked = np.asarray(ids, dtype=np.int64)
        answers = self._one_each(self.rows("place_profile").get_many([asked], PLACE_FIELDS), asked, lost)
        return [place_row(i, answer, self._widths) for i, answer in zip(asked.tolist(), answers, strict=True)]

    def rank_places(
        self, user_id: int, place_ids: Sequence[int] | Ints, now: datetime, *, partly: bool = False
    ) -> Candidates:
        """A user and C candidate places with their pairs, in one round trip.

        Args:
            user_id: the user.
            place_ids: (C,).
            now: the moment.
            partly: whether to go on where some nodes of a cluster do not answer: `Candidates.lost` says whose rows
                were theirs.
        """
        ids, pairs, now_us = np.asarray(place_ids, dtype=np.int64), self.rows("user_place"), _micros(now)
        asked = pairs.get(_by_name(pairs, user_id=np.full_like(ids, user_id), place_id=ids))
        read, met = self._rank(user_id, ids, now_us, "place_activity", finish_places, asked, partly)
        history = finish_pairs(pairs_of(met, now_us))
        return replace(read, features=np.concatenate([read.features, history], axis=1))

    def rank_people(
        self, user_id: int, peer_ids: Sequence[int] | Ints, now: datetime, *, partly: bool = False
    ) -> Candidates:
        """A user and C candidate people with their ties, in one round trip; otherwise like `rank_places`."""
        ids, ties, now_us = np.asarray(peer_ids, dtype=np.int64), self.rows("user_user"), _micros(now)
        asked = ties.get(_by_name(ties, user_u=np.minimum(ids, user_id), user_v=np.maximum(ids, user_id)))
        read, met = self._rank(user_id, ids, now_us, "user_activity", finish_users, asked, partly)
        return replace(read, features=np.concatenate([finish_ties(met), read.features], axis=1))

    def _rank(
        self, user_id: int, ids: Ints, now_us: int, view: str, finish: Callable[[States, int], Floats], pairs: Commands,
        partly: bool,
    ) -> tuple[Candidates, States]:  # fmt: skip
        """A user and (C,) candidates by their own features, of a view, and what `pairs` asks of each pair."""
        features, missing, age_s = self._caches[view].look_up(ids, now_us)
        user = self.rows("user_profile").get_many([np.array([user_id])], USER_FIELDS)
        answers, lost = self._ask(user + self.rows(view).get([ids[missing]]) + pairs, partly=partly)
        end = 1 + len(missing)
        gone = np.stack([np.zeros(len(ids), dtype=bool), lost[end:]], axis=1)
        if len(missing):
            features[missing] = finish(decode(answers[1:end]), now_us)
            gone[missing, 0] = lost[1:end]
            there = missing[~lost[1:end]]
            self._caches[view].keep(ids[there], features[there], now_us)
        (profile,) = self._profiles([user_id], answers[:1])
        return Candidates(profile, features, age_s, gone, bool(lost[0])), decode(answers[end:])

    def cached(self) -> tuple[int, int]:
        """Candidates whose features were at hand, and those whose were read, since the start."""
        caches = self._caches.values()
        return sum(cache.hits for cache in caches), sum(cache.misses for cache in caches)

    def ping(self) -> list[str]:
        """Ask for a sign of life within the deadline.

        Returns:
            Nodes of a cluster that do not answer, by host and port.

        Raises:
            FeatureStoreUnavailable: none does.
        """
        with self.redis_errors():
            return self.wire.silent()

    def close(self) -> None:
        """Close the connections, also the one that Feast's offline store keeps in ibis."""
        self.wire.close()
        if self._client is not None:
            self._client.close()
        if (backend := ibis.options.default_backend) is not None:
            backend.disconnect()
            ibis.options.default_backend = None

    @contextlib.contextmanager
    def redis_errors(self) -> Iterator[None]:
        """Say which server did not answer."""
        try:
            yield
        except (redis.RedisError, RedisClusterException) as error:
            said = f"the online store at {self._address.where} did not answer"
            mend = "recsys doctor" if self._address.cluster else "recsys up"
            raise FeatureStoreUnavailable(f"{said}: `{mend}` (got {type(error).__name__}: {error})") from error

    def _feasts(self) -> redis.Redis | redis.RedisCluster:
        if self._client is None:
            self._client = open_client(self._address, self._timeout_s)
        return self._client

    def _defined(self) -> list[Entity | FeatureView | FeatureService]:
        said = {"DATA_DIR": self._data_dir, "ENGINE": self._engine}
        names = runpy.run_path(str(self._repo / "definitions.py"), init_globals=said)
        return [v for v in names.values() if isinstance(v, (Entity, FeatureView, FeatureService))]

    def _service(self, name: str) -> FeatureService:
        try:
            return self._store.get_feature_service(name)
        except FeatureServiceNotFoundException as error:
            raise NotReady(f"no feature service {name}: run `recsys materialize`, or `feast apply`") from error

    def _ask(self, commands: Commands, *, partly: bool = False) -> tuple[list[Any], Bools]:
        """Replies, and (N,) which were lost with a node of a cluster: none unless `partly`."""
        with self.redis_errors():
            answers, lost = self.wire.ask_partly(commands) if partly else (self.wire.ask(commands), None)
        return answers, np.zeros(len(answers), dtype=bool) if lost is None else lost

    def _one_each(self, commands: Commands, ids: Ints, lost: set[int] | None) -> list[Any]:
        answers, gone = self._ask(commands, partly=lost is not None)
        if lost is not None:
            lost.update(ids[gone].tolist())
        return answers

    def _profiles(self, ids: Sequence[int], answers: Sequence[Any]) -> list[UserProfile | None]:
        return [user_profile(i, answer, self._widths) for i, answer in zip(ids, answers, strict=True)]


def _schema(views: Sequence[FeatureView]) -> dict[str, dict[str, str]]:
    return {
        view.name: {f.name: " ".join([str(f.dtype), *map("=".join, sorted(f.tags.items()))]) for f in view.features}
        for view in sorted(views, key=lambda v: v.name)
    }


def _by_name(rows: Rows, **ids: Ints) -> list[Ints]:
    return [ids[name] for name in rows.join_keys]


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
