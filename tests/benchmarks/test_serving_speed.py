"""Figures of the serving path, printed by `make bench`; bounds are loose, so that they catch mistakes, not noise."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from recsys.constants import FACETS
from recsys.features import FeatureStore
from recsys.index import EdgeIndex, Vectors
from recsys.recommend.catalogue import Catalogue
from recsys.recommend.community import Community
from recsys.sources import NEAR, Memory, Outings, PeopleSources, PlaceSources
from recsys.sources.rows import binary, matrix
from tests.conftest import ROOT, Filled
from tests.parts import traits, unit


def p50_ms(call: Callable[[], object], repeat: int = 60) -> float:
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def test_online_reads(filled: Filled):
    store = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url)
    places, people = np.arange(120), np.arange(1, 121)
    user = p50_ms(lambda: store.users([3], filled.end))
    ranked = p50_ms(lambda: store.rank_places(3, places, filled.end))
    peers = p50_ms(lambda: store.rank_people(0, people, filled.end))
    store.close()
    print(f"\nonline, p50: one user {user:.2f} ms; 120 places {ranked:.2f} ms; 120 people {peers:.2f} ms")
    assert max(user, ranked, peers) < 100


def test_vector_search_and_publish(tmp_path: Path):
    rng = np.random.default_rng(0)
    n = 10_000
    vectors, cities = unit(rng, n), rng.integers(0, 8, n)
    index = EdgeIndex(tmp_path / "index")
    start = time.perf_counter()
    points = Vectors(np.arange(n), cities, {"embedding": vectors})
    asyncio.run(index.publish("bench", points, Vectors(points.ids, cities, {"embedding": vectors, "people": vectors})))
    published = time.perf_counter() - start
    with asyncio.Runner() as runner:
        start = time.perf_counter()
        reader = runner.run(index.reader("bench"))
        opened = time.perf_counter() - start
        search = p50_ms(lambda: runner.run(reader.search("places", vectors[0], city_id=int(cities[0]), limit=200)))
        runner.run(reader.close())
    print(
        f"\nindex of {n:,} places and users: published in {published:.2f} s, opened in {opened * 1e3:.0f} ms; "
        f"200 of a city, p50 {search:.2f} ms"
    )
    assert search < 50
    assert opened < 1


def test_the_sources_of_a_request():
    rng = np.random.default_rng(0)
    n_users, n_places, n_cities = 10_000, 5_000, 8
    keys = np.unique(rng.integers(n_users, size=600_000) * n_places + rng.zipf(1.3, 600_000) % n_places)
    u, v = np.arange(n_users).repeat(8), rng.integers(n_users, size=8 * n_users)
    city, kinds = rng.integers(n_cities, size=n_places), np.eye(6, dtype=np.float32)[rng.integers(6, size=n_places)]
    memory = Memory.of(
        (keys // n_places, keys % n_places), rng.integers(1, 9, len(keys)), rng.uniform(0, 200, len(keys)),
        (np.concatenate([u, v]), np.concatenate([v, u])), city,
        traits(kinds, (rng.random((n_places, 100)) < 0.05).astype(np.float32)), n_users,
    )  # fmt: skip
    start = time.perf_counter()
    tensors = PlaceSources(memory).tensors()
    fitted = time.perf_counter()
    sources = PlaceSources.load(tensors)
    loaded = time.perf_counter()
    ids = np.arange(n_places)
    facets = {
        name: rng.integers(5, size=(n_places, 3)).tolist()
        if name in ("categories", "tags")
        else rng.integers(5, size=n_places)
        for name in FACETS
    }
    table = pa.table({"place_id": ids, "index": ids, "city_id": city, "embedding": list(unit(rng, n_places)), **facets})
    catalogue = Catalogue(sources, table, n_users)
    near = rng.permutation(sources.members(0))[:NEAR]
    users, every = iter(rng.permutation(n_users)), np.zeros(len(sources.members(0)), dtype=bool)

    def request() -> None:
        catalogue.signals(catalogue.find(int(next(users)), 0, near, 200, without=every, fresh=False))

    wanted = dict.fromkeys(FACETS, (1, 2))
    filtered = p50_ms(lambda: catalogue.matching(0, wanted))
    took = p50_ms(request)
    size = sum(t.nbytes for t in tensors.values()) / 1e6
    print(
        f"\nsources of {len(keys):,} pairs: fitted in {fitted - start:.2f} s, loaded in {loaded - fitted:.2f} s, "
        f"{size:.0f} MB; 200 candidates and their signals, p50 {took:.2f} ms; five filters {filtered:.2f} ms"
    )
    assert took < 20
    assert filtered < 2


def test_the_people_of_a_request():
    rng = np.random.default_rng(0)
    n_users, n_places, n_cities, n_ties, n_visits = 10_000, 5_000, 8, 200_000, 300_000
    home = rng.integers(n_cities, size=n_users)
    u, v = rng.integers(n_users, size=(2, n_ties))
    ties = matrix(np.ones(2 * n_ties), (np.concatenate([u, v]), np.concatenate([v, u])), (n_users, n_users))
    visits = rng.integers(n_users, size=n_visits), rng.zipf(1.3, n_visits) % n_places, rng.integers(90, size=n_visits)
    start = time.perf_counter()
    sources = PeopleSources(binary(ties), Outings.of(*visits, (n_users, n_places)), home)
    fitted = time.perf_counter() - start
    ids = np.arange(n_users)
    table = pa.table({"user_id": ids, "index": ids, "city_id": home, "people": list(unit(rng, n_users))})
    community = Community(sources, table)
    near = rng.permutation(sources.members(0))[:NEAR]
    users, nobody = iter(rng.permutation(sources.members(0))), np.empty(0, dtype=np.int64)

    def request() -> None:
        community.signals(community.find(int(next(users)), 0, near, 200, without=nobody))

    took = p50_ms(request)
    print(
        f"\nsources of {n_ties:,} friendships and {n_visits:,} visits: fitted in {fitted:.2f} s; 200 people and their "
        f"signals, p50 {took:.2f} ms"
    )
    assert took < 20
