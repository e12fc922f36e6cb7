"""A real Redis Cluster as online store: the same rows as from one server, and what a node costs that goes."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from recsys.aggregates import VIEWS
from recsys.breaker import THRESHOLD
from recsys.errors import FeatureStoreUnavailable
from recsys.features import FeatureStore, LiveStates, Mark, Wanted
from recsys.features.slots import command_slots, key_slot
from recsys.features.wire import command
from tests.cluster import Cluster, cluster, until
from tests.conftest import Filled
from tests.live import materialized, open_store

STATES = ("user_activity", "user_recent", "place_activity", "user_place", "user_user")


@pytest.fixture(scope="module")
def three(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """Three primaries, filled by the job itself: profiles through Feast, states by ours."""
    folder = tmp_path_factory.mktemp("three")
    with cluster(folder / "servers") as made:
        materialized(filled, folder / "data", made.url)
        yield made, folder / "data"


@pytest.fixture
def store(three: tuple[Cluster, Path]) -> Iterator[FeatureStore]:
    opened = open_store(three[0].url, three[1])
    yield opened
    opened.close()


@pytest.fixture
def single(filled: Filled) -> Iterator[FeatureStore]:
    opened = open_store(filled.redis_url, filled.data_dir)
    yield opened
    opened.close()


def same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_a_cluster_gives_what_one_server_gives_to_the_bit(filled: Filled, store: FeatureStore, single: FeatureStore):
    now, places, people = filled.end, np.arange(130), np.arange(170)
    for user in range(0, 160, 7):
        for kind, ids in (("rank_places", places), ("rank_people", people[people != user])):
            got, expected = (getattr(s, kind)(user, ids, now) for s in (store, single))
            assert got.features.tobytes() == expected.features.tobytes()
            same(got.user, expected.user)
            assert not got.lost.any()
    for kind in ("profiles", "places"):
        for got, expected in zip(*(getattr(s, kind)(range(170)) for s in (store, single)), strict=True):
            if expected is None:
                assert got is None
            else:
                same(got, expected)
    for got, expected in zip(*(s.users(range(170), now) for s in (store, single)), strict=True):
        assert (got is None) == (expected is None)
    assert store.rank_places(0, [], now).features.shape == single.rank_places(0, [], now).features.shape


def test_states_keys_and_marks_are_the_same_too(filled: Filled, store: FeatureStore, single: FeatureStore):
    ours, theirs = LiveStates(store), LiveStates(single)
    assert ours.keys() == theirs.keys()
    assert ours.mark().source == theirs.mark().source
    rng = np.random.default_rng(5)
    wanted = [Wanted(v, tuple(rng.integers(0, 160, 3_000) for _ in store.rows(v).join_keys)) for v in STATES]
    for got, expected in zip(ours.read(wanted), theirs.read(wanted), strict=True):
        assert any(state is not None for state in expected)
        for one, other in zip(got, expected, strict=True):
            assert (one is None) == (other is None)
            assert one is None or one.tobytes() == other.tobytes()
    assert set(STATES) < set(VIEWS)


def test_what_is_written_is_found_and_cleared_on_every_node(
    three: tuple[Cluster, Path], tmp_path: Path, filled: Filled
):
    with cluster(tmp_path) as made:
        opened = open_store(made.url, three[1])
        live, now = LiveStates(opened), filled.end
        ids, stamps = np.arange(3_000), np.full(3_000, int(now.timestamp()))
        states = [np.array([float(i), 2.0, 3.0]) for i in ids]
        live.write([(Wanted("user_recent", (ids,)), states, stamps)], end=now, wall=now)
        (got,) = live.read([Wanted("user_recent", (ids,))])
        assert [g.tolist() for g in got] == [s.tolist() for s in states]
        live.join_crowds([(7, day, user, user) for day in range(30) for user in (1, 2)])
        live.join_crowds([(7, 0, 1, 99)])
        assert live.crowds([(7, 0), (7, 29), (8, 0)]) == [{1: 1, 2: 2}, {1: 1, 2: 2}, {}]
        live.set_mark(Mark("these", 17))
        assert live.mark() == Mark("these", 17)
        assert live.keys() == {"user": 3_000}
        spread = [member.client.dbsize() for member in made.primaries]
        assert min(spread) > 800
        live.drop(Wanted("user_recent", (ids[:1_000],)))
        assert live.keys() == {"user": 2_000}
        live.clear()
        assert [member.client.dbsize() for member in made.primaries] == [0, 0, 0]
        assert live.mark() == Mark("", 0)
        opened.close()


def test_a_frozen_node_costs_its_own_rows_and_one_deadline(
    filled: Filled, three: tuple[Cluster, Path], single: FeatureStore
):
    made, data_dir = three
    opened = open_store(made.url, data_dir, timeout_s=0.05)
    now, ids, frozen = filled.end, np.arange(120), made.primaries[1]
    opened.rank_places(3, ids, now)
    rows = opened.rows("user_place"), opened.rows("place_activity")
    pair_keys = rows[0].keys([{"user_id": np.full(120, 3), "place_id": ids}[name] for name in rows[0].join_keys])
    hers = np.array(
        [
            frozen in (made.owner(bytes(pair)), made.owner(bytes(place)))
            for pair, place in zip(pair_keys, rows[1].keys([ids]), strict=True)
        ]
    )
    assert 30 < hers.sum() < 100
    expected = single.rank_places(3, ids, now)
    frozen.freeze()
    try:
        began, took = time.perf_counter(), []
        for _ in range(20):
            asked = time.perf_counter()
            got = opened.rank_places(3, ids, now, partly=True)
            took.append(time.perf_counter() - asked)
            np.testing.assert_array_equal(got.lost, hers)
            np.testing.assert_array_equal(got.features[~hers], expected.features[~hers])
        waited = sum(t >= 0.05 for t in took)
        assert THRESHOLD <= waited <= THRESHOLD + 1 + (time.perf_counter() - began), "then one probe a second"
        assert max(took) <= 0.1
        lost = set[int]()
        found = opened.places(ids.tolist(), lost)
        assert {i for i, row in enumerate(found) if row is None} == lost
        assert lost == {i for i in range(120) if made.owner(bytes(rows[1].keys([ids])[i])) is frozen}
        assert opened.ping() == [f"127.0.0.1:{frozen.port}"]
        with pytest.raises(FeatureStoreUnavailable, match=rf"`recsys doctor`.*127\.0\.0\.1:{frozen.port}"):
            opened.rank_places(3, ids, now)
    finally:
        frozen.thaw()
    until(lambda: opened.ping() == [] and not opened.rank_places(3, ids, now, partly=True).lost.any(), "whole again")
    opened.close()


def test_slots_that_move_are_followed(three: tuple[Cluster, Path], store: FeatureStore, filled: Filled):
    made, _ = three
    place = int(np.argmax([made.owner(bytes(k)) is made.primaries[0] for k in place_keys(store)]))
    key = bytes(place_keys(store)[place])
    slot, source, target = key_slot(key), made.primaries[0], made.primaries[2]
    before = store.places([place])
    names = [str(m.client.cluster("myid"), "ascii") for m in (source, target)]
    target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
    source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
    same(store.places([place])[0], before[0])
    source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)  # others of the slot stay
    same(store.places([place])[0], before[0])  # ASK
    many = store.places(range(120))
    same(many[place], before[0])
    for member in (target, source, made.primaries[1]):
        member.client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])
    same(store.places([place])[0], before[0])  # MOVED
    assert all(row is not None for row in store.places(range(120)))
    assert store.wire.ask(command(b"EXISTS", key)) == [1]
    assert (command_slots(command(b"EXISTS", key))[2] == slot).all()


def place_keys(store: FeatureStore) -> np.ndarray:
    return store.rows("place_profile").keys([np.arange(120)])


def test_a_cluster_that_is_away_is_one_sentence(three: tuple[Cluster, Path], filled: Filled):
    opened = open_store("redis+cluster://127.0.0.1:9,127.0.0.1:10", three[1])
    asks = (
        lambda: opened.rank_places(1, [1, 2], filled.end, partly=True),
        lambda: opened.places([1]),
        lambda: opened.ping(),
        lambda: LiveStates(opened).mark(),
        lambda: LiveStates(opened).keys(),
        lambda: opened.materialize("place_profile", filled.end - timedelta(days=9), filled.end),
    )
    for ask in asks:
        with pytest.raises(FeatureStoreUnavailable, match=r"127\.0\.0\.1:9, 127\.0\.0\.1:10 did not answer"):
            ask()
    opened.close()
