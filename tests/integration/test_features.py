"""The feature store against brute-force loops over the raw events."""

import shutil
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.aggregates import (
    ACTIVITY_TTL,
    D_ONLINE_PLACE,
    PAIR_TTL,
    PLACE_ACTIVITY,
    USER_ACTIVITY,
    VIEWS,
    States,
    finish_pairs,
    finish_places,
    finish_ties,
    finish_users,
    pairs_of,
)
from recsys.errors import FeatureStoreUnavailable, NotReady
from recsys.features import FeatureStore
from recsys.lake import Lake
from tests.conftest import ROOT, Filled, free_port

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


@pytest.fixture
def store(filled: Filled):
    opened = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url, timeout_s=2.0)
    yield opened
    opened.close()


def events(filled: Filled) -> list[dict]:
    return pq.read_table(filled.data_dir / "lake" / "interactions.parquet").to_pylist()


def encode(e: dict) -> list[float]:
    """The seed's section 3.2.3, one interaction at a time, written a second time on purpose."""
    time_of_day = [float(e["time_of_day_bucket"] == i) for i in range(4)]
    day_of_week = [float(e["day_of_week_bucket"] == i) for i in range(2)]
    return [
        e["implicit_rating"] / 5.0,
        min(np.log1p(e["dwell_time"]) / 6.0, 1.0),
        min(e["num_likes"] / 5.0, 1.0),
        min(e["num_saves"] / 3.0, 1.0),
        min(e["num_shares"] / 2.0, 1.0),
        float(e["attended"]),
        *time_of_day,
        *day_of_week,
    ]


def trend_recency_parts(own: list[dict], last: datetime, as_of: datetime, days: int) -> list[float]:
    """Of 28 days' events: rate of the last week over itself and the month's, exp(-days since / 7), parts of the day."""
    rate7, rate28 = sum(e["timestamp"] >= as_of - 7 * DAY for e in own) / min(days, 7), len(own) / days
    parts = [sum(e["time_of_day_bucket"] == i for e in own) / max(len(own), 1) for i in range(4)]
    return [rate7 / (rate7 + rate28) if own else 0.0, np.exp(-((as_of - last) / DAY) / 7), *parts]


def last_seen(filled: Filled, key: str, who: dict, as_of: datetime) -> datetime:
    """Of somebody's events before a moment the last, or when they appeared."""
    return max(
        [e["timestamp"] for e in events(filled) if e[key] == who[key] and e["timestamp"] < as_of] or [who["as_of"]]
    )


