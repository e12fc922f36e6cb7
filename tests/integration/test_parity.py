"""What was online at a moment is what history says of that moment, for every view, whatever the moment."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.aggregates import ACTIVITY_TTL, PAIR_TTL, VIEWS, Interaction, States
from recsys.aggregates.definitions import DAY_US
from recsys.events.folding import fold_events
from recsys.features import FeatureStore, LiveStates, Wanted
from recsys.lake import Lake
from recsys.verify import KEYS, finish
from tests.conftest import ROOT, Filled

DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SQL = """
SELECT user_id, place_id, epoch_us("timestamp") AS at_us, dwell_time, num_likes, num_saves, num_shares, attended,
       implicit_rating AS rating, time_of_day_bucket AS time_of_day, day_of_week_bucket AS day_of_week
FROM interactions WHERE "timestamp" >= $since AND "timestamp" < $until ORDER BY "timestamp", user_id, place_id
"""


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def states_as_of(lake: Lake, start: datetime, moment: datetime) -> dict[str, dict[tuple[int, ...], np.ndarray]]:
    """The last row of every key that history has at a moment at which it knows everything before it."""
    out = {}
    for view, names in KEYS.items():
        params = {k: v for k, v in (("start", start), ("after", start), ("end", moment)) if f"${k}" in VIEWS[view]}
        rows = lake.query(
            f"SELECT * FROM ({VIEWS[view]}) WHERE event_timestamp <= $moment ORDER BY event_timestamp",
            params | {"moment": moment},
        ).to_pylist()
        out[view] = {tuple(row[name] for name in names): np.array(row["state"]) for row in rows}
    return out


@pytest.fixture
def online(filled: Filled) -> Iterator[FeatureStore]:
    """A store of the test's own: the same server, another database."""
    url = filled.redis_url.removesuffix("/0") + "/5"
    store = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=url, timeout_s=5.0)
    LiveStates(store).clear()
    yield store
    LiveStates(store).clear()
    store.close()


