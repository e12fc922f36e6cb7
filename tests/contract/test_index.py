"""One suite for every vector index, beside a search by brute force."""

import asyncio
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DataError, IndexUnavailable, NotReady
from recsys.index import EdgeIndex, ServerIndex, VectorIndex, Vectors


def run(awaitable):
    return asyncio.run(awaitable)


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.normal(size=(n, 128)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def world(seed: int, n_places: int = 300, n_users: int = 80) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(seed)
    places = Vectors(
        rng.permutation(10 * n_places)[:n_places], rng.integers(0, 4, n_places), {"embedding": unit(rng, n_places)}
    )
    named = {"embedding": unit(rng, n_users), "people": unit(rng, n_users)}
    return places, Vectors(np.arange(n_users), rng.integers(0, 4, n_users), named)


@pytest.fixture(params=["edge", "server"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    """The embedded engine, and the client's local mode: the same client code that talks to a server."""
    if request.param == "edge":
        made: VectorIndex = EdgeIndex(tmp_path / "index")
    else:
        from qdrant_client import AsyncQdrantClient

        with warnings.catch_warnings():
            # local mode has no payload indexes and says so; a server has
            warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
            made = ServerIndex(AsyncQdrantClient(":memory:"))
            yield made
            run(made.close())
        return
    yield made
    run(made.close())


def nearest(points: Vectors, query: np.ndarray, city: int, limit: int, exclude=(), using="embedding") -> list[int]:
    allowed = (points.city == city) & ~np.isin(points.ids, list(exclude))
    ids, scores = points.ids[allowed], points.named[using][allowed] @ query
    return ids[np.argsort(-scores)][:limit].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_search_equals_brute_force_within_the_city(index: VectorIndex, seed: int):
    places, users = world(seed)
    run(index.publish("v1", places, users))
    rng = np.random.default_rng(seed + 100)
    for query in unit(rng, 8):
        for city in range(4):
            limit = int(rng.integers(1, 120))
            exclude = rng.choice(places.ids, int(rng.integers(0, 60)), replace=False).tolist()
            hits = run(index.search("places", query, city_id=city, limit=limit, exclude=exclude))
            assert hits.ids.tolist() == nearest(places, query, city, limit, exclude)
            at = [int(np.flatnonzero(places.ids == i)[0]) for i in hits.ids]
            np.testing.assert_allclose(hits.vectors, places.named["embedding"][at], atol=1e-6)
            np.testing.assert_allclose(hits.scores, places.named["embedding"][at] @ query, atol=1e-5)
            assert (hits.ids.dtype, hits.scores.dtype, hits.vectors.dtype) == (np.int64, np.float32, np.float32)


def test_people_are_searched_by_their_own_vectors(index: VectorIndex):
    places, users = world(1)
    run(index.publish("v1", places, users))
    query = users.named["people"][5]
    hits = run(index.search("users", query, city_id=int(users.city[5]), limit=10, exclude=[5], using="people"))
    assert hits.ids.tolist() == nearest(users, query, int(users.city[5]), 10, [5], "people")
    assert 5 not in hits.ids


def test_a_search_by_facets_equals_brute_force(index: VectorIndex):
    places, users = world(6)
    rng = np.random.default_rng(6)
    price = rng.integers(0, 5, len(places.ids))
    tags = [rng.choice(9, int(rng.integers(0, 4)), replace=False).tolist() for _ in places.ids]
    run(index.publish("v1", Vectors(places.ids, places.city, places.named, {"price": price, "tags": tags}), users))
    for query in unit(rng, 8):
        wanted = {"price": rng.choice(5, 2, replace=False), "tags": rng.choice(9, 3, replace=False)}
        for where in ({}, {"price": wanted["price"]}, wanted, {"tags": [77]}):
            hits = run(
                index.search("places", query, city_id=2, limit=20, where=where, exclude=places.ids[:50].tolist())
            )
            good = [
                ("price" not in where or price[i] in where["price"])
                and ("tags" not in where or bool(set(tags[i]) & set(where["tags"])))
                for i in range(len(places.ids))
            ]
            bad = places.ids[~np.array(good)].tolist()
            assert hits.ids.tolist() == nearest(places, query, 2, 20, [*bad, *places.ids[:50].tolist()])


def test_a_city_without_points_is_empty_not_an_error(index: VectorIndex):
    places, users = world(1)
    run(index.publish("v1", places, users))
    hits = run(index.search("places", places.named["embedding"][0], city_id=77, limit=10))
    assert (hits.ids.shape, hits.vectors.shape) == ((0,), (0, 128))


def test_vectors_by_id_and_what_is_missing_is_absent(index: VectorIndex):
    places, users = world(2)
    run(index.publish("v1", places, users))
    found = run(index.vectors("users", [3, 10**9, 7], using="people"))
    assert sorted(found) == [3, 7]
    np.testing.assert_allclose(found[7], users.named["people"][7], atol=1e-6)


def test_before_the_first_publish_it_says_what_to_run(index: VectorIndex):
    assert run(index.refresh()) is None
    with pytest.raises(NotReady, match="recsys publish"):
        run(index.search("places", np.ones(128, np.float32), city_id=0, limit=1))
    with pytest.raises(NotReady, match="second one"):
        run(index.rollback())


def test_publish_rollback_publish(index: VectorIndex):
    first, second = world(3), world(4)
    query = first[0].named["embedding"][0]

    def answer() -> list[int]:
        return run(index.search("places", query, city_id=1, limit=5)).ids.tolist()

    run(index.publish("v1", *first))
    assert (index.live, answer()) == ("v1", nearest(first[0], query, 1, 5))
    run(index.publish("v2", *second))
    assert (index.live, answer()) == ("v2", nearest(second[0], query, 1, 5))
    assert run(index.versions()) == ["v1", "v2"]
    assert run(index.rollback()) == "v1"
    assert answer() == nearest(first[0], query, 1, 5)
    assert run(index.rollback()) == "v2", "rolling back twice is where one was"
    run(index.publish("v2", *second))
    assert index.live == "v2"
    run(index.publish("v3", *first))
    assert run(index.versions()) == ["v2", "v3"], "the live version and the one before it stay"


@pytest.mark.parametrize("spoil", ["long", "nan", "double"])
def test_vectors_that_are_wrong_are_refused_and_nothing_changes(index: VectorIndex, spoil: str):
    places, users = world(5)
    run(index.publish("v1", places, users))
    values, ids = places.named["embedding"].copy(), places.ids.copy()
    if spoil == "long":
        values[7] *= 2
    elif spoil == "nan":
        values[7, 3] = np.nan
    else:
        ids[1] = ids[0]
    with pytest.raises(DataError, match="distinct" if spoil == "double" else f"id {places.ids[7]} is no unit vector"):
        run(index.publish("v2", Vectors(ids, places.city, {"embedding": values}), users))
    assert run(index.refresh()) == "v1"


def test_an_edge_index_opened_again_answers_the_same(tmp_path: Path):
    places, users = world(6)
    first = EdgeIndex(tmp_path)
    run(first.publish("v1", places, users))
    query = users.named["embedding"][0]
    before = run(first.search("places", query, city_id=2, limit=20)).ids.tolist()
    run(first.close())
    again = EdgeIndex(tmp_path)
    assert again.live == "v1"
    assert run(again.search("places", query, city_id=2, limit=20)).ids.tolist() == before
    run(again.close())


def test_a_new_version_is_published_while_another_index_serves_the_old_one(tmp_path: Path):
    old, new = world(7), world(8)
    serving, publishing = EdgeIndex(tmp_path), EdgeIndex(tmp_path)
    run(publishing.publish("v1", *old))
    run(serving.refresh())
    query = old[0].named["embedding"][0]
    expected = nearest(old[0], query, 0, 5)
    run(publishing.close())
    assert run(serving.search("places", query, city_id=0, limit=5)).ids.tolist() == expected
    run(publishing.publish("v2", *new))
    assert run(serving.search("places", query, city_id=0, limit=5)).ids.tolist() == expected, "not before refresh"
    assert run(serving.refresh()) == "v2"
    assert run(serving.search("places", query, city_id=0, limit=5)).ids.tolist() == nearest(new[0], query, 0, 5)
    run(serving.close())


def test_a_collection_that_another_process_holds_is_named(tmp_path: Path):
    places, users = world(9)
    holder = EdgeIndex(tmp_path)
    run(holder.publish("v1", places, users))
    run(holder.search("places", places.named["embedding"][0], city_id=0, limit=1))
    other = EdgeIndex(tmp_path)
    with pytest.raises(IndexUnavailable, match="places is open in another process"):
        run(other.search("places", places.named["embedding"][0], city_id=0, limit=1))
    run(holder.close())


def test_a_publish_that_was_killed_leaves_the_old_version_and_can_be_run_again(tmp_path: Path):
    places, users = world(10)
    index = EdgeIndex(tmp_path)
    run(index.publish("v1", places, users))
    code = textwrap.dedent(f"""
        import asyncio, os, signal
        from pathlib import Path
        from recsys.index import edge, EdgeIndex
        from tests.contract.test_index import world
        real = edge._write_shard
        def killed(path, points):
            if path.name.startswith("users"):
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, points)
        edge._write_shard = killed
        asyncio.run(EdgeIndex(Path({str(tmp_path)!r})).publish("v2", *world(11)))
    """)
    died = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert died.returncode == -9
    assert run(index.refresh()) == "v1"
    run(index.publish("v2", *world(11)))
    assert index.live == "v2"
    query = users.named["embedding"][0]
    assert run(index.search("places", query, city_id=0, limit=9)).ids.tolist() == nearest(world(11)[0], query, 0, 9)
    run(index.close())


def test_a_server_that_is_not_there_is_unavailable():
    from qdrant_client import AsyncQdrantClient

    index = ServerIndex(AsyncQdrantClient(url="http://127.0.0.1:9", timeout=1, check_compatibility=False))
    with pytest.raises(IndexUnavailable, match="did not answer"):
        run(index.refresh())
    run(index.close())
