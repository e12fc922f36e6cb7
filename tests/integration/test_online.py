"""Online reads and writes: equal to Feast's own, within their deadline, flat in time and memory."""

import gc
import os
import resource
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore as Feast
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.repo_config import load_repo_config

from recsys.aggregates import ONLINE_TIE, States, finish_places
from recsys.errors import DataError, FeatureStoreUnavailable, NotReady
from recsys.features import FeatureStore, LiveStates, Wanted
from recsys.features.format import decode, encode, floats, value
from recsys.features.wire import command
from recsys.services import running, start, stop
from tests.conftest import ROOT, Filled, free_port

DAY = timedelta(days=1)
VIEWS = ("user_activity", "user_recent", "place_activity", "user_place", "user_user")


@pytest.fixture
def store(filled: Filled):
    opened = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url, timeout_s=2.0)
    yield opened
    opened.close()


def feast(filled: Filled) -> Feast:
    config = load_repo_config(ROOT / "feature_repo", ROOT / "feature_repo" / "feature_store.yaml")
    config.registry.path = str(filled.data_dir / "registry.db")
    port = filled.redis_url.rsplit(":", 1)[1].split("/")[0]
    config.online_store.connection_string = f"127.0.0.1:{port},db=0"
    return Feast(config=config)


@pytest.mark.parametrize("view", VIEWS)
def test_states_read_here_are_those_that_feast_reads(filled: Filled, store: FeatureStore, view: str):
    rows = pq.read_table(filled.data_dir / "features" / f"{view}.parquet")
    layout = store.rows(view)
    columns = [rows[name].to_numpy() for name in layout.join_keys]
    keys = np.unique(np.stack(columns), axis=1)[:, ::7][:, :100]
    unknown = keys[:, :1] + 10**9
    ids = tuple(np.concatenate([keys, unknown], axis=1))
    (ours,) = LiveStates(store).read([Wanted(view, ids)])
    theirs = feast(filled).get_online_features(
        features=[f"{view}:state"],
        entity_rows=[
            dict(zip(layout.join_keys, key, strict=True)) for key in zip(*(c.tolist() for c in ids), strict=True)
        ],
    )
    values = theirs.to_dict()["state"]
    assert any(v is not None for v in values)
    for mine, feasts in zip(ours, values, strict=True):
        assert (mine is None) == (feasts is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, feasts)


def test_a_user_and_candidates_read_here_are_those_that_feast_reads(filled: Filled, store: FeatureStore):
    now, ids = filled.end, np.arange(0, 120, 3)
    got = store.rank_places(3, ids, now)
    service = feast(filled).get_feature_service("rank_places_v1")
    rows = [{"user_id": 3, "place_id": int(i)} for i in ids]
    answer = feast(filled).get_online_features(features=service, entity_rows=rows, full_feature_names=True).to_dict()
    places = States.of_rows([None if v is None else np.array(v) for v in answer["place_activity__state"]])
    expected = finish_places(places, round(now.timestamp() * 1e6))
    np.testing.assert_array_equal(got.features[:, : expected.shape[1]], expected)
    profile = (
        feast(filled)
        .get_online_features(features=["user_profile:name", "user_profile:fine_pref"], entity_rows=[{"user_id": 3}])
        .to_dict()
    )
    assert got.user is not None
    assert got.user.name == profile["name"][0]
    np.testing.assert_array_equal(got.user.fine_pref, np.float32(profile["fine_pref"][0]))


def test_profiles_are_those_of_whole_rows_and_of_feast(filled: Filled, store: FeatureStore):
    ids = [0, 3, 10**9, 41, 159]
    got, whole = store.profiles(ids), store.users(ids, filled.end)
    theirs = feast(filled).get_online_features(
        features=[f"user_profile:{name}" for name in ("name", "vibe_pref", "area_ids", "area_weights")],
        entity_rows=[{"user_id": i} for i in ids],
    ).to_dict()  # fmt: skip
    assert got[2] is whole[2] is None
    for i in (0, 1, 3, 4):
        mine, row = got[i], whole[i]
        assert mine is not None
        assert (mine.name, mine.areas) == (row.name, row.areas)
        assert (mine.home_city_id, mine.home_neighborhood_id) == (row.home_city_id, row.home_neighborhood_id)
        for name in ("cat_pref", "fine_pref", "vibe_pref"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(row, name))
        assert mine.name == theirs["name"][i]
        np.testing.assert_array_equal(mine.vibe_pref, np.float32(theirs["vibe_pref"][i]))
        assert mine.areas == dict(zip(theirs["area_ids"][i], theirs["area_weights"][i], strict=True))


