"""One suite for every vector index, beside a search by brute force."""

import asyncio
import json
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DataError, IndexUnavailable, NotReady
from recsys.index import EdgeIndex, IndexReader, ServerIndex, VectorIndex, Vectors


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


@contextmanager
def reading(index: VectorIndex, version: str = "v1") -> Iterator[IndexReader]:
    reader = run(index.reader(version))
    try:
        yield reader
    finally:
        run(reader.close())


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
    with reading(index) as reader:
        asked = []
        for query in unit(rng, 8):
            for city in range(4):
                limit = int(rng.integers(1, 120))
                exclude = rng.choice(places.ids, int(rng.integers(0, 60)), replace=False).tolist()
                hits = run(reader.search("places", query, city_id=city, limit=limit, exclude=exclude))
                asked.append((query, city, limit, exclude, hits))
        for query, city, limit, exclude, hits in asked:
            assert hits.ids.tolist() == nearest(places, query, city, limit, exclude)
            at = [int(np.flatnonzero(places.ids == i)[0]) for i in hits.ids]
            held = run(reader.vectors("places", hits.ids.tolist()))
            np.testing.assert_allclose([held[i] for i in hits.ids], places.named["embedding"][at], atol=1e-6)
            np.testing.assert_allclose(hits.scores, places.named["embedding"][at] @ query, atol=1e-5)
            assert (hits.ids.dtype, hits.scores.dtype) == (np.int64, np.float32)


def test_people_are_searched_by_their_own_vectors(index: VectorIndex):
    places, users = world(1)
    run(index.publish("v1", places, users))
    query = users.named["people"][5]
    with reading(index) as reader:
        hits = run(reader.search("users", query, city_id=int(users.city[5]), limit=10, exclude=[5], using="people"))
    assert hits.ids.tolist() == nearest(users, query, int(users.city[5]), 10, [5], "people")
    assert 5 not in hits.ids


def test_a_search_by_facets_equals_brute_force(index: VectorIndex):
    places, users = world(6)
    rng = np.random.default_rng(6)
    price = rng.integers(0, 5, len(places.ids))
    tags = [rng.choice(9, int(rng.integers(0, 4)), replace=False).tolist() for _ in places.ids]
    run(index.publish("v1", Vectors(places.ids, places.city, places.named, {"price": price, "tags": tags}), users))
    reader = run(index.reader("v1"))
    for query in unit(rng, 8):
        wanted = {"price": rng.choice(5, 2, replace=False), "tags": rng.choice(9, 3, replace=False)}
        for where in ({}, {"price": wanted["price"]}, wanted, {"tags": [77]}):
            hits = run(
                reader.search("places", query, city_id=2, limit=20, where=where, exclude=places.ids[:50].tolist())
            )
            good = [
                ("price" not in where or price[i] in where["price"])
                and ("tags" not in where or bool(set(tags[i]) & set(where["tags"])))
                for i in range(len(places.ids))
            ]
            bad = places.ids[~np.array(good)].tolist()
            assert hits.ids.tolist() == nearest(places, query, 2, 20, [*bad, *places.ids[:50].tolist()])
    run(reader.close())


def test_a_city_without_points_is_empty_not_an_error(index: VectorIndex):
    places, users = world(1)
    run(index.publish("v1", places, users))
    with reading(index) as reader:
        hits = run(reader.search("places", places.named["embedding"][0], city_id=77, limit=10))
    assert (hits.ids.shape, hits.scores.shape) == ((0,), (0,))


def test_vectors_by_id_and_what_is_missing_is_absent(index: VectorIndex):
    places, users = world(2)
    run(index.publish("v1", places, users))
    with reading(index) as reader:
        found = run(reader.vectors("users", [3, 10**9, 7], using="people"))
    assert sorted(found) == [3, 7]
    np.testing.assert_allclose(found[7], users.named["people"][7], atol=1e-6)


def test_before_the_first_publish_it_says_what_to_run(index: VectorIndex):
    assert run(index.refresh()) is None
    assert (index.live, index.previous) == (None, None)
    with pytest.raises(NotReady, match="recsys publish --version v1"):
        run(index.reader("v1"))
    with pytest.raises(NotReady, match="second one"):
        run(index.rollback())


def test_publish_rollback_publish(index: VectorIndex):
    first, second = world(3), world(4)
    query = first[0].named["embedding"][0]

    def answer() -> list[int]:
        assert index.live is not None
        with reading(index, index.live) as reader:
            assert reader.version == index.live
            return run(reader.search("places", query, city_id=1, limit=5)).ids.tolist()

    run(index.publish("v1", *first))
    assert (index.live, index.previous, answer()) == ("v1", None, nearest(first[0], query, 1, 5))
    run(index.publish("v2", *second))
    assert (index.live, index.previous, answer()) == ("v2", "v1", nearest(second[0], query, 1, 5))
    assert run(index.versions()) == ["v1", "v2"]
    assert run(index.rollback()) == "v1"
    assert (index.live, index.previous, answer()) == ("v1", "v2", nearest(first[0], query, 1, 5))
    assert run(index.rollback()) == "v2", "rolling back twice is where one was"
    run(index.publish("v2", *second))
    assert index.live == "v2"
    run(index.publish("v3", *first))
    assert run(index.versions()) == ["v2", "v3"], "the live version and the one before it stay"