def test_pairs_as_of_a_moment_equal_a_loop_over_events(filled: Filled, store: FeatureStore):
    as_of = filled.start + 40 * DAY
    history = defaultdict(list)
    for e in events(filled):
        if e["timestamp"] < as_of:
            history[e["user_id"], e["place_id"]].append(e)
    pairs = sorted(history)
    unknown = [(u, p) for u in range(5) for p in range(30) if (u, p) not in history][:10]
    spine = {
        "user_id": np.array([u for u, _ in pairs + unknown]),
        "place_id": np.array([p for _, p in pairs + unknown]),
    }
    table = store.historical("train_user_place_v1", spine, as_of)
    rows = table.to_pylist()
    assert [(r["user_id"], r["place_id"]) for r in rows] == pairs + unknown
    got = pairs_of(States.of_arrow(table["user_place__so_far"]), micros(as_of))
    for i, pair in enumerate(pairs):
        own = history[pair]
        assert got.count[i] == len(own)
        last = max(micros(e["timestamp"]) for e in own)
        assert got.age_days[i] == pytest.approx((micros(as_of) - last) / (DAY // MICROSECOND), abs=1e-9)
        np.testing.assert_allclose(got.stats[i], np.mean([encode(e) for e in own], axis=0), atol=1e-6)
    assert not got.count[len(pairs) :].any()


def test_user_activity_equals_a_loop_over_events(filled: Filled, store: FeatureStore):
    as_of = filled.start + 40 * DAY
    users = pq.read_table(filled.data_dir / "lake" / "users.parquet").to_pylist()
    known = [u for u in users if u["as_of"].date() < as_of.date()]
    by_user = defaultdict(list)
    for e in events(filled):
        if as_of - 28 * DAY <= e["timestamp"] < as_of:
            by_user[e["user_id"]].append(e)
    spine = {"user_id": np.array([u["user_id"] for u in known])}
    table = store.historical("train_users_v1", spine, as_of)
    rows = finish_users(States.of_arrow(table["user_activity__state"]), micros(as_of))
    for user, row in zip(known, rows, strict=True):
        own = by_user[user["user_id"]]
        days = min(28, max(1, (as_of.date() - max(user["as_of"].date(), filled.start.date())).days))
        sessions = len({(e["timestamp"].date(), e["time_of_day_bucket"]) for e in own})
        per = max(sessions, 1)
        week = sum(e["timestamp"] >= as_of - 7 * DAY for e in own)
        expected = [
            min(sessions * 7 / days / 10, 1),
            min(len(own) / per / 100, 1),
            min(sum(e["num_likes"] for e in own) / per / 10, 1),
            min(sum(e["num_saves"] for e in own) / per / 10, 1),
            min(sum(e["attended"] for e in own) * 30 / days / 20, 1),
            min(np.log1p(week) / 6, 1),
            min(np.log1p(len(own)) / 6, 1),
            sum(e["implicit_rating"] for e in own) / max(len(own), 1) / 5,
            min(np.log1p(sum(e["timestamp"] >= as_of - DAY for e in own)) / 6, 1),
            *trend_recency_parts(own, last_seen(filled, "user_id", user, as_of), as_of, days),
        ]
        assert len(expected) == len(USER_ACTIVITY)
        np.testing.assert_allclose(row, [*expected, 1], atol=1e-5)


def test_place_activity_equals_a_loop_over_events(filled: Filled, store: FeatureStore):
    as_of = filled.start + 50 * DAY
    places = pq.read_table(filled.data_dir / "lake" / "places.parquet").to_pylist()
    known = [p for p in places if p["as_of"].date() < as_of.date()]
    by_place = defaultdict(list)
    for e in events(filled):
        if as_of - 28 * DAY <= e["timestamp"] < as_of:
            by_place[e["place_id"]].append(e)
    spine = {"place_id": np.array([p["place_id"] for p in known])}
    table = store.historical("train_places_v1", spine, as_of)
    rows = finish_places(States.of_arrow(table["place_activity__state"]), micros(as_of))
    for place, row in zip(known, rows, strict=True):
        own = by_place[place["place_id"]]
        days = min(28, max(1, (as_of.date() - max(place["as_of"].date(), filled.start.date())).days))
        attends = sum(e["attended"] for e in own)
        positives = sum(e["implicit_rating"] >= 3.5 for e in own)
        expected = [
            min(np.log1p(len(own) / days) / 5, 1),
            min(np.log1p(attends / days) / 5, 1),
            (attends + 1) / (len(own) + 20),
            1 / (1 + np.log1p(len(own) / days)),
            min(np.log1p(sum(e["timestamp"] >= as_of - DAY for e in own)) / 6, 1),
            min(np.log1p(sum(e["timestamp"] >= as_of - 7 * DAY for e in own)) / 7, 1),
            min(np.log1p(positives) / 7, 1),
            sum(e["implicit_rating"] for e in own) / max(len(own), 1) / 5,
            min(np.log1p(sum(e["attended"] for e in own if e["timestamp"] >= as_of - 7 * DAY)) / 6, 1),
            *trend_recency_parts(own, last_seen(filled, "place_id", place, as_of), as_of, days),
        ]
        assert len(expected) == len(PLACE_ACTIVITY)
        np.testing.assert_allclose(row, [*expected, 1], atol=1e-5)


def test_ties_count_only_what_was_attended_together_before(filled: Filled, store: FeatureStore):
    as_of = filled.start + 60 * DAY
    edges = pq.read_table(filled.data_dir / "lake" / "user_user_edges.parquet").to_pylist()
    edges = [e for e in edges if e["as_of"] <= as_of]
    assert edges
    attended = {
        (e["user_id"], e["place_id"], e["timestamp"].date())
        for e in events(filled)
        if e["attended"] and e["timestamp"] < as_of
    }
    visits = defaultdict(set)
    for user, place, day in attended:
        visits[user].add((place, day))
    spine = {k: np.array([e[k] for e in edges]) for k in ("user_u", "user_v")}
    table = store.historical("train_user_user_v1", spine, as_of)
    for edge, row in zip(edges, finish_ties(States.of_arrow(table["user_user__state"])), strict=True):
        together = len(visits[edge["user_u"]] & visits[edge["user_v"]])
        expected = [edge["interest_overlap_score"], min(together / 10, 1), edge["same_neighborhood_freq"]]
        np.testing.assert_allclose(row, [*expected, 1], atol=1e-6)


def test_future_events_change_nothing_before_them(filled: Filled, tmp_path: Path):
    """Events at and after t are doubled and distorted: every row stamped up to t stays as it was."""
    t = filled.start + 45 * DAY
    shutil.copytree(filled.data_dir / "lake", tmp_path / "lake")
    path = tmp_path / "lake" / "interactions.parquet"
    table = pq.read_table(path)
    later = np.array([e >= t for e in table["timestamp"].to_pylist()])
    assert later.any()
    extra = table.filter(pa.array(later))
    moved = pa.array([m + timedelta(microseconds=1) for m in extra["timestamp"].to_pylist()], pa.timestamp("us", "UTC"))
    extra = extra.set_column(extra.column_names.index("timestamp"), table.schema.field("timestamp"), moved)
    one = pa.array([True] * len(extra))
    extra = extra.set_column(extra.column_names.index("attended"), table.schema.field("attended"), one)
    pq.write_table(pa.concat_tables([table, extra]), path)
    with Lake(filled.data_dir) as before, Lake(tmp_path) as after:
        for view, query in VIEWS.items():
            values = (("start", filled.start), ("after", filled.start), ("end", filled.end))
            params = {k: v for k, v in values if f"${k}" in query}
            rows = [
                lake.query(f"SELECT * FROM ({query}) WHERE event_timestamp <= $t ORDER BY ALL", params | {"t": t})
                for lake in (before, after)
            ]
            assert len(rows[0]), view
            assert rows[0].equals(rows[1]), view


def test_online_equals_history_at_the_end_of_the_data(filled: Filled, store: FeatureStore):
    now = filled.end
    users = list(range(0, 160, 7))
    online = store.users(users, now)
    offline = store.historical("train_users_v1", {"user_id": np.array(users)}, now).to_pylist()
    for row, expected in zip(online, offline, strict=True):
        assert row is not None
        assert row.name == expected["user_profile__name"]
        assert row.home_city_id == expected["user_profile__home_city_id"]
        np.testing.assert_array_equal(row.fine_pref, np.float32(expected["user_profile__fine_pref"]))
        assert list(row.areas) == expected["user_profile__area_ids"]
        activity = finish_users(States.of_rows([np.array(expected["user_activity__state"])]), micros(now))[0]
        np.testing.assert_array_equal(row.activity, activity)
        assert row.activity[-1] == 1

    user, places = users[3], np.arange(120)
    got = store.rank_places(user, places, now).features
    width = len(PLACE_ACTIVITY) + 1
    pairs = store.historical("train_user_place_v1", {"user_id": np.full(120, user), "place_id": places}, now)
    expected = finish_pairs(pairs_of(States.of_arrow(pairs["user_place__state"]), micros(now)))
    np.testing.assert_array_equal(got[:, width:], expected)
    assert expected[:, -1].any()
    assert not expected[:, -1].all()
    table = store.historical("train_places_v1", {"place_id": places}, now)
    np.testing.assert_array_equal(
        got[:, :width], finish_places(States.of_arrow(table["place_activity__state"]), micros(now))
    )


def test_what_is_older_than_its_ttl_is_unknown_to_the_microsecond(filled: Filled, store: FeatureStore):
    """Exactly at a ttl a row counts, a microsecond later it does not: online as in history."""
    user = 0
    mine = [e for e in events(filled) if e["user_id"] == user]
    last = max(e["timestamp"] for e in mine)
    place = next(e["place_id"] for e in mine if e["timestamp"] == last)
    for edge, known in ((ACTIVITY_TTL, True), (ACTIVITY_TTL + MICROSECOND, False)):
        row = store.users([user], last + edge)[0]
        assert row is not None
        assert bool(row.activity[-1]) == known
        assert bool(row.activity.any()) == known
        assert row.cat_pref.sum() == pytest.approx(1, abs=1e-5)
        offline = store.historical("train_users_v1", {"user_id": np.array([user])}, last + edge)
        state = States.of_arrow(offline["user_activity__state"])
        np.testing.assert_array_equal(finish_users(state, micros(last + edge))[0], row.activity)
    for edge, known in ((PAIR_TTL - MICROSECOND, True), (PAIR_TTL, True), (PAIR_TTL + MICROSECOND, False)):
        online = store.rank_places(user, [place], last + edge).features[0]
        assert bool(online[-1]) == known
        offline = store.historical(
            "train_user_place_v1", {"user_id": np.array([user]), "place_id": np.array([place])}, last + edge
        )
        pairs = pairs_of(States.of_arrow(offline["user_place__state"]), micros(last + edge))
        np.testing.assert_array_equal(finish_pairs(pairs)[0], online[len(PLACE_ACTIVITY) + 1 :])


def test_unknown_ids_are_none_and_zeros(filled: Filled, store: FeatureStore):
    assert store.users([10**9], filled.end) == [None]
    assert store.places([10**9, 0])[0] is None
    unknown = store.rank_places(10**9, [10**9], filled.end)
    assert unknown.user is None
    assert not unknown.features.any()
    assert not store.rank_people(10**9, [10**9 + 1], filled.end).features.any()
    assert store.rank_places(0, [], filled.end).features.shape == (0, D_ONLINE_PLACE)


def test_a_server_that_is_not_there_is_named_within_the_deadline(filled: Filled):
    port = free_port()
    gone = FeatureStore(
        ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=f"redis://127.0.0.1:{port}/0", timeout_s=0.05
    )
    began = time.monotonic()
    with pytest.raises(FeatureStoreUnavailable, match=str(port)):
        gone.ping()
    with pytest.raises(FeatureStoreUnavailable, match="recsys up"):
        gone.users([1], filled.end)
    assert time.monotonic() - began < 1.0
    gone.close()


def test_a_registry_without_services_names_the_command(tmp_path: Path, redis_url: str):
    empty = FeatureStore(ROOT / "feature_repo", data_dir=tmp_path, redis_url=redis_url)
    with pytest.raises(NotReady, match="recsys materialize"):
        empty.users([1], datetime.fromisoformat("2024-01-01T00:00:00+00:00"))
    empty.close()
