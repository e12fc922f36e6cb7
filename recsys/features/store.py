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
from recsys.aggregates import finish_pairs, finish_places, finish_ties, finish_users, pairs_of
from recsys.aggregates.finish import Bools, Floats
from recsys.aggregates.states import Ints
from recsys.errors import DataError, FeatureStoreUnavailable, NotReady
from recsys.features.cache import PlaceCache
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
        widths: Widths = CITY.widths, place_cache_s: float = 0.0, yaml: str = "feature_store.yaml",
        history: bool = True,
    ) -> None:  # fmt: skip
        """Open the repository.

        Args:
            repo: folder with `yaml` and `definitions.py`.
            data_dir: where `features/` and the registry are.
            redis_url: `redis://host:port/db`, or `redis+cluster://host:port,host:port`.
            timeout_s: deadline of every online read; None waits (for jobs).
            widths: of the vectors that online reads must give.
            place_cache_s: how long this process may answer from a place's state that it has read; 0: not at all.
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
        answers, _ = self._ask(self._ask_users(asked))
        return self._users(asked, answers, finish_users(decode(answers[len(asked) : 2 * len(asked)]), _micros(now)))

    def profiles(self, ids: Sequence[int], lost: set[int] | None = None) -> list[UserProfile | None]:
        """Profiles of users by id, None where the store knows none. They hold until the next, so no moment is asked.

        Args:
            ids: whose.
            lost: takes the ids of those whose node of a cluster does not answer; None: that is an error.
        """
        asked = np.asarray(ids, dtype=np.int64)
        answers = self._one_each(self.rows("user_profile").get_many([asked], USER_FIELDS), asked, lost)
        found = [user_profile(i, answer, self._widths) for i, answer in zip(asked.tolist(), answers, strict=True)]
        return [None if row is None else UserProfile(**row) for row in found]

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
        ids, now_us = np.asarray(place_ids, dtype=np.int64), _micros(now)
        user, places, pairs = np.array([user_id]), self.rows("place_activity"), self.rows("user_place")
        features, missing, age_s = self._cache.look_up(ids, now_us)
        commands, wanted = self._ask_users(user), ids[missing]
        n, end = commands.replies, commands.replies + len(missing)
        asked = pairs.get(_by_name(pairs, user_id=np.full_like(ids, user_id), place_id=ids))
        answers, lost = self._ask(commands + places.get([wanted]) + asked, partly=partly)
        gone = np.stack([np.zeros(len(ids), dtype=bool), lost[end:]], axis=1)
        if len(wanted):
            features[missing] = finish_places(decode(answers[n:end]), now_us)
            gone[missing, 0] = lost[n:end]
            there = missing[~lost[n:end]]
            self._cache.keep(ids[there], features[there], now_us)
        history = finish_pairs(pairs_of(decode(answers[end:]), now_us))
        (row,) = self._users(user, answers[:n], finish_users(decode(answers[1:2]), now_us))
        return Candidates(row, np.concatenate([features, history], axis=1), age_s, gone, bool(lost[0]))

    def rank_people(
        self, user_id: int, peer_ids: Sequence[int] | Ints, now: datetime, *, partly: bool = False
    ) -> Candidates:
        """A user and C candidate people with their ties, in one round trip; otherwise like `rank_places`."""
        ids, now_us = np.asarray(peer_ids, dtype=np.int64), _micros(now)
        user, peers, ties = np.array([user_id]), self.rows("user_activity"), self.rows("user_user")
        commands = self._ask_users(user)
        n, end = commands.replies, commands.replies + len(ids)
        ends = _by_name(ties, user_u=np.minimum(ids, user_id), user_v=np.maximum(ids, user_id))
        answers, lost = self._ask(commands + ties.get(ends) + peers.get([ids]), partly=partly)
        met = finish_ties(decode(answers[n:end]))
        activity = finish_users(decode([*answers[1:2], *answers[end:]]), now_us)  # the user's own first
        (row,) = self._users(user, answers[:n], activity[:1])
        gone = np.stack([lost[end:], lost[n:end]], axis=1)
        return Candidates(row, np.concatenate([met, activity[1:]], axis=1), 0.0, gone, bool(lost[0]))

    def cached(self) -> tuple[int, int]:
        """Places of candidates whose features were at hand, and those whose were read, since the start."""
        return self._cache.hits, self._cache.misses

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

    def _ask_users(self, ids: Ints) -> Commands:
        parts = [self.rows("user_profile").get_many([ids], USER_FIELDS)]
        return Commands.join([*parts, *(self.rows(view).get([ids]) for view in ("user_activity", "user_recent"))])

    def _users(self, ids: Ints, answers: Sequence[Any], activity: Floats) -> list[UserRow | None]:
        n = len(ids)
        rows: list[UserRow | None] = []
        for i, user_id in enumerate(ids.tolist()):
            row = user_profile(user_id, answers[i], self._widths)
            if row is None:
                rows.append(None)
                continue
            recent = decode([answers[2 * n + i]]).values[1::2]
            rows.append(UserRow(**row, activity=activity[i], recent=recent.astype(np.int64)))
        return rows


def _schema(views: Sequence[FeatureView]) -> dict[str, dict[str, str]]:
    return {
        view.name: {f.name: " ".join([str(f.dtype), *map("=".join, sorted(f.tags.items()))]) for f in view.features}
        for view in sorted(views, key=lambda v: v.name)
    }


def _by_name(rows: Rows, **ids: Ints) -> list[Ints]:
    return [ids[name] for name in rows.join_keys]


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
