"""A real Redis Cluster as online store: the same rows as from one server, and what a node costs that goes."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from jobs import doctor_stores
from recsys import services
from recsys.aggregates import ONLINE_PLACE, VIEWS
from recsys.breaker import THRESHOLD
from recsys.errors import FeatureStoreUnavailable, ServiceError
from recsys.events import EventLog, Folder
from recsys.features import FeatureStore, LiveStates, Mark, Wanted
from recsys.features.slots import command_slots, key_slot
from recsys.features.wire import command
from recsys.recommend.engine import Engine
from recsys.settings import Settings
from tests.cluster import Cluster, Member, cluster, copy, until
from tests.conftest import Filled, free_port
from tests.integration.test_degraded import served
from tests.live import assert_states, fill_ties, make_events, materialized, open_store, wall
from tests.parts import N_PLACES, NOW, make_engine

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
        fill_ties(live)
        log = EventLog(tmp_path / "log")
        folder = Folder(log, live, now=lambda: NOW, wall=wall)
        folder.append(make_events(np.random.default_rng(1), 200))
        assert folder.fold() == 200
        folder.append(make_events(np.random.default_rng(2), 100, "later-"))
        made.primaries[2].freeze()
        try:
            with pytest.raises(FeatureStoreUnavailable):
                folder.fold()
        finally:
            made.primaries[2].thaw()
        until(lambda: opened.ping() == [], "it is back")
        assert folder.fold() == 300
        assert_states(live, list(log.read()))
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
    place_keys_, keys = rows[1].keys([ids]), pair_keys
    hers = np.array([[made.owner(bytes(k)) is frozen for k in of] for of in (place_keys_, keys)]).T
    assert hers.mean(axis=0) == pytest.approx([1 / 3, 1 / 3], abs=0.15)
    parts = np.split(np.arange(len(ONLINE_PLACE)), [ONLINE_PLACE.index("place_known") + 1])
    expected = single.rank_places(3, ids, now)
    frozen.freeze()
    try:
        began, took = time.perf_counter(), []
        for _ in range(20):
            asked = time.perf_counter()
            got = opened.rank_places(3, ids, now, partly=True)
            took.append(time.perf_counter() - asked)
            np.testing.assert_array_equal(got.lost, hers)
            for cut, gone in zip(parts, hers.T, strict=True):
                np.testing.assert_array_equal(got.features[~gone][:, cut], expected.features[~gone][:, cut])
                assert not got.features[gone][:, cut].any()
        waited = sum(t >= 0.05 for t in took)
        assert THRESHOLD <= waited <= THRESHOLD + 1 + (time.perf_counter() - began), "then one probe a second"
        assert max(took) <= 0.1
        lost = set[int]()
        found = opened.places(ids.tolist(), lost)
        assert {i for i, row in enumerate(found) if row is None} == lost
        assert lost == set(np.flatnonzero(hers[:, 0]).tolist())
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


def test_a_node_that_does_not_know_of_everybody_is_not_believed_over_one_that_does(
    three: tuple[Cluster, Path], tmp_path: Path
):
    made, data = three
    alone = Member(free_port(), free_port(), tmp_path / "alone", made.members[0].options)
    alone.start()
    try:
        alone.started()
        alone.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 100)  # as if it had not met the others yet
        opened = open_store(f"redis+cluster://127.0.0.1:{alone.port},127.0.0.1:{made.primaries[0].port}", data)
        assert all(row is not None for row in opened.places(range(120)))
        opened.close()
    finally:
        alone.kill()
        alone.client.close()


ASKED = {
    "places": {"city_id": 1, "top_k": 5, "exclude_visited": True},
    "people": {"city_id": 1, "top_k": 3},
}


def test_a_primary_that_is_killed_under_load_fails_nobody_and_its_replica_makes_answers_whole(
    filled: Filled, tmp_path: Path
):
    with cluster(tmp_path / "servers", replicas=True) as made:
        copy(filled.redis_url, made.url)
        until(lambda: all(r.client.dbsize() == p.client.dbsize() for r, p in zip(made.replicas, made.primaries,
                                                                                 strict=True)), "copied")  # fmt: skip
        store = open_store(made.url, filled.data_dir, timeout_s=0.5)  # a dead server refuses: nobody waits for it
        engine = replace(make_engine(tmp_path / "index"), features=store, candidates=N_PLACES)
        asyncio.run(killed_under_load(engine, filled, made))


async def killed_under_load(engine: Engine, filled: Filled, made: Cluster) -> None:
    victim, heir = made.primaries[1], made.replicas[1]
    answers: list[tuple[float, int, list[str]]] = []
    over = asyncio.Event()

    async def ask(client: httpx.AsyncClient, user_id: int, kind: str) -> dict:
        answer = await client.post(f"/recommend/{kind}", json={"user_id": user_id, **ASKED[kind]})
        body = answer.json()
        answers.append((time.monotonic(), answer.status_code, body.get("degraded")))
        return body

    async def load(client: httpx.AsyncClient, first: int) -> None:
        n = first
        while not over.is_set():
            await ask(client, n % 50, "people" if n % 5 == 0 else "places")
            n += 3

    async with served(engine, filled.end) as client:
        asked = [(user_id, kind) for user_id in range(0, 50, 5) for kind in ASKED]
        before = [(await ask(client, *one))["recommendations"] for one in asked]
        assert all(before)
        loads = [asyncio.create_task(load(client, first)) for first in range(3)]
        victim.kill()
        died = time.monotonic()
        await asyncio.to_thread(until, heir.is_primary, "its replica takes over")
        promoted = time.monotonic()
        await asyncio.to_thread(until, lambda: not any(gone for _, _, gone in answers[-50:]), "whole again", 10.0)
        over.set()
        await asyncio.gather(*loads)
        back = max(at for at, _, gone in answers if gone)
        after = [(await ask(client, *one))["recommendations"] for one in asked]
    meanwhile = [gone for at, _, gone in answers if died < at < promoted]
    assert {status for _, status, _ in answers} == {200}
    assert len(meanwhile) > 20
    assert all("online_store_partial" in gone for gone in meanwhile[20:])
    assert not any("online_features" in gone for gone in meanwhile), "what the others hold is enough to rank by"
    assert back - promoted < 5
    assert after == before


def place_keys(store: FeatureStore) -> np.ndarray:
    return store.rows("place_profile").keys([np.arange(120)])


def test_commands_say_what_they_find_of_a_cluster(three: tuple[Cluster, Path], tmp_path: Path):
    made, _ = three
    settings = Settings(data_dir=tmp_path, redis_url=made.url, _env_file=None)
    keys = sum(member.client.dbsize() for member in made.primaries)
    one = Settings(data_dir=tmp_path, redis_url=f"redis+cluster://127.0.0.1:{made.primaries[2].port}", _env_file=None)
    for said in (settings, one):
        assert services.start(said.redis_url, tmp_path / "redis", named=True) == services.Server(said.redis_url, None)
        found = services.figures(said.redis_url)
        assert found is not None
        assert found["keys"] == keys
        verdict = doctor_stores.online_store(said)
        assert (verdict.state, "all answer" in verdict.found) == ("ok", True), verdict
    assert not services.stop(made.url, tmp_path / "redis")
    first, second, _ = made.primaries
    first.client.config_set("cluster-require-full-coverage", "yes")
    verdict = doctor_stores.online_store(settings)
    assert (verdict.state, f"127.0.0.1:{first.port}: cluster-require" in verdict.found) == ("warning", True), verdict
    first.client.config_set("cluster-require-full-coverage", "no")
    second.client.config_set("maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    verdict = doctor_stores.online_store(settings)
    assert (verdict.state, f"127.0.0.1:{second.port} evicts keys" in verdict.found) == ("error", True), verdict
    second.client.config_set("maxmemory", "0", "maxmemory-policy", "noeviction")
    second.freeze()
    try:
        verdict = doctor_stores.online_store(settings)
        assert (verdict.state, f"127.0.0.1:{second.port}: it is stopped" in verdict.found) == ("error", True), verdict
    finally:
        second.thaw()
    away = Settings(data_dir=tmp_path, redis_url="redis+cluster://127.0.0.1:9,127.0.0.1:10", _env_file=None)
    assert services.figures(away.redis_url) is None
    with pytest.raises(ServiceError, match=r"no node of a Redis Cluster answers at 127\.0\.0\.1:9, 127\.0\.0\.1:10"):
        services.start(away.redis_url, tmp_path / "redis", named=True)
    assert doctor_stores.online_store(away).state == "not applicable"
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "made.json").write_text("{}")
    verdict = doctor_stores.online_store(away)
    assert (verdict.state, "no node of the cluster answers" in verdict.found) == ("error", True), verdict


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
