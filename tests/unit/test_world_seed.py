"""Preset `seed` against the seed document's section 7, transcribed: the same distributions, if not the same draws."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.schemas import TABLES
from recsys.world import WorldConfig, generate
from recsys.world.config import PRESETS
from tests.seed_transcription import cosine, transcribed

USERS = PLACES = 400
WEIGHTS = (0.5, 0.3, 0.2)
CONFIG = WorldConfig(preset="seed", users=USERS, places=PLACES, seed=11, cities=3, city_weights=WEIGHTS)

Samples = dict[str, np.ndarray]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic."""
    a, b = np.sort(a.astype(np.float32)), np.sort(b.astype(np.float32))  # equal values are equal in the tables' type
    at = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max())


def critical(n: int, m: int) -> float:
    """The distance that chance exceeds once in ten thousand tests (Smirnov, 1948)."""
    return float(np.sqrt(-np.log(0.0001 / 2) / 2 * (n + m) / (n * m)))


def by_user(user: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of each user: rows of one user are not independent of each other, users are."""
    return np.bincount(user, values, USERS) / np.maximum(np.bincount(user, minlength=USERS), 1)


def samples(places, users, interactions, edges, labels) -> Samples:
    """Independent samples of everything that the formulas say."""
    tags, fine = np.array([p["tags"] for p in places]), np.array([u["fine"] for u in users])
    cat, one_hot = np.array([u["cat"] for u in users]), np.array([p["one_hot"] for p in places])
    price, city = np.array([p["price"] for p in places]), np.array([p["city"] for p in places])
    popularity = np.array([p["popularity"] for p in places])
    user, place, day, hour = (np.array([row[i] for row in interactions]) for i in range(4))
    likeness = (
        (tags[place] * fine[user]).sum(1) / np.linalg.norm(tags[place], axis=1) / np.linalg.norm(fine[user], axis=1)
    )
    home = np.array([u["city"] for u in users])
    degree = np.bincount(np.array(list(edges)).ravel(), minlength=USERS)
    positive = [(p, m) for compat, p, m in labels.values() if compat]
    # What all of a city share is one draw, not many: it is taken out.
    sizes, visits, drawing = np.bincount(city), np.bincount(place, minlength=PLACES), np.log1p(popularity)
    per_city, city_drawing = np.bincount(city, visits) / sizes, np.bincount(city, drawing) / sizes
    found = {
        "popularity": popularity,
        "daily visits over popularity": np.array([p["daily_visits"] for p in places]) / popularity,
        "conversion": np.array([p["conversion"] for p in places]),
        "novelty": np.array([p["novelty"] for p in places]),
        "price in expensive cities": price[city < 2],
        "price elsewhere": price[city >= 2],
        "slot": np.array([p["slot"] for p in places]),
        "neighbourhood of places": np.array([p["neighborhood"] for p in places]),
        "tags of a place": (tags > 0).sum(1),
        "largest tag of a place": tags.max(1),
        "categories of a place": (one_hot > 0).sum(1),
        "largest category of a user": cat.max(1),
        "smallest category of a user": cat.min(1),
        "largest tag of a user": fine.max(1),
        "length of tastes": np.linalg.norm(fine, axis=1),
        "vibes of a user": np.array([(u["vibe"] > 0).sum() for u in users]),
        "largest vibe": np.array([u["vibe"].max() for u in users]),
        "areas of a user": np.array([len(u["areas"]) for u in users]),
        "largest area": np.array([max(u["areas"].values()) for u in users]),
        "interactions of a user": np.bincount(user, minlength=USERS),
        "interactions of a place, over its city's mean": visits / per_city[city],
        "likeness of what a user visits": by_user(user, likeness),
        "category of what a user visits": by_user(user, (cat[user] * one_hot[place]).sum(1)),
        "popularity of what a user visits, over the city's": by_user(user, drawing[place] - city_drawing[home[user]]),
        "share of a user's visits abroad": by_user(user, (city[place] != home[user]).astype(float)),
        "day": by_user(user, day.astype(float)),
        "hour": by_user(user, hour.astype(float)),
        "hours apart": by_user(user, (hour - 11.5) ** 2),
        "edges of a user": degree,
        "overlap of edges": np.array([e[0] for e in edges.values()])[::50],  # edges share users: thinned
        "areas shared by edges": np.array([e[2] for e in edges.values()])[::50],
        "meetings of edges": np.array([e[1] for e in edges.values()]),
        "overlap of compatible pairs": np.array([p for p, _ in positive])[::20],
        "overlap of incompatible pairs": np.array([p for compat, p, _ in labels.values() if not compat]),
    }
    for i, name in enumerate(("dwell", "likes", "saves", "shares", "attended", "rating")):
        found[f"{name} of a user"] = by_user(user, np.array([row[4 + i] for row in interactions], dtype=float))
    for i, name in enumerate(("sessions", "views", "likes", "saves", "attendances")):
        found[f"usual {name}"] = np.array([u["behavior"][i] for u in users])
    return found


def generated(config: WorldConfig, folder) -> Samples:
    """The same of a generated world."""
    generate(config, folder)
    t = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES}
    behavior = [c for c in TABLES["users"].columns if c.startswith("avg_")]
    places = [
        {"city": p["city_id"], "neighborhood": p["neighborhood_id"], "one_hot": np.array(p["category_one_hot"]),
         "tags": np.array(p["fine_tag_vector"]), "price": p["price_band"], "slot": p["typical_time_slot"],
         "popularity": p["base_popularity"], "daily_visits": p["avg_daily_visits"], "conversion": p["conversion_rate"],
         "novelty": p["novelty_score"]}
        for p in t["places"]
    ]  # fmt: skip
    users = [
        {"city": u["home_city_id"], "cat": np.array(u["cat_pref"]), "fine": np.array(u["fine_pref"]),
         "vibe": np.array(u["vibe_pref"]), "areas": dict(u["area_freqs"]), "behavior": [u[b] for b in behavior]}
        for u in t["users"]
    ]  # fmt: skip
    interactions = [
        (r["user_id"], r["place_id"], (r["timestamp"] - config.start).days, r["timestamp"].hour, r["dwell_time"],
         r["num_likes"], r["num_saves"], r["num_shares"], r["attended"], r["implicit_rating"])
        for r in t["interactions"]
    ]  # fmt: skip
    edges = {
        (e["user_u"], e["user_v"]): (e["interest_overlap_score"], e["co_attendance_count"], e["same_neighborhood_freq"])
        for e in t["user_user_edges"]
    }
    labels = {
        (x["user_u"], x["user_v"]): (
            x["label_compat"],
            cosine(users[x["user_u"]]["fine"], users[x["user_v"]]["fine"]),
            edges.get((x["user_u"], x["user_v"]), (0, 0, 0))[1],
        )
        for x in t["friend_labels"]
    }
    found = samples(places, users, interactions, edges, labels)
    attends = [x["label_attend"] for x in t["friend_labels"] if x["label_compat"]]
    return found | {"attends": np.array(attends, dtype=float)}


@pytest.fixture(scope="module")
def expected() -> Samples:
    places, users, interactions, edges, labels = transcribed(USERS, PLACES, WEIGHTS, seed=5)
    found = samples(places, users, interactions, edges, labels)
    positive = np.array([(p, m) for compat, p, m in labels.values() if compat])
    draws = np.random.default_rng(6).random(len(positive))
    attend = np.minimum(0.95, PRESETS["seed"].attend_scale * positive[:, 0] * (1 + positive[:, 1] / 10))
    return found | {"attends": (draws < attend).astype(float)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Samples:
    return generated(CONFIG, tmp_path_factory.mktemp("seed"))


def too_far(ours: Samples, expected: Samples) -> dict[str, tuple[float, float]]:
    """Name → (distance, what chance allows) of every sample that differs."""
    assert set(ours) == set(expected)
    found = {
        name: (distance(ours[name], expected[name]), critical(len(ours[name]), len(expected[name]))) for name in ours
    }
    return {name: pair for name, pair in found.items() if pair[0] > pair[1]}


def test_every_distribution_is_the_documents(ours, expected):
    assert too_far(ours, expected) == {}


def test_means_and_quantiles_are_the_documents(ours, expected):
    for name, sample in ours.items():
        other = expected[name]
        error = np.sqrt(sample.var() / len(sample) + other.var() / len(other))
        assert abs(sample.mean() - other.mean()) <= 4 * error + 1e-6, name
    for name in (
        "popularity",
        "largest tag of a user",
        "dwell of a user",
        "rating of a user",
        "interactions of a user",
    ):
        for q in (0.1, 0.25, 0.5, 0.75, 0.9):
            at = np.quantile(expected[name], q)
            share = (ours[name] <= at).mean()
            assert abs(share - q) <= 4 * np.sqrt(2 * q * (1 - q) / USERS), f"{name} at {q}"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"popularity_sigma": 2.0}, "popularity"),
        ({"alpha_fine": 4.0}, "length of tastes"),
        ({"temperature": 0.3}, "category of what a user visits"),
        ({"noise": 0.0}, "dwell of a user"),
        ({"travel": 0.3}, "share of a user's visits abroad"),
        ({"top_k": 40}, "edges of a user"),
    ],
)
def test_another_formula_would_be_noticed(change, differs, expected, tmp_path):
    other = generated(replace(CONFIG, parameters=replace(PRESETS["seed"], **change)), tmp_path)
    assert differs in too_far(other, expected)