@pytest.mark.parametrize("width", [0, 1, 6, 31, 32, 100, 5_000])
def test_a_list_of_floats_is_read_whole_or_refused(width: int):
    said = np.random.default_rng(width).random(width).astype(np.float32)
    reply = Value(float_list_val=FloatList(val=said)).SerializeToString()
    read = floats(reply, width)
    assert read is not None
    np.testing.assert_array_equal(read, said)
    with pytest.raises(DataError, match=rf"must have {width + 1} values \(got {width}\)"):
        floats(reply, width + 1)
    assert floats(None, width) is floats(b"", width) is None


def test_an_error_among_replies_is_raised_and_the_connection_stays_good(store: FeatureStore):
    key = command(b"SET", b"a string", b"1")
    good, wrong = command(b"GET", b"a string"), command(b"HGET", b"a string", b"x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        store.wire.ask(key + good + wrong + good)
    assert store.wire.ask(good + command(b"MGET", b"a string", b"nobody's") + command(b"DEL", b"a string")) == [
        b"1", [b"1", None], 1,
    ]  # fmt: skip


def test_what_is_written_here_feast_reads_and_does_not_overwrite_with_what_is_older(
    filled: Filled, store: FeatureStore, tmp_path: Path
):
    """States of any length, a batch of unequal ones, in Feast's own bytes."""
    live, rng = LiveStates(store), np.random.default_rng(1)
    ids = np.arange(10**6, 10**6 + 5)
    states = [np.round(rng.random(n) * 1e6, 3) for n in (1, 15, 16, 300, 1900)]
    wanted = Wanted("user_recent", (ids,))
    now = datetime(2024, 3, 20, 12, tzinfo=UTC)
    live.write([(wanted, states, np.full(5, int(now.timestamp())))], end=now, wall=now)
    for state in states:
        np.testing.assert_array_equal(decode([encode(state)]).values, state)
        assert value(encode(state)) == state.tolist()
    rows = [{"user_id": int(i)} for i in ids]
    there = feast(filled)
    assert there.get_online_features(features=["user_recent:state"], entity_rows=rows).to_dict()["state"] == [
        s.tolist() for s in states
    ]
    older = {"user_id": [int(ids[0])], "state": [[7.0]], "event_timestamp": [now - timedelta(seconds=1)]}
    import pandas as pd

    there.write_to_online_store("user_recent", pd.DataFrame(older))
    (row,) = live.read([Wanted("user_recent", (ids[:1],))])
    np.testing.assert_array_equal(row[0], states[0])
    live.drop(wanted)
    assert live.read([wanted])[0] == [None] * 5


def test_pairs_are_forgotten_by_the_server_itself(filled: Filled, store: FeatureStore):
    live, now = LiveStates(store), datetime(2024, 3, 20, tzinfo=UTC)
    ids = (np.array([10**7]), np.array([10**7]))
    state = np.array([0, 1, (now - 5 * DAY).timestamp() * 1e6, *[0.0] * 12])
    live.write(
        [(Wanted("user_place", ids), [state], np.array([int(now.timestamp())]))], end=now, wall=datetime.now(UTC)
    )
    client = redis.Redis.from_url(filled.redis_url)
    (left_ms,) = (client.execute_command("PTTL", store.rows("user_place").keys(list(ids)).tobytes()),)
    assert left_ms == pytest.approx((28 + 2 - 5) * 86_400_000, abs=60_000)
    live.drop(Wanted("user_place", ids))
    client.close()


@pytest.fixture
def own_server(tmp_path: Path, filled: Filled):
    """A server of the test's own, with the filled one's registry, that may be frozen and killed."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    start(url, tmp_path / "redis")
    yield url, tmp_path / "redis"
    server = running(url, tmp_path / "redis")
    if server is not None:
        stop(url, tmp_path / "redis")


def test_a_frozen_server_costs_the_deadline_and_no_more(filled: Filled, own_server: tuple[str, Path]):
    """100 of 100 reads fail within 50 + 20 ms, and the first one after it goes on succeeds."""
    url, folder = own_server
    server = running(url, folder)
    assert server is not None
    assert server.pid is not None
    opened = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=url, timeout_s=0.05)
    ids = np.arange(50)
    opened.rank_places(1, ids, filled.end)
    gc.collect()
    gc.freeze()  # as the service does: a search for garbage in all that the tests before left takes longer than a read
    os.kill(server.pid, signal.SIGSTOP)
    took = []
    try:
        for _ in range(100):
            began = time.perf_counter()
            with pytest.raises(FeatureStoreUnavailable, match="did not answer"):
                opened.rank_places(1, ids, filled.end)
            took.append(time.perf_counter() - began)
    finally:
        os.kill(server.pid, signal.SIGCONT)
        gc.unfreeze()
    assert max(took) <= 0.070, f"slowest of 100: {max(took) * 1e3:.1f} ms"
    began = time.perf_counter()
    while True:  # it works again within a second
        try:
            opened.rank_places(1, ids, filled.end)
            break
        except FeatureStoreUnavailable:
            assert time.perf_counter() - began < 1.0
    opened.close()


def test_a_killed_server_is_named_at_once_and_found_again(filled: Filled, own_server: tuple[str, Path]):
    url, folder = own_server
    opened = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=url, timeout_s=0.05)
    opened.rank_places(1, np.arange(50), filled.end)
    server = running(url, folder)
    assert server is not None
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    os.waitpid(server.pid, 0)
    for _ in range(100):
        began = time.perf_counter()
        with pytest.raises(FeatureStoreUnavailable, match="recsys up"):
            opened.rank_places(1, np.arange(50), filled.end)
        assert time.perf_counter() - began <= 0.070
    start(url, folder)
    opened.rank_places(1, np.arange(50), filled.end)
    opened.close()


def test_a_view_that_is_not_registered_is_named(tmp_path: Path, redis_url: str):
    empty = FeatureStore(ROOT / "feature_repo", data_dir=tmp_path, redis_url=redis_url)
    with pytest.raises(NotReady, match=r"user_profile.*recsys materialize"):
        empty.users([1], datetime(2024, 1, 1, tzinfo=UTC))
    empty.close()


@pytest.mark.parametrize(
    ("view", "rank", "own"),
    [("place_activity", "rank_places", slice(0, 15)), ("user_activity", "rank_people", slice(len(ONLINE_TIE), None))],
)
def test_a_cached_candidate_is_as_old_as_stated_and_never_older(filled: Filled, view: str, rank: str, own: slice):
    cached = FeatureStore(
        ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url, timeout_s=2.0, feature_cache_s=1.0
    )
    plain = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url, timeout_s=2.0)
    live, five, now = LiveStates(plain), np.array([5]), filled.end
    (before,) = live.read([Wanted(view, (five,))])
    first = getattr(cached, rank)(1, five, now)
    assert first.age_s == 0
    assert before[0] is not None
    changed = before[0].copy()
    changed[4:8] += 50
    stamp = np.array([int(now.timestamp())])
    live.write([(Wanted(view, (five,)), [changed], stamp)], end=now, wall=now)
    again = getattr(cached, rank)(1, five, now + timedelta(seconds=1))
    assert again.age_s == 1.0
    np.testing.assert_array_equal(again.features, first.features)
    late = getattr(cached, rank)(1, five, now + timedelta(seconds=1, microseconds=1))
    assert late.age_s == 0
    assert (late.features[0, own] != first.features[0, own]).any()
    assert getattr(plain, rank)(1, five, now).age_s == 0
    live.write([(Wanted(view, (five,)), [before[0]], stamp)], end=now, wall=now)
    cached.close()
    plain.close()


def test_memory_is_flat_over_many_reads(filled: Filled, store: FeatureStore):
    ids = np.arange(100)

    def read(n: int) -> None:
        for i in range(n):
            store.rank_places(i % 160, ids, filled.end)

    read(500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(2_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000, "kB more at the peak"
