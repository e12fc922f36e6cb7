"""A small engine of real parts: Qdrant Edge, the heads with random weights, and features held in memory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from recsys.aggregates import D_ONLINE_PEOPLE, D_ONLINE_PLACE, ONLINE_PEOPLE, ONLINE_PLACE, ONLINE_USER
from recsys.constants import C_COARSE, C_FINE, C_VIBE, FACETS, N_PRICE_BANDS, N_TIME_SLOTS
from recsys.errors import FeatureStoreUnavailable
from recsys.index import EdgeIndex, Vectors
from recsys.models.config import ModelConfig
from recsys.models.heads import Heads
from recsys.models.ranker import Ranker
from recsys.online import Candidates, PlaceRow, UserProfile, UserRow
from recsys.recommend.catalogue import Catalogue, Homes
from recsys.recommend.community import Community
from recsys.recommend.engine import Engine, Gazetteer
from recsys.recommend.fallback import Own
from recsys.safety import Safety
from recsys.sources import Memory, Outings, PeopleSources, PlaceSources, Traits

NOW = datetime(2024, 3, 25, tzinfo=UTC)
N_USERS, N_PLACES, N_CITIES, N_AREAS = 60, 200, 3, 4
Row = TypeVar("Row")


def user_row(rng: np.random.Generator, user_id: int) -> UserRow:
    areas = rng.choice(N_AREAS, size=2, replace=False)
    return UserRow(
        user_id, f"User {user_id}", user_id % N_CITIES, int(areas[0]),
        rng.dirichlet(np.ones(C_COARSE)).astype(np.float32), rng.dirichlet(np.full(C_FINE, 0.05)).astype(np.float32),
        rng.dirichlet(np.full(C_VIBE, 0.1)).astype(np.float32), {int(a): 0.5 for a in areas},
        rng.random(len(ONLINE_USER)).astype(np.float32), np.arange(3),
    )  # fmt: skip


def place_row(rng: np.random.Generator, place_id: int) -> PlaceRow:
    category = np.eye(C_COARSE, dtype=np.float32)[rng.integers(C_COARSE)]
    tags = rng.dirichlet(np.full(C_FINE, 0.05)).astype(np.float32)
    tags[tags < 0.05] = 0
    area, price, slot = (int(rng.integers(n)) for n in (N_AREAS, 5, 6))
    return PlaceRow(place_id, f"Place {place_id}", place_id % N_CITIES, area, category, tags, price, slot)


@dataclass
class MemoryFeatures:
    """Online features held in memory; `down` makes every read fail as a dead server would."""

    user_rows: dict[int, UserRow]
    place_rows: dict[int, PlaceRow]
    down: bool = False
    away: Callable[[int], bool] = lambda i: False  # whose rows are on a node that does not answer
    pairs: set[tuple[int, int]] = field(default_factory=set)  # (user, place) that the store knows events of
    ties: set[tuple[int, int]] = field(default_factory=set)  # (user, peer) that the store knows a tie of
    silent: list[str] = field(default_factory=list)  # nodes that answer no ping
    calls: list[str] = field(default_factory=list)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise FeatureStoreUnavailable("the online store at 127.0.0.1:1 did not answer")

    def users(self, ids: Sequence[int], now: datetime) -> list[UserRow | None]:
        self._call("users")
        return self._there(self.user_rows, ids, None)

    def profiles(self, ids: Sequence[int], lost: set[int] | None = None) -> list[UserProfile | None]:
        self._call("profiles")
        return self._there(self.user_rows, ids, lost)

    def places(self, ids: Sequence[int], lost: set[int] | None = None) -> list[PlaceRow | None]:
        self._call("places")
        return self._there(self.place_rows, ids, lost)

    def rank_places(self, user_id: int, place_ids: Sequence[int], now: datetime, *, partly: bool = False) -> Candidates:
        self._call("rank_places")
        return self._partly(user_id, place_ids, self._candidates(user_id, place_ids, D_ONLINE_PLACE))

    def rank_people(self, user_id: int, peer_ids: Sequence[int], now: datetime, *, partly: bool = False) -> Candidates:
        self._call("rank_people")
        return self._partly(user_id, peer_ids, self._candidates(user_id, peer_ids, D_ONLINE_PEOPLE))

    def _there(self, rows: Mapping[int, Row], ids: Sequence[int], lost: set[int] | None) -> list[Row | None]:
        if lost is not None:
            lost.update(i for i in ids if self.away(i))
        return [None if self.away(i) else rows.get(i) for i in ids]

    def _partly(self, user_id: int, ids: Sequence[int], whole: Candidates) -> Candidates:
        lost = np.array([[self.away(int(i)), self.away(user_id * 1_000 + int(i))] for i in ids], dtype=bool)
        lost = lost.reshape(len(ids), 2)
        if whole.features.shape[1] == D_ONLINE_PEOPLE:
            pair, own = np.split(whole.features, [ONLINE_PEOPLE.index("tie_known") + 1], axis=1)
        else:
            own, pair = np.split(whole.features, [ONLINE_PLACE.index("place_known") + 1], axis=1)
        own[lost[:, 0]], pair[lost[:, 1]] = 0, 0
        user = None if self.away(user_id) else whole.user
        return Candidates(user, whole.features, 0.0, lost, self.away(user_id))

    def _candidates(self, user_id: int, ids: Sequence[int], width: int) -> Candidates:
        features = [np.random.default_rng([user_id, int(i)]).random(width) for i in ids]
        values = np.array(features, dtype=np.float32).reshape(len(features), width)
        if width == D_ONLINE_PLACE:
            values[:, -1] = [(user_id, int(i)) in self.pairs for i in ids]
        else:
            values[:, ONLINE_PEOPLE.index("tie_known")] = [(user_id, int(i)) in self.ties for i in ids]
        return Candidates(self.user_rows.get(user_id), values, 0.0)

    def schema(self) -> dict[str, dict[str, str]]:
        return {}

    def cached(self) -> tuple[int, int]:
        return 0, self.calls.count("rank_places")

    def ping(self) -> list[str]:
        self._call("ping")
        return self.silent

    def close(self) -> None:
        self.calls.append("close")


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.normal(size=(n, 128)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def traits(categories: np.ndarray, tags: np.ndarray) -> Traits:
    """Places of some kinds, whose areas, prices and slots go round."""
    at = np.arange(len(categories))
    return Traits(categories, tags, at % N_AREAS, at % N_PRICE_BANDS, at % N_TIME_SLOTS)


def make_sources(n_users: int) -> PlaceSources:
    """Each user was at five places, some twice, and knows two others."""
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(n_users), 5)
    place = np.concatenate([rng.choice(N_PLACES, 5, replace=False) for _ in range(n_users)])
    count, age = rng.integers(1, 4, len(user)), rng.uniform(0, 120, len(user))
    u = np.arange(n_users)
    ties = np.concatenate([u, (u + 1) % n_users]), np.concatenate([(u + 1) % n_users, u])
    kinds = np.eye(C_COARSE, dtype=np.float32)[rng.integers(C_COARSE, size=N_PLACES)]
    tags, city = np.eye(C_FINE, dtype=np.float32)[np.arange(N_PLACES) % C_FINE], np.arange(N_PLACES) % N_CITIES
    return PlaceSources(Memory.of((user, place), count, age, ties, city, traits(kinds, tags), n_users))


def places_table(rows: Mapping[int, PlaceRow], vectors: np.ndarray) -> pa.Table:
    """What an artifact says of the places."""
    return pa.table(
        {
            "place_id": list(rows),
            "index": range(len(rows)),
            "name": [r.name for r in rows.values()],
            "city_id": [r.city_id for r in rows.values()],
            "embedding": list(vectors),
            "price_band": [r.price_band for r in rows.values()],
            "neighborhood_id": [r.neighborhood_id for r in rows.values()],
            "typical_time_slot": [r.typical_time_slot for r in rows.values()],
            "categories": [np.flatnonzero(r.category_one_hot > 0) for r in rows.values()],
            "tags": [np.flatnonzero(r.fine_tag_vector > 0) for r in rows.values()],
        }
    )


def make_people_sources(places: PlaceSources) -> PeopleSources:
    """The same ties; everybody went where they were, on three days."""
    counts, friends = places.memory.counts, places.memory.friends
    row, column = counts.nonzero()
    return PeopleSources(
        friends,
        Outings.of(row, column, (row + column) % 3, counts.shape),
        np.arange(len(friends.indptr) - 1) % N_CITIES,
    )


def make_engine(folder: Path, *, users_in_index: int = N_USERS - 1) -> Engine:
    """The last user is in the feature store but not in the index: they joined after the version was made."""
    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    config = ModelConfig(n_cities=N_CITIES, n_neighborhoods=N_AREAS)
    features = MemoryFeatures(
        {i: user_row(rng, i) for i in range(N_USERS)}, {i: place_row(rng, i) for i in range(N_PLACES)}
    )
    index = EdgeIndex(folder)
    ids = np.arange(N_PLACES)
    people, vectors = np.arange(users_in_index), unit(rng, N_PLACES)
    table = places_table(features.place_rows, vectors)
    of_users = {"embedding": unit(rng, len(people)), "people": unit(rng, len(people))}
    asyncio.run(
        index.publish(
            "test-1",
            Vectors(ids, ids % N_CITIES, {"embedding": vectors}, {name: table[name].to_pylist() for name in FACETS}),
            Vectors(people, people % N_CITIES, of_users),
        )
    )
    names = Gazetteer(
        {c: f"City {c}" for c in range(N_CITIES)},
        {(c, a): f"Quarter {c}-{a}" for c in range(N_CITIES) for a in range(N_AREAS)},
    )
    users = pa.table(
        {"user_id": people, "index": people, "city_id": people % N_CITIES, **{n: list(v) for n, v in of_users.items()}}
    )
    sources = make_sources(len(people))
    reader = asyncio.run(index.reader("test-1"))
    return Engine(
        "test-1", names, Ranker(config, Heads(config)), reader, features, candidates=50, homes=Homes(users),
        catalogue=Catalogue(sources, table, len(people)), community=Community(make_people_sources(sources), users),
        safety=Safety(folder.parent / f"{folder.name}-safety" / "test"), own=Own(users, table),
    )  # fmt: skip