def test_online_after_a_replay_equals_history_at_1000_moments_and_pairs(filled: Filled, online: FeatureStore):
    """Filled as of a midnight, then every event up to t, one log position each: at t both say the same.

    The moments are random, and those at which a window or a ttl ends, a microsecond before and after.
    """
    rng, live = np.random.default_rng(11), LiveStates(online)
    begin = filled.end - 31 * DAY
    with Lake(filled.data_dir) as lake:
        events = [
            Interaction(**row, seq=seq)
            for seq, row in enumerate(lake.query(SQL, {"since": begin, "until": filled.end}).to_pylist(), 1)
        ]
        at = states_as_of(lake, filled.start, begin)
        for view, names in KEYS.items():
            keys = list(at[view])
            if view == "user_place":  # as the job does it: what is older than its ttl is not online
                keys = [k for k in keys if micros(begin) - at[view][k][2] <= PAIR_TTL // MICROSECOND]
            table = pa.table(
                {name: pa.array([k[i] for k in keys], pa.int64()) for i, name in enumerate(names)}
                | {
                    "event_timestamp": pa.array([begin] * len(keys), pa.timestamp("us", "UTC")),
                    "state": pa.array([at[view][k].tolist() for k in keys], pa.list_(pa.float64())),
                }
            )
            live.fill(view, table, seq=0, end=begin, wall=datetime.now(UTC))
        attended = lake.query(SQL, {"since": begin - 3 * DAY, "until": begin}).to_pylist()
        live.join_crowds([(e["place_id"], e["at_us"] // DAY_US, e["user_id"], 0) for e in attended if e["attended"]])

        moments = [begin + timedelta(microseconds=int(x)) for x in rng.integers(1, 30 * DAY_US, 14)]
        edge = EPOCH + timedelta(microseconds=events[5].at_us)
        for ttl in (DAY, 7 * DAY, PAIR_TTL):
            moments += [edge + ttl - MICROSECOND, edge + ttl, edge + ttl + MICROSECOND]
        midnight = begin + 8 * DAY
        moments += [midnight - MICROSECOND, midnight, midnight + MICROSECOND]
        done, triples, met, fresh_pairs = 0, 0, 0, 0
        for t in sorted(m for m in moments if m <= filled.end):
            upto = next((i for i in range(done, len(events)) if events[i].at_us >= micros(t)), len(events))
            for first in range(done, upto, 500):
                fold_events(live, events[first : min(first + 500, upto)], now=t, wall=datetime.now(UTC))
            done = upto
            history = states_as_of(lake, filled.start, t)
            users, places = rng.integers(0, 160, 50), rng.integers(0, 120, 50)
            pairs = [k for k in history["user_place"] if rng.random() < 0.02][:25]
            fresh_pairs += sum(k not in at["user_place"] for k in pairs)
            pairs += list(zip(users.tolist(), places.tolist(), strict=True))[:25]
            ties = [k for k in at["user_user"] if rng.random() < 0.05]
            met += sum(history["user_user"][k][1] > at["user_user"][k][1] for k in ties)
            known = {
                "user_activity": [(u,) for u in users.tolist() if (u,) in at["user_activity"]],
                "user_recent": [(u,) for u in users.tolist()],
                "place_activity": [(p,) for p in places.tolist() if (p,) in at["place_activity"]],
                "user_place": pairs,
                "user_user": ties,
            }
            triples += len(pairs)
            for view, keys in known.items():
                layout = online.rows(view)
                ids = tuple(np.array([k[KEYS[view].index(n)] for k in keys], dtype=np.int64) for n in layout.join_keys)
                (rows,) = live.read([Wanted(view, ids)])
                for key, row in zip(keys, rows, strict=True):
                    expected = history[view].get(key)
                    if row is None and view == "user_place" and expected is not None:  # forgotten: it counts no more
                        assert micros(t) - expected[2] > PAIR_TTL // MICROSECOND, (key, t)
                        continue
                    assert (row is None) == (expected is None), (view, key, t)
                    if row is not None:  # counts exactly, sums exactly: all but the position in the log
                        np.testing.assert_array_equal(row[1:], expected[1:], err_msg=f"{view} {key} {t}")
                mine = finish(view, States.of_rows(rows), micros(t))
                theirs = finish(view, States.of_rows([history[view].get(k) for k in keys]), micros(t))
                np.testing.assert_allclose(mine, theirs, atol=1e-6)
        assert triples >= 1_000
        assert met
        assert fresh_pairs


def test_a_ttl_ends_at_the_same_microsecond_in_both(filled: Filled, online: FeatureStore):
    """Of states a ttl old, what is online and what history holds are known up to the same microsecond."""
    with Lake(filled.data_dir) as lake:
        history = states_as_of(lake, filled.start, filled.end)
    for view, ttl, at in (
        ("user_activity", ACTIVITY_TTL, 1),
        ("place_activity", ACTIVITY_TTL, 1),
        ("user_place", PAIR_TTL, 2),
    ):
        key, state = next(iter(history[view].items()))
        layout = online.rows(view)
        ids = tuple(np.array([key[KEYS[view].index(n)]]) for n in layout.join_keys)
        LiveStates(online).write([(Wanted(view, ids), [state], np.array([0]))], end=filled.end, wall=datetime.now(UTC))
        (rows,) = LiveStates(online).read([Wanted(view, ids)])
        for moment, known in ((-1, True), (0, True), (1, False)):
            now_us = int(state[at]) + ttl // MICROSECOND + moment
            both = [finish(view, States.of_rows(s), now_us)[0, -1] for s in (rows, [state])]
            assert both == [known, known], (view, moment)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), days=st.integers(20, 80), shift_us=st.integers(0, DAY_US))
def test_events_at_or_after_a_moment_change_nothing_before_it(
    world_dir: Path, tmp_path: Path, seed: int, days: int, shift_us: int
):
    """Random events are added at and after t: every state as of t, and every row stamped up to t, stays as it was."""
    rng = np.random.default_rng(seed)
    for name in ("before", "after"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(world_dir, tmp_path / name / "lake")
    table = pq.read_table(tmp_path / "before" / "lake" / "interactions.parquet")
    start = min(table["timestamp"].to_pylist()).replace(hour=0, minute=0, second=0, microsecond=0)
    t = start + days * DAY + timedelta(microseconds=shift_us)
    rows = table.take(pa.array(rng.integers(0, len(table), 200)))
    at = [t, *(t + timedelta(microseconds=int(x)) for x in rng.integers(0, 5 * DAY_US, 199))]
    replaced = {
        "timestamp": pa.array(at, table.schema.field("timestamp").type),
        "user_id": pa.array(rng.integers(0, 160, 200), pa.int64()),
        "place_id": pa.array(rng.integers(0, 120, 200), pa.int64()),
        "attended": pa.array([True] * 200),
    }
    for name, column in replaced.items():
        rows = rows.set_column(rows.column_names.index(name), table.schema.field(name), column)
    pq.write_table(pa.concat_tables([table, rows]), tmp_path / "after" / "lake" / "interactions.parquet")
    with Lake(tmp_path / "before") as before, Lake(tmp_path / "after") as after:
        one, other = states_as_of(before, start, t), states_as_of(after, start, t)
        for view in KEYS:
            assert one[view].keys() == other[view].keys(), view
            for key, state in one[view].items():
                np.testing.assert_array_equal(state, other[view][key], err_msg=f"{view} {key}")
