"""The seed document's section 7, transcribed line by line: slow, literal, with random streams of its own.

It shares no code with `recsys.world`, so that preset `seed` can be held against it. Where the amendments
depart from the document, so does this: tags belong to categories by meaning (7), friend labels follow section 2.6 (5),
negatives are half random and half from the same city with a shared area (5), and city weights are handed in instead of
drawn from numpy's global state.
"""

from collections import defaultdict
from itertools import combinations

import numpy as np

from recsys.constants import TAG_CATEGORY

WEEKS = 12
NEIGHBORHOODS = 15
CATEGORIES, TAGS, VIBES = 6, 100, 30


def cosine(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return 0.0 if norms == 0 else float(np.dot(a, b) / norms)


def make_place(rng, weights):
    city = rng.choice(len(weights), p=weights)
    neighborhood = rng.integers(0, NEIGHBORHOODS)
    count = rng.choice([1, 2], p=[0.7, 0.3])
    categories = rng.choice(CATEGORIES, size=count, replace=False).tolist()
    one_hot = np.zeros(CATEGORIES)
    for category in categories:
        one_hot[category] = 1.0 / count
    candidates = [tag for tag in range(TAGS) if TAG_CATEGORY[tag] in categories]
    selected = rng.choice(candidates, size=min(rng.integers(3, 8), len(candidates)), replace=False)
    tags = np.zeros(TAGS)
    tags[selected] = rng.exponential(scale=1.0, size=len(selected))
    if city in (0, 1):
        price = rng.choice([2, 3, 4], p=[0.3, 0.5, 0.2])
    else:
        price = rng.choice([0, 1, 2, 3], p=[0.3, 0.4, 0.2, 0.1])
    slot = rng.integers(0, 6)
    popularity = rng.lognormal(mean=1.0, sigma=1.0)
    return {
        "city": city,
        "neighborhood": neighborhood,
        "one_hot": one_hot,
        "tags": tags / tags.sum(),
        "price": price,
        "slot": slot,
        "popularity": popularity,
        "daily_visits": popularity * rng.uniform(0.8, 1.2) * 10,
        "conversion": min(0.95, max(0.05, rng.beta(2, 5) * (popularity / 10))),
        "novelty": 1.0 / (1.0 + np.log1p(popularity)),
    }


def make_user(rng, weights):
    city = rng.choice(len(weights), p=weights)
    neighborhood = rng.integers(0, NEIGHBORHOODS)
    cat = rng.dirichlet([2.0] * CATEGORIES)
    alpha = np.ones(TAGS) * 0.1
    for tag in range(TAGS):
        if cat[TAG_CATEGORY[tag]] > 0.1:
            alpha[tag] += cat[TAG_CATEGORY[tag]] * 1.0 * 5
    fine = rng.dirichlet(alpha)
    count = rng.integers(3, 11)
    vibe = np.zeros(VIBES)
    vibe[rng.choice(VIBES, size=count, replace=False)] = rng.exponential(scale=1.0, size=count)
    ranges = ((1.0, 8.0), (10.0, 80.0), (0.5, 5.0), (0.2, 3.0), (1.0, 12.0))
    behavior = [rng.uniform(*r) for r in ranges]
    count = rng.integers(1, 4)
    frequent = rng.choice(NEIGHBORHOODS, size=count, replace=False)
    areas = dict(zip(frequent.tolist(), rng.dirichlet([3.0] * count).tolist(), strict=True))
    return {
        "city": city,
        "neighborhood": neighborhood,
        "cat": cat,
        "fine": fine,
        "vibe": vibe / vibe.sum(),
        "behavior": behavior,
        "areas": areas,
    }


def preference(user, place):
    score = (
        0.4 * cosine(user["fine"], place["tags"])
        + 0.3 * np.dot(user["cat"], place["one_hot"])
        + 0.2 * user["areas"].get(place["neighborhood"], 0.0)
        + 0.1 * np.log1p(place["popularity"]) / 10.0
    )
    return max(0.0, score)


def rating_of(dwell, likes, saves, shares, attended):
    score = 1.0
    score += min(dwell / 150.0, 2.0)
    score += min(likes * 0.5, 1.5)
    score += min(saves * 1.0, 2.0)
    score += min(shares * 0.5, 1.0)
    if attended:
        score += 2.0
    return min(score, 5.0)


def interactions_of(rng, number, user, places):
    sessions, views = user["behavior"][:2]
    n = int(np.clip(int(sessions * WEEKS * views / 10.0), 50, 500))
    pool = [p for p, place in enumerate(places) if place["city"] == user["city"]]
    if len(pool) < 20 or rng.random() >= 0.9:
        pool = list(range(len(places)))
    scores = np.array([preference(user, places[p]) for p in pool])
    scores = np.maximum(scores + rng.normal(0, 0.1, size=len(scores)), 0.0)
    odds = np.exp(scores - scores.max())
    rows = []
    for at in rng.choice(len(pool), size=n, replace=True, p=odds / odds.sum()):
        score = scores[at]
        dwell = max(5.0, min(600.0, 30.0 + score * 200.0 + rng.exponential(50.0)))
        action = min(0.95, score * 2.0)
        likes, saves, shares = (int(rng.random() < action * share) for share in (0.7, 0.4, 0.2))
        attended = bool(rng.random() < action * 0.1)
        day, hour = rng.integers(0, WEEKS * 7), rng.integers(0, 24)
        rating = rating_of(dwell, likes, saves, shares, attended)
        rows.append((number, pool[at], int(day), int(hour), dwell, likes, saves, shares, attended, rating))
    # the contract's key: a user is at a place at a moment once
    return list({(row[1], row[2], row[3]): row for row in rows}.values())


def social(rng, users, interactions):
    there = defaultdict(set)
    for user, place, day, *_, attended, _rating in interactions:
        if attended:
            there[place, day].add(user)
    met = defaultdict(int)
    for together in there.values():
        for pair in combinations(sorted(together), 2):
            met[pair] += 1
    edges = {}
    for a, user in enumerate(users):
        near = [
            (b, cosine(user["fine"], o["fine"])) for b, o in enumerate(users) if b != a and o["city"] == user["city"]
        ]
        near.sort(key=lambda x: -x[1])
        for b, likeness in near[:50]:
            if likeness >= 0.3:
                pair = (min(a, b), max(a, b))
                here, other = set(user["areas"]), set(users[b]["areas"])
                edges[pair] = (likeness, met.get(pair, 0), len(here & other) / len(here | other))
    labels = {}
    for pair in {*edges, *met}:
        likeness = cosine(users[pair[0]]["fine"], users[pair[1]]["fine"])
        if (pair in edges and likeness >= 0.6) or met.get(pair, 0) >= 2:
            labels[pair] = (1, likeness, met.get(pair, 0))
    wanted = round(0.2 * len(labels))
    for near in (False, True):
        found = 0
        while found < (wanted // 2 if near else wanted - wanted // 2):
            u, v = (int(x) for x in sorted(rng.choice(len(users), size=2, replace=False)))
            a, b = users[u], users[v]
            if near and (a["city"] != b["city"] or not set(a["areas"]) & set(b["areas"])):
                continue
            likeness = cosine(a["fine"], b["fine"])
            if (u, v) not in labels and likeness < 0.3 and not met.get((u, v), 0):
                labels[u, v] = (0, likeness, 0)
                found += 1
    return edges, labels


def transcribed(n_users, n_places, weights, seed):
    """The tables as lists: places, users (dicts), interactions (tuples), edges and labels (by pair)."""
    weights = np.array(weights)
    places = [make_place(rng, weights) for rng in [np.random.default_rng(seed)] for _ in range(n_places)]
    users = [make_user(rng, weights) for rng in [np.random.default_rng(seed + 1)] for _ in range(n_users)]
    rng = np.random.default_rng(seed + 2)
    interactions = [row for u, user in enumerate(users) for row in interactions_of(rng, u, user, places)]
    edges, labels = social(np.random.default_rng(seed + 3), users, interactions)
    return places, users, interactions, edges, labels
