"""Snapshots through Feast: the seed's dimensions, id maps, and nothing from the other side of the cut."""

import shutil
from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.aggregates import PLACE_ACTIVITY
from recsys.constants import SLOT_BY_DAY_AND_TIME
from recsys.errors import DataError
from recsys.features import FeatureStore
from recsys.graph import INTERACTS, REV_INTERACTS, SOCIAL, Edges, Nodes, Snapshot, build_graph
from recsys.lake import Lake
from recsys.models.config import ModelConfig
from recsys.taxonomy import CITY
from recsys.training.inputs import prepare, size_config
from recsys.training.snapshots import take_snapshot
from tests.conftest import ROOT, Filled

WEEK = timedelta(weeks=1)

WIDTH = len(PLACE_ACTIVITY) + 1


@pytest.fixture(scope="module")
def store(filled: Filled):
    opened = FeatureStore(ROOT / "feature_repo", data_dir=filled.data_dir, redis_url=filled.redis_url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def snapshot(filled: Filled, store: FeatureStore) -> Snapshot:
    with Lake(filled.data_dir) as lake:
        return take_snapshot(lake, store, filled.start + 8 * WEEK, filled.start + 9 * WEEK)


def rows(filled: Filled, table: str) -> list[dict]:
    return pq.read_table(filled.data_dir / "lake" / f"{table}.parquet").to_pylist()


def test_dimensions_are_the_seeds(snapshot: Snapshot):
    data = snapshot.data
    n, m = data["user"].num_nodes, data["place"].num_nodes
    assert data["user"].x.shape == (n, 148)
    assert data["place"].x.shape == (m, 114)
    assert data[INTERACTS].edge_attr.shape == (len(snapshot.pair_keys), 12)
    assert torch.equal(data[REV_INTERACTS].edge_index, data[INTERACTS].edge_index.flip(0))
    assert data[SOCIAL].edge_attr.shape == (2 * len(snapshot.tie_keys), 3)
    assert all(torch.isfinite(t).all() for t in (data["user"].x, data["place"].x, data[INTERACTS].edge_attr))
    assert data.validate()


def test_nodes_are_those_known_at_the_moment_in_id_order(filled: Filled, snapshot: Snapshot):
    for table, key, kind in (("users", "user_id", "user"), ("places", "place_id", "place")):
        known = sorted(r[key] for r in rows(filled, table) if r["as_of"] <= snapshot.as_of)
        assert snapshot.data[kind][key].tolist() == known


def test_edges_are_the_pairs_before_the_cut_and_labels_the_events_after_it(filled: Filled, snapshot: Snapshot):
    users, places = snapshot.data["user"].user_id.tolist(), snapshot.data["place"].place_id.tolist()
    before, after = defaultdict(int), []
    for e in rows(filled, "interactions"):
        if e["timestamp"] < snapshot.as_of:
            before[e["user_id"], e["place_id"]] += 1
        elif e["timestamp"] < snapshot.until and e["user_id"] in set(users) and e["place_id"] in set(places):
            slot = SLOT_BY_DAY_AND_TIME[e["day_of_week_bucket"]][e["time_of_day_bucket"]]
            after.append((e["user_id"], e["place_id"], round(e["implicit_rating"], 4), slot))
    source, target = snapshot.data[INTERACTS].edge_index.tolist()
    edges = {
        (users[u], places[p]): int(c) for u, p, c in zip(source, target, snapshot.data[INTERACTS].count, strict=True)
    }
    assert edges == before
    labels = snapshot.labels
    got = [
        (users[u], places[p], round(float(r), 4), int(s))
        for u, p, r, s in zip(labels.user, labels.place, labels.rating, labels.slot, strict=True)
    ]
    assert sorted(got) == sorted(after)
    assert len(got) > 50


def test_friend_labels_and_companions_lie_in_the_window(filled: Filled, snapshot: Snapshot):
    users = snapshot.data["user"].user_id.tolist()
    known = set(users)
    labels = {
        (r["user_u"], r["user_v"], r["label_compat"], r["label_attend"])
        for r in rows(filled, "friend_labels")
        if snapshot.as_of <= r["as_of"] < snapshot.until and {r["user_u"], r["user_v"]} <= known
    }
    f = snapshot.friends
    got = {
        (users[u], users[v], int(c), int(a)) for u, v, c, a in zip(f.user_u, f.user_v, f.compat, f.attend, strict=True)
    }
    assert got == labels
    there = defaultdict(set)
    places = set(snapshot.data["place"].place_id.tolist())
    for e in rows(filled, "interactions"):
        if e["attended"] and snapshot.as_of <= e["timestamp"] < snapshot.until and e["place_id"] in places:
            there[e["place_id"], e["timestamp"].date()].add(e["user_id"])
    pairs = sorted((u, v, place) for (place, _), at in there.items() for u in at & known for v in at & known if u < v)
    c, ids = snapshot.companions, snapshot.data["place"].place_id.tolist()
    assert sorted((users[u], users[v], ids[p]) for u, v, p in zip(c.user_u, c.user_v, c.place, strict=True)) == pairs


def test_new_ties_are_those_of_the_window_between_known_users(filled: Filled, store: FeatureStore, tmp_path: Path):
    """The world's ties are known from when both have joined; one that comes later is put in by hand."""
    at = filled.start + 8 * WEEK
    shutil.copytree(filled.data_dir / "lake", tmp_path / "lake")
    path = tmp_path / "lake" / "user_user_edges.parquet"
    table = pq.read_table(path)
    edges = table.to_pylist()
    known = {r["user_id"] for r in rows(filled, "users") if r["as_of"] <= at}
    late = [r for r in edges if {r["user_u"], r["user_v"]} <= known][:4]
    shifts = (timedelta(), timedelta(microseconds=1), WEEK, WEEK + timedelta(microseconds=1))
    for edge, shift in zip(late, shifts, strict=True):
        edge["as_of"] = at + shift
    pq.write_table(pa.Table.from_pylist(edges, schema=table.schema), path)
    with Lake(tmp_path) as lake:
        taken = take_snapshot(lake, store, at, at + WEEK)
    users = taken.data["user"].user_id
    got = set(zip(users[taken.new_ties.user_u].tolist(), users[taken.new_ties.user_v].tolist(), strict=True))
    assert got == {(r["user_u"], r["user_v"]) for r in late[1:3]}


def test_visits_are_all_that_were_before_the_cut(filled: Filled, snapshot: Snapshot):
    users, places = snapshot.data["user"].user_id.tolist(), snapshot.data["place"].place_id.tolist()
    expected = {
        (e["user_id"], e["place_id"], (e["timestamp"].date() - date(1970, 1, 1)).days)
        for e in rows(filled, "interactions")
        if e["attended"] and e["timestamp"] < snapshot.as_of
    }
    v = snapshot.visits
    got = [(users[u], places[p], int(d)) for u, p, d in zip(v.user, v.place, v.day, strict=True)]
    assert sorted(got) == sorted(expected)
    assert len(got) > 50


def test_the_past_is_every_pair_that_was_before_the_cut_however_long_ago(filled: Filled, snapshot: Snapshot):
    users, places = snapshot.data["user"].user_id.tolist(), snapshot.data["place"].place_id.tolist()
    events: dict[tuple[int, int], list[datetime]] = {}
    for e in rows(filled, "interactions"):
        if e["timestamp"] < snapshot.as_of:
            events.setdefault((e["user_id"], e["place_id"]), []).append(e["timestamp"])
    past, m = snapshot.past, len(places)
    assert [(users[k // m], places[k % m]) for k in past.keys.tolist()] == sorted(events)
    expected = [(len(v), (snapshot.as_of - max(v)) / timedelta(days=1)) for _, v in sorted(events.items())]
    np.testing.assert_allclose(np.stack([past.count, past.age_days], axis=1), expected, rtol=1e-5)
    memory = prepare(snapshot, size_config([snapshot], ModelConfig())).memory
    assert memory.counts.sum() == sum(map(len, events.values()))


def test_who_is_not_known_yet_is_in_no_tie(filled: Filled, store: FeatureStore, snapshot: Snapshot, tmp_path: Path):
    """A team's profiles may be dated later than the friendships of the same people."""

    def ties(taken: Snapshot) -> set[tuple[int, int]]:
        source, target = taken.data["user"].user_id[taken.data[SOCIAL].edge_index].tolist()
        return set(zip(source, target, strict=True))

    shutil.copytree(filled.data_dir / "lake", tmp_path / "lake")
    path = tmp_path / "lake" / "users.parquet"
    table, before = pq.read_table(path), ties(snapshot)
    late = min(u for u, _ in before)
    users = [r | ({"as_of": snapshot.as_of + WEEK} if r["user_id"] == late else {}) for r in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(users, schema=table.schema), path)
    with Lake(tmp_path) as lake:
        taken = take_snapshot(lake, store, snapshot.as_of, snapshot.until)
    assert late not in taken.data["user"].user_id
    assert ties(taken) == {pair for pair in before if late not in pair} != before


def test_what_comes_later_changes_nothing_of_what_is_said_of_people(
    filled: Filled, store: FeatureStore, snapshot: Snapshot, tmp_path: Path
):
    """Friendships and visits of the moment itself and after it; one of the moment before it does count."""
    shutil.copytree(filled.data_dir / "lake", tmp_path / "lake")
    users, places = snapshot.data["user"].user_id.tolist(), snapshot.data["place"].place_id.tolist()
    visits, ties = (tmp_path / "lake" / f"{name}.parquet" for name in ("interactions", "user_user_edges"))
    event = next(e for e in rows(filled, "interactions") if e["attended"])
    known = {(r["user_u"], r["user_v"]) for r in rows(filled, "user_user_edges")}
    pair = next((u, v) for u in users for v in users if u < v and (u, v) not in known)
    tie = rows(filled, "user_user_edges")[0] | {"user_u": pair[0], "user_v": pair[1]}

    def said(shift: timedelta) -> tuple[np.ndarray, torch.Tensor]:
        came = [event | {"user_id": u, "place_id": places[0], "timestamp": snapshot.as_of + shift} for u in users[:9]]
        met = tie | {"as_of": snapshot.as_of + shift + timedelta(microseconds=1)}
        for path, name, more in ((visits, "interactions", came), (ties, "user_user_edges", [met])):
            table = pq.read_table(filled.data_dir / "lake" / f"{name}.parquet")
            pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(more, schema=table.schema)]), path)
        with Lake(tmp_path) as lake:
            taken = take_snapshot(lake, store, snapshot.as_of, snapshot.until)
        sources = prepare(taken, size_config([taken], ModelConfig())).people_sources
        return sources.pairs(np.arange(len(users)).repeat(20), np.tile(np.arange(20), len(users))), taken.past.count

    plain = prepare(snapshot, size_config([snapshot], ModelConfig())).people_sources
    expected = plain.pairs(np.arange(len(users)).repeat(20), np.tile(np.arange(20), len(users)))
    for shift in (timedelta(), timedelta(days=1)):
        people, past = said(shift)
        np.testing.assert_array_equal(people, expected)
        assert torch.equal(past, snapshot.past.count)
    people, past = said(timedelta(microseconds=-1))
    assert not np.array_equal(people, expected)
    assert past.sum() == snapshot.past.count.sum() + 9


def test_look_ups_find_a_pairs_row_and_zeros_elsewhere(snapshot: Snapshot):
    source, target = snapshot.data[INTERACTS].edge_index
    at = torch.arange(0, len(source), 7)
    features = snapshot.place_features(source[at], target[at])
    assert torch.equal(features[:, WIDTH:], snapshot.pair_online[at])
    assert torch.equal(features[:, :WIDTH], snapshot.place_online[target[at]])
    known = set(snapshot.pair_keys.tolist())
    m = len(snapshot.place_online)
    free = next((u, p) for u in range(10) for p in range(m) if u * m + p not in known)
    assert not snapshot.place_features(torch.tensor([free[0]]), torch.tensor([free[1]]))[:, WIDTH:].any()
    u, v = snapshot.data[SOCIAL].edge_index[:, 0]
    there, back = (snapshot.people_features(a[None], b[None])[:, :4] for a, b in ((u, v), (v, u)))
    assert torch.equal(there, back)
    assert there[0, 3] == 1


def test_a_feature_that_is_not_a_number_names_row_and_block():
    users = Nodes(np.array([3, 8]), {}, None)
    blocks = {
        "home_city_id": [0, 0], "home_neighborhood_id": [0, 0], "cat_pref": np.zeros((2, 6)),
        "fine_pref": np.full((2, 100), [[0.01], [np.nan]]), "vibe_pref": np.zeros((2, 30)),
        "area_freqs": np.zeros((2, 5)), "behavior": np.zeros((2, 5)),
    }  # fmt: skip
    users = Nodes(users.ids, {k: np.asarray(v) for k, v in blocks.items()})
    empty = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 12), np.float32), {})
    with pytest.raises(DataError, match="user 8: fine_pref is not finite"):
        build_graph(users, users, empty, empty, CITY.widths)
