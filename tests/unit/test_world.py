import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import generate as job
from jobs.report import Report
from recsys.constants import SLOT_BY_DAY_AND_TIME, TAG_CATEGORY, TIME_OF_DAY_BY_HOUR
from recsys.errors import ConfigError
from recsys.schemas import TABLES
from recsys.settings import Settings
from recsys.taxonomy import CITY
from recsys.world import Parameters, WorldConfig, generate
from recsys.world.friends import group_pairs, largest, make_groups, similar
from recsys.world.interactions import Events, in_order
from recsys.world.places import make_places
from recsys.world.scoring import Sampler, Tastes, alive, make_cities, pair_taste, season_of, slot_factor, unit
from recsys.world.social import co_attendance
from recsys.world.streams import Stream, stream, subset
from recsys.world.users import make_users

SIZE = {"users": 300, "places": 300, "seed": 7}


@pytest.fixture(scope="module", params=["city", "seed"])
def world(request, tmp_path_factory):
    config = WorldConfig(preset=request.param, **SIZE)
    folder = tmp_path_factory.mktemp(request.param)
    figures = generate(config, folder).figures
    return config, {name: pq.read_table(folder / f"{name}.parquet") for name in TABLES}, figures, folder


def column(table: pa.Table, name: str) -> np.ndarray:
    values = table[name]
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return values.to_numpy()


def matrix(table: pa.Table, name: str) -> np.ndarray:
    return np.array(table[name].to_pylist(), dtype=np.float32)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- shape and contract


def test_tables_have_exactly_the_contract_schema(world):
    _, tables, figures, _ = world
    for name, table in tables.items():
        assert table.schema.equals(TABLES[name].arrow), name
        assert all(c.null_count == 0 for c in table.columns), "even what may be missing elsewhere is known here"
        keys = table.select(TABLES[name].key).to_pylist()
        assert len({tuple(k.values()) for k in keys}) == len(keys), f"{name}: keys repeat"
    assert tables["users"].num_rows == tables["places"].num_rows == 300
    assert figures["interactions"] == tables["interactions"].num_rows > 10_000


def test_values_are_within_the_ranges_of_their_columns(world):
    _, tables, _, _ = world
    for name, table in tables.items():
        for field, spec in TABLES[name].columns.items():
            values = table[field].combine_chunks()
            if pa.types.is_list(spec.type):
                lengths = pc.list_value_length(values).to_numpy()
                assert spec.length is None or (lengths == getattr(CITY.widths, spec.length)).all(), field
                values, rows = values.flatten().to_numpy(), np.repeat(np.arange(len(lengths)), lengths)
            elif pa.types.is_map(spec.type):
                lengths = np.array([len(v) for v in table[field].to_pylist()])
                assert lengths.min() >= 1
                values, rows = values.items.to_numpy(), np.repeat(np.arange(len(lengths)), lengths)
            elif pa.types.is_string(spec.type) or pa.types.is_timestamp(spec.type):
                continue
            else:
                values, rows = values.to_numpy(zero_copy_only=False), None
            assert np.isfinite(values).all(), field
            if spec.total is not None:
                assert np.abs(np.bincount(rows, values) - spec.total).max() < 1e-5, field
            if spec.low is not None:
                assert (values > spec.low).all() if spec.exclusive_low else (values >= spec.low).all(), field
            if spec.high is not None:
                assert (values <= spec.high).all(), field
            if spec.references:
                other, key = spec.references.split(".")
                assert np.isin(values, column(tables[other], key)).all(), field


def test_source_says_what_was_made(world):
    config, tables, _, folder = world
    source = json.loads((folder / "source.json").read_text())
    assert source["synthetic"] is True
    assert (source["preset"], source["seed"], source["users"], source["places"]) == (config.preset, 7, 300, 300)
    start, end = datetime.fromisoformat(source["start"]), datetime.fromisoformat(source["end"])
    assert (start, (end - start).days) == (datetime(2024, 1, 1, tzinfo=UTC), 84)
    moment = tables["interactions"]["timestamp"]
    assert start <= pc.min(moment).as_py()
    assert pc.max(moment).as_py() < end


# --- determinism