def test_a_reader_stays_with_its_version_whatever_is_published(index: VectorIndex):
    old, new = world(7), world(8)
    query = old[0].named["embedding"][0]
    run(index.publish("v1", *old))
    with reading(index) as reader:
        run(index.publish("v2", *new))
        run(index.refresh())
        assert run(reader.search("places", query, city_id=0, limit=5)).ids.tolist() == nearest(old[0], query, 0, 5)
        with reading(index, "v2") as other:
            assert run(other.search("places", query, city_id=0, limit=5)).ids.tolist() == nearest(new[0], query, 0, 5)
        run(index.rollback())
        assert run(reader.search("places", query, city_id=0, limit=5)).ids.tolist() == nearest(old[0], query, 0, 5)


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


def contents(folder: Path) -> dict[str, bytes]:
    """The vectors as published: every file but the settings, which the engine fills in."""
    files = (p for c in ("places", "users") for p in folder.glob(f"{c}__*/**/*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.suffix != ".json" and "wal" not in p.parts}


def test_an_edge_index_opened_again_answers_the_same_and_reading_changes_nothing(tmp_path: Path):
    places, users = world(6)
    first = EdgeIndex(tmp_path)
    run(first.publish("v1", places, users))
    written = contents(tmp_path)
    query = users.named["embedding"][0]
    with reading(first) as reader:
        before = run(reader.search("places", query, city_id=2, limit=20)).ids.tolist()
    again = EdgeIndex(tmp_path)
    assert run(again.refresh()) == "v1"
    with reading(again) as one, reading(again) as another:
        for reader in (one, another):
            assert run(reader.search("places", query, city_id=2, limit=20)).ids.tolist() == before
    assert contents(tmp_path) == written
    assert list((tmp_path / "readers").glob("[!.]*")) == [], "a reader leaves nothing"


def test_a_version_that_goes_stays_with_those_who_read_it(tmp_path: Path):
    worlds = [world(seed) for seed in (7, 8, 9)]
    index = EdgeIndex(tmp_path)
    run(index.publish("v1", *worlds[0]))
    query = worlds[0][0].named["embedding"][0]
    with reading(index) as reader:
        for version, made in zip(("v2", "v3"), worlds[1:], strict=True):
            run(index.publish(version, *made))
        assert run(index.versions()) == ["v2", "v3"]
        found = run(reader.search("places", query, city_id=0, limit=5)).ids.tolist()
        assert found == nearest(worlds[0][0], query, 0, 5)
        with pytest.raises(NotReady, match="no version v1"):
            run(index.reader("v1"))


def test_processes_read_one_version_at_once_and_what_a_killed_one_left_goes(tmp_path: Path):
    places, users = world(9)
    index = EdgeIndex(tmp_path)
    run(index.publish("v1", places, users))
    query = places.named["embedding"][0]
    code = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from recsys.index import EdgeIndex
        from tests.contract.test_index import world
        reader = asyncio.run(EdgeIndex(Path({str(tmp_path)!r})).reader("v1"))
        query = world(9)[0].named["embedding"][0]
        print(asyncio.run(reader.search("places", query, city_id=0, limit=5)).ids.tolist(), flush=True)
        sys.stdin.read()
    """)
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with other, reading(index) as reader:
        assert other.stdout is not None
        said = other.stdout.readline()
        own = run(reader.search("places", query, city_id=0, limit=5)).ids.tolist()
        assert json.loads(said) == own == nearest(places, query, 0, 5)
        assert len(list((tmp_path / "readers").glob("*.lock"))) == 3, "two, and the lock of the folder"
        other.kill()
        other.wait()
        with reading(index):
            left = {p.name for p in (tmp_path / "readers").glob("[!.]*")}
            assert len(left) == 4, "of the two that live a folder and a lock each"


def test_a_pointer_that_is_damaged_is_named(tmp_path: Path):
    (tmp_path / "live.json").write_text("[]")
    with pytest.raises(DataError, match=r"live\.json is damaged"):
        run(EdgeIndex(tmp_path).refresh())


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
    with reading(index, "v2") as reader:
        found = run(reader.search("places", query, city_id=0, limit=9)).ids.tolist()
    assert found == nearest(world(11)[0], query, 0, 9)


def test_a_server_that_is_not_there_is_unavailable():
    from qdrant_client import AsyncQdrantClient

    index = ServerIndex(AsyncQdrantClient(url="http://127.0.0.1:9", timeout=1, check_compatibility=False))
    with pytest.raises(IndexUnavailable, match="did not answer"):
        run(index.refresh())
    run(index.close())