def test_the_same_seed_gives_the_same_bytes_whatever_the_chunks_and_workers(world, tmp_path):
    config, _, _, folder = world
    generate(config, tmp_path / "a", chunk_users=256, workers=1)
    generate(config, tmp_path / "b", chunk_users=2048, workers=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(folder)
    generate(replace(config, seed=8), tmp_path / "c")
    other = digests(tmp_path / "c")
    assert all(other[name] != digest for name, digest in digests(folder).items())
    assert set(other) == {
        *(f"{name}.parquet" for name in TABLES),
        "source.json",
        "truth/world.json",
        "truth/friend_labels.parquet",
    }


def test_a_user_does_not_depend_on_how_many_there_are():
    small, large = (make_users(WorldConfig(users=n, places=50)) for n in (256, 600))
    for name in ("city", "fine_pref", "area", "joined", "where", "rhythm"):
        assert np.array_equal(getattr(small, name), getattr(large, name)[:256]), name


def test_streams_are_independent_of_each_other():
    first = stream(1, Stream.USERS, 0).random(4)
    assert np.array_equal(first, stream(1, Stream.USERS, 0).random(4))
    for other in (stream(2, Stream.USERS, 0), stream(1, Stream.PLACES, 0), stream(1, Stream.USERS, 1)):
        assert not np.intersect1d(first, other.random(4)).size


# --- what the rows say


def test_nothing_happens_before_its_user_joined_or_its_place_opened(world):
    config, tables, _, _ = world
    events = tables["interactions"]
    joined, opened = column(tables["users"], "as_of"), column(tables["places"], "as_of")
    moment = column(events, "timestamp")
    assert (moment >= joined[column(events, "user_id")]).all()
    assert (moment >= opened[column(events, "place_id")]).all()
    for as_of in (joined, opened):
        late = (as_of > config.start_us).mean()
        assert 0.05 <= late <= 0.2 if config.preset == "city" else late == 0


def test_rating_is_the_seeds_scalar_formula(world):
    _, tables, _, _ = world
    for row in tables["interactions"].slice(0, 3000).to_pylist():
        score = 1.0
        score += min(row["dwell_time"] / 150.0, 2.0)
        score += min(row["num_likes"] * 0.5, 1.5)
        score += min(row["num_saves"] * 1.0, 2.0)
        score += min(row["num_shares"] * 0.5, 1.0)
        if row["attended"]:
            score += 2.0
        assert row["implicit_rating"] == pytest.approx(min(score, 5.0), abs=1e-6)


def test_buckets_follow_the_timestamp(world):
    _, tables, _, _ = world
    for row in tables["interactions"].slice(0, 3000).to_pylist():
        assert row["time_of_day_bucket"] == TIME_OF_DAY_BY_HOUR[row["timestamp"].hour]
        assert row["day_of_week_bucket"] == int(row["timestamp"].weekday() >= 5)


def test_places_are_in_every_city_and_their_tags_belong_to_their_categories(world):
    _, tables, _, _ = world
    places = tables["places"].to_pylist()
    assert all(sum(p["city_id"] == c for p in places) >= 5 for c in range(8))
    assert len({p["city_name"] for p in places}) == 8
    named = {(p["city_id"], p["neighborhood_id"], p["neighborhood_name"]) for p in places}
    assert len(named) == len({n[:2] for n in named}) == len({n[2] for n in named})
    for place in places:
        tags = [i for i, w in enumerate(place["fine_tag_vector"]) if w > 0]
        assert 3 <= len(tags) <= 7
        assert {TAG_CATEGORY[t] for t in tags} <= set(place["category_ids"])
        weight = 1 / len(place["category_ids"])
        assert place["category_one_hot"] == [weight if c in place["category_ids"] else 0 for c in range(6)]
        assert place["novelty_score"] == pytest.approx(1 / (1 + np.log1p(place["base_popularity"])), rel=1e-5)


# --- social rows, by brute force


def brute_force_meetings(tables) -> dict[tuple[int, int], list[int]]:
    events = tables["interactions"]
    visits = defaultdict(dict)
    columns = [column(events, c) for c in ("user_id", "place_id", "timestamp", "attended")]
    for user, place, moment, attended in zip(*(c.tolist() for c in columns), strict=True):
        if attended:
            there = visits[place, moment // 86_400_000_000]
            there[user] = min(moment, there.get(user, moment))
    meetings = defaultdict(list)
    for there in visits.values():
        for u, v in combinations(sorted(there), 2):
            meetings[u, v].append(max(there[u], there[v]))
    return {pair: sorted(moments) for pair, moments in meetings.items()}


def cosine(a: np.ndarray, b: np.ndarray) -> np.float32:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.float32(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_social_edges_by_brute_force(world):
    config, tables, _, _ = world
    users, fine = tables["users"].to_pylist(), matrix(tables["users"], "fine_pref")
    meetings = brute_force_meetings(tables)
    edges = tables["user_user_edges"].to_pylist()
    assert len(edges) > 1000
    for edge in edges:
        u, v = edge["user_u"], edge["user_v"]
        a, b = users[u], users[v]
        assert u < v
        assert a["home_city_id"] == b["home_city_id"]
        assert edge["interest_overlap_score"] == pytest.approx(cosine(fine[u], fine[v]), abs=1e-6)
        assert edge["interest_overlap_score"] >= 0.3
        assert edge["co_attendance_count"] == len(meetings.get((u, v), ()))
        here, there = {k for k, _ in a["area_freqs"]}, {k for k, _ in b["area_freqs"]}
        assert edge["same_neighborhood_freq"] == pytest.approx(len(here & there) / len(here | there))
        assert edge["as_of"] == max(a["as_of"], b["as_of"])
    # Everyone's nearest neighbour is among their edges, unless nobody is near enough.
    linked = {(e["user_u"], e["user_v"]) for e in edges}
    city = column(tables["users"], "home_city_id")
    norm = fine / np.linalg.norm(fine, axis=1, keepdims=True)
    for u in range(300):
        near = np.where((city == city[u]) & (np.arange(300) != u), norm @ norm[u], -1)
        v = int(near.argmax())
        assert near[v] < config.numbers.similarity_threshold or (min(u, v), max(u, v)) in linked


def test_friend_labels_by_brute_force(world):
    config, tables, _, _ = world
    users, fine = tables["users"].to_pylist(), matrix(tables["users"], "fine_pref")
    meetings = brute_force_meetings(tables)
    labels = tables["friend_labels"].to_pylist()
    hard = 0
    for label in labels:
        u, v = label["user_u"], label["user_v"]
        near, met = cosine(fine[u], fine[v]), meetings.get((u, v), [])
        assert u < v
        assert label["label_compat"] == int(near >= 0.6 or len(met) >= 2)
        assert near >= 0.6 or len(met) >= 2 or (near < 0.3 and not met), "a pair between the classes has a label"
        if near < 0.6 and label["label_compat"]:
            moment = (label["as_of"] - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
            assert moment == met[1]
        else:
            assert max(users[u]["as_of"], users[v]["as_of"]) <= label["as_of"] < config.end
        if not label["label_compat"]:
            assert label["label_attend"] == 0
            same = users[u]["home_city_id"] == users[v]["home_city_id"]
            hard += same and bool({k for k, _ in users[u]["area_freqs"]} & {k for k, _ in users[v]["area_freqs"]})
    compat = sum(label["label_compat"] for label in labels)
    negatives = len(labels) - compat
    assert compat > 100
    assert negatives == round(config.numbers.negatives_per_positive * compat)
    assert hard >= negatives // 2
    # Whoever met twice has a label.
    labelled = {(label["user_u"], label["user_v"]) for label in labels}
    assert all(pair in labelled for pair, moments in meetings.items() if len(moments) >= 2)


def test_attend_labels_follow_their_probability(world):
    config, tables, _, _ = world
    fine = matrix(tables["users"], "fine_pref")
    meetings = brute_force_meetings(tables)
    expected = variance = seen = 0.0
    for label in tables["friend_labels"].to_pylist():
        if label["label_compat"]:
            u, v = label["user_u"], label["user_v"]
            met = len(meetings.get((u, v), ()))
            p = min(0.95, config.numbers.attend_scale * float(cosine(fine[u], fine[v])) * (1 + met / 10))
            expected, variance, seen = expected + p, variance + p * (1 - p), seen + label["label_attend"]
    assert abs(seen - expected) < 4 * np.sqrt(variance)


def test_co_attendance_of_a_day_worked_by_hand():
    day = 86_400_000_000
    #      place 5, day 0: users 1, 2, 1 again      place 5, day 1: 2, 1      place 6, day 1: 1, 3
    user = np.array([1, 2, 1, 2, 1, 1, 3])
    place = np.array([5, 5, 5, 5, 5, 6, 6])
    moment = np.array([10, 20, 30, day + 40, day + 50, day + 60, day + 70])
    met = co_attendance(user, place, moment, 10)
    assert met.key.tolist() == [12, 13]
    assert met.count.tolist() == [2, 1]
    assert met.second.tolist() == [day + 50, -1]
    assert [a.tolist() for a in met.lookup(np.array([13, 99]))] == [[1, 0], [-1, -1]]


# --- the machinery


@pytest.mark.parametrize("n", [0, 1, 2_000])
def test_events_in_order_are_each_there_once(n):
    rng = np.random.default_rng(n)
    user, place, moment = rng.integers(512, 520, n), rng.integers(0, 4, n), 10**15 + rng.integers(0, 60, n)
    rest = [np.arange(n).astype(t) for t in (np.float32, np.int32, np.int32, np.int32, bool)]
    found = in_order(Events(user, place, moment, *rest))
    first = {}
    for i, key in enumerate(zip(user.tolist(), moment.tolist(), place.tolist(), strict=True)):
        first.setdefault(key, i)
    assert list(zip(found.user.tolist(), found.moment.tolist(), found.place.tolist(), strict=True)) == sorted(first)
    assert found.dwell.tolist() == [first[key] for key in sorted(first)], "of equal ones the first"


def test_sampler_draws_by_preference_and_slot():
    config = WorldConfig(users=40, places=60, cities=1, seed=3)
    places, users = make_places(config), make_users(config)
    city = make_cities(config, places)[0]
    logits = 3.0 * city.taste(Tastes.of(config, users, np.array([4, 9, 12]), 0), config.numbers) / 0.1
    n, slot = 200_000, 4
    sampler = Sampler(logits.copy(), city, slot_weight=1.5)
    drawn = sampler.draw(np.random.default_rng(0), np.repeat([0, 1, 2], n), np.full(3 * n, slot))
    near = {a: 1.0 if a == slot else 0.5 if a in (0, 1) else 0.0 for a in range(6)}  # weekend day: morning, afternoon
    assert SLOT_BY_DAY_AND_TIME[1][0] == slot
    for row in (0, 1, 2):
        weight = np.array([np.exp(x + 1.5 * near[s]) for x, s in zip(logits[row], places.slot[city.ids], strict=True)])
        expected = weight / weight.sum()
        found = np.bincount(drawn[row * n : (row + 1) * n], minlength=60) / n
        assert np.abs(found - expected).max() < 5 * np.sqrt(expected.max() / n)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("n_places", [7, 60, 700])
def test_a_draw_is_the_place_that_a_plain_search_finds(rows, n_places):
    config = WorldConfig(users=40, places=n_places, cities=1, seed=3)
    city = make_cities(config, make_places(config))[0]
    rng = np.random.default_rng(rows)
    logits = rng.normal(0, 2, (rows, n_places)).astype(np.float32)
    row, slot = rng.integers(0, rows, 3_000), rng.integers(0, 6, 3_000)
    row[-500:] = rows - 1  # where a search looks beyond what there is
    found = Sampler(logits.copy(), city, slot_weight=1.5).draw(np.random.default_rng(9), row, slot)
    again = np.random.default_rng(9)
    by_kind, within = again.random(3_000), again.random(3_000)
    factor, mass = slot_factor(1.5), np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    runs = list(zip(city.edges, city.edges[1:], strict=False))
    for i, (r, s) in enumerate(zip(row.tolist(), slot.tolist(), strict=True)):
        share = np.cumsum([mass[r, low:high].sum() * factor[s, kind] for kind, (low, high) in enumerate(runs)])
        low, high = runs[np.searchsorted(share / share[-1], by_kind[i], side="right")]
        ladder = np.cumsum(mass[r, low:high])
        at = low + np.searchsorted(ladder, within[i] * ladder[-1], side="right")
        rim = np.abs(ladder / ladder[-1] - within[i]).min() < 1e-6  # float32 on the one side, float64 on the other
        assert found[i] == at or (rim and abs(found[i] - at) == 1)


def test_tastes_drift_from_what_the_profile_says_on_the_day_of_joining():
    config = WorldConfig(users=400, places=40, cities=1, seed=3)
    users, last = make_users(config), config.seasons - 1
    joined = season_of(config, users.joined)
    late = np.flatnonzero((joined > 0) & (joined < last))
    assert len(late) > 5
    for u in late.tolist():
        for season in range(config.seasons):
            tastes = Tastes.of(config, users, np.array([u]), season)
            share = config.numbers.drift * max(season - joined[u], 0) / last
            fine = (1 - share) * users.fine_pref[u] + share * users.later_fine[u]
            assert np.allclose(tastes.fine[0], fine / np.linalg.norm(fine), atol=1e-6)
            assert np.allclose(tastes.cat[0], (1 - share) * users.cat_pref[u] + share * users.later_cat[u], atol=1e-6)
    there = np.flatnonzero(joined == 0)[:5]
    fine = 0.6 * users.fine_pref[there] + 0.4 * users.later_fine[there]
    assert np.allclose(Tastes.of(config, users, there, last).fine, unit(fine), atol=1e-6)
    each = np.arange(len(late)) % config.seasons
    alone = [Tastes.of(config, users, late[i : i + 1], int(s)).fine[0] for i, s in enumerate(each)]
    assert (Tastes.of(config, users, late, each).fine == np.array(alone)).all(), "each in a season of its own"


def test_taste_of_a_block_is_the_seeds_score_pair_by_pair():
    config = WorldConfig(preset="seed", users=30, places=40, cities=2, seed=5)
    places, users = make_places(config), make_users(config)
    for city in make_cities(config, places):
        scores = city.taste(Tastes.of(config, users, np.arange(30), 0), config.numbers) + city.draw
        for u in range(0, 30, 7):
            for i, p in enumerate(city.ids):
                interest = cosine(users.fine_pref[u], places.tags[p])
                category = float(users.cat_pref[u] @ places.categories[p])
                area = float(users.area[u, places.neighborhood[p]])
                popular = np.log1p(places.popularity[p]) / 10.0
                expected = 0.4 * interest + 0.3 * category + 0.2 * area + 0.1 * popular
                assert scores[u, i] == pytest.approx(expected, abs=1e-5)
                one = pair_taste(config, users, places, np.array([u]), np.array([p]), np.array([config.start_us]))
                assert one[0] + city.draw[i] == pytest.approx(expected, abs=1e-5)


def test_places_are_not_alive_before_they_open():
    config = WorldConfig(**SIZE)
    places = make_places(config)
    ids = np.arange(300)
    assert (alive(places, ids, places.opened - 1)[places.opened > config.start_us] == 0).all()
    for moment in (config.start_us, config.end_us - 1):
        level = alive(places, ids, np.full(300, moment))
        assert ((level >= 0) & (level <= 1)).all()
        assert (level[places.opened <= moment] > 0).all()


def test_subset_draws_distinct_allowed_positions():
    allowed = np.tile([True, False, True, True, False, True], (5000, 1))
    drawn = subset(np.random.default_rng(1), allowed, np.full(5000, 2))
    assert (drawn.sum(axis=1) == 2).all()
    assert not drawn[:, [1, 4]].any()
    assert np.abs(drawn[:, [0, 2, 3, 5]].mean(axis=0) - 0.5).max() < 0.04


def test_groups_are_friends_who_are_alike():
    config = WorldConfig(**SIZE)
    users = make_users(config)
    alike = similar(config, users)
    known = set(zip(*(a.tolist() for a in alike), strict=True))
    groups = make_groups(config, users, alike)
    assert len(groups) > 50
    for group in groups.tolist():
        members = [m for m in group if m >= 0]
        assert len(members) == len(set(members)) >= 2
        assert all((members[0], m) in known for m in members[1:])
    u, v = group_pairs(np.array([[3, 1, 2, -1, -1, -1]]))
    assert sorted(zip(u.tolist(), v.tolist(), strict=True)) == [(1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("n", [3, 25, 26, 415, 416, 417, 431, 432, 3_001])  # with groups and without, some left over
def test_the_largest_are_those_of_a_sort(n):
    values = np.random.default_rng(n).integers(-40, 40, (64, n)).astype(np.float32)
    for k in {1, min(25, n), n}:
        found = largest(values, k)
        assert all(len(set(row)) == k for row in found.tolist())
        assert (np.sort(np.take_along_axis(values, found, axis=1)) == np.sort(values, axis=1)[:, n - k :]).all()


def test_friends_do_go_out_together(world):
    config, _, figures, _ = world
    met_twice = figures["edges_met_twice_share"]
    assert met_twice > 0.03 if config.preset == "city" else met_twice < 0.02


@pytest.mark.parametrize(("users", "places"), [(1, 1), (1, 300), (300, 1), (9, 41)])
@pytest.mark.parametrize("preset", ["city", "seed"])
def test_tiny_worlds_are_whole(preset, users, places, tmp_path):
    made = generate(WorldConfig(preset=preset, users=users, places=places), tmp_path)
    for name, table in TABLES.items():
        assert pq.read_schema(tmp_path / f"{name}.parquet").equals(table.arrow)
    assert made.figures["users"] == users
    assert json.dumps([made.figures, made.picture])


# --- configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, r"users must be >= 1 \(got 0\)"),
        ({"places": -3}, r"places must be >= 1 \(got -3\)"),
        ({"seed": -1}, r"seed must be from 0 to .* \(got -1\)"),
        ({"preset": "village"}, r"preset must be one of city, seed \(got 'village'\)"),
        ({"weeks": 0}, r"weeks must be from 1 to 520 \(got 0\)"),
        ({"cities": 99}, r"cities must be from 1 to \d+ \(got 99\)"),
        ({"neighborhoods": 31}, r"neighborhoods must be from 1 to 30.*names.*\(got 31\)"),
        ({"start": datetime(2024, 1, 2, tzinfo=UTC)}, r"start must be a Monday at midnight UTC \(got '2024-01-02"),
        ({"start": datetime(2024, 1, 1)}, r"start must be a Monday at midnight UTC"),  # noqa: DTZ001
        ({"cities": 2, "city_weights": (0.5, 0.4)}, r"city_weights must be 2 numbers > 0 that sum to 1 \(got \(0.5"),
        ({"city_weights": (1.0,)}, r"city_weights must be 8 numbers"),
    ],
)
def test_bad_configurations_are_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be a finite number > 0 \(got -1.0\)"),
        ({"price_aversion": -0.1}, r"price_aversion must be a finite number >= 0 \(got -0.1\)"),
        ({"drift": 1.1}, r"drift must be from 0 to 1 \(got 1.1\)"),
        ({"temperature": float("nan")}, r"temperature must be a finite number > 0 \(got nan\)"),
        ({"noise": -0.1}, r"noise must be a finite number >= 0"),
        ({"travel": 1.5}, r"travel must be from 0 to 1 \(got 1.5\)"),
        ({"w_interest": 0.9}, r"w_interest.* must be >= 0 and sum to 1 \(got \(0.9"),
        ({"top_k": 0}, r"top_k must be >= 1 \(got 0\)"),
        ({"sessions_per_week": (3.0, 1.0)}, r"sessions_per_week must be a pair \(low, high\)"),
    ],
)
def test_bad_parameters_are_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        Parameters(**change)


def test_bad_execution_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"chunk_users must be a positive multiple of 256 \(got 100\)"):
        generate(WorldConfig(**SIZE), tmp_path, chunk_users=100)
    with pytest.raises(ConfigError, match=r"workers must be >= 1 \(got 0\)"):
        generate(WorldConfig(**SIZE), tmp_path, workers=0)
    assert not list(tmp_path.iterdir())


# --- the job


def test_the_job_makes_a_world_once(tmp_path):
    def run(**options) -> dict:
        settings = Settings(data_dir=tmp_path, users=60, places=60, _env_file=None, **options.pop("settings", {}))
        report = Report("generate", settings.reports, Console(quiet=True))
        job.run(settings, report, **options)
        return report.figures

    assert run()["interactions"] > 0
    made = (tmp_path / "landing" / "users.parquet").stat().st_mtime_ns
    assert run()["unchanged"] is True
    assert (tmp_path / "landing" / "users.parquet").stat().st_mtime_ns == made
    assert run(force=True)["interactions"] > 0
    (tmp_path / "landing" / "friend_labels.parquet").unlink()
    assert "unchanged" not in run()
    assert "unchanged" not in run(settings={"seed": 43})


def test_a_run_that_stops_halfway_leaves_no_claim(tmp_path):
    config, folder = WorldConfig(users=60, places=60), tmp_path / "again"
    generate(config, folder)

    def stop(what: str, done: int, of: int) -> None:
        if what == "interactions":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(config, folder, stop)
    assert not (folder / "source.json").exists()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    generate(config, folder)
    generate(config, tmp_path / "undisturbed")
    assert digests(tmp_path / "again") == digests(tmp_path / "undisturbed")
