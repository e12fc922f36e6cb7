"""What the sources say of a place is what a loop over users and places says, and nothing else decides a list."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.sources import PLACE_SIGNALS, PLACE_SOURCES, Memory, PlaceSources, Said, items, rows
from recsys.sources.alike import Alike
from recsys.sources.als import als_factors
from recsys.sources.latent import FACTORS, LATENT_SIGNALS, TASTE_WIDTHS, TASTES, Latent
from recsys.sources.rows import binary
from recsys.training.place_baselines import ItemKNN
from tests.parts import traits

N, M, K, T = 40, 30, 4, 9


@pytest.fixture(scope="module")
def memory() -> Memory:
    rng = np.random.Generator(np.random.Philox(5))
    city = (np.arange(M) >= 20).astype(np.int64)
    pairs = np.unique(rng.integers(0, N * M, 300))
    ties = np.unique(rng.integers(0, N * N, 60))
    a, b = ties // N, ties % N
    a, b = a[a != b], b[a != b]
    categories = np.zeros((M, K), dtype=np.float32)
    categories[np.arange(M), rng.integers(0, K, M)] = 1
    categories[:5, 0] = 1  # some have two
    tags = np.zeros((M, T), dtype=np.float32)
    tags[np.arange(M), rng.integers(0, T, M)] = 1
    tags[3:9, 1] = 1
    tags[9] = 0  # one has none
    return Memory.of(
        (pairs // M, pairs % M),
        rng.integers(1, 6, len(pairs)).astype(np.float32),
        rng.uniform(0, 200, len(pairs)).astype(np.float32),
        (np.concatenate([a, b]), np.concatenate([b, a])),
        city,
        traits(categories, tags),
        N,
    )


@pytest.fixture(scope="module")
def sources(memory: Memory) -> PlaceSources:
    return PlaceSources(memory)


def test_what_the_sources_say_to_one_is_what_they_say_to_one_among_many(sources: PlaceSources) -> None:
    def parts(said: Said) -> list[np.ndarray]:
        alone = [getattr(said, name) for name in ("cosine", "age", "latent", "user")]
        return [*said.named.values(), *alone, *said.alike, *said.kinds]

    many = parts(sources.ask(np.arange(N), 0))
    for u in range(N):
        for here, there in zip(parts(sources.ask(np.array([u]), 0)), many, strict=True):
            np.testing.assert_allclose(here[0], there[u], rtol=1e-5, atol=1e-5)


def test_signals_equal_a_loop(memory: Memory, sources: PlaceSources) -> None:
    users, places = np.arange(N), np.tile(np.arange(20), (N, 1))
    signals = sources.signals(sources.ask(users, 0), places)
    count, age = memory.counts.toarray(), memory.ages.toarray()
    friends, seen = memory.friends.toarray(), memory.counts.toarray()[:, :20] > 0
    visitors = seen.sum(axis=0)
    unit = seen * np.log(N / np.maximum(visitors, 1))
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    fading = seen * np.exp(-age[:, :20] / 60)
    for u in range(N):
        peers = np.array([unit[u] @ unit[v] if v != u else 0 for v in range(N)])  # fewer than are asked: all of them
        fits = {}
        for name, multi_hot in (("category", memory.traits.categories), ("tag", memory.traits.tags)):
            kinds = multi_hot / np.maximum(multi_hot.sum(axis=1, keepdims=True), 1)
            shares = (kinds[:20] * visitors[:, None]).sum(axis=0) + 1e-6
            shares = shares / shares.sum()
            taste = sum((kinds[p] for p in range(M) if count[u, p]), np.zeros(kinds.shape[1]))
            taste = (taste + 5 * shares) / (taste.sum() + 5)
            fits[name] = np.log(kinds @ taste + 1e-4)
            fits[f"{name}_lift"] = fits[name] - np.log(kinds @ shares + 1e-4)
        last = min((age[u, p] for p in range(20) if count[u, p]), default=np.inf)
        for p in range(20):
            late = [(age[:, q][count[:, q] > 0] <= 28).sum() for q in range(20)]
            cosine = [
                (seen[:, q] & seen[:, p]).sum() / np.sqrt(max(visitors[q], 1) * max(visitors[p], 1)) for q in range(20)
            ]
            mine = [q for q in range(20) if seen[u, q] and q != p]
            known = friends[u].sum()
            expected = {
                "visitors": np.log((1 + visitors[p]) / (1 + visitors.mean())),
                "visitors_28d": np.log((1 + late[p]) / (1 + np.mean(late))),
                "visits_a_visitor": np.log1p(count[:, p].sum() / max(visitors[p], 1)),
                "cosine": sum(cosine[q] for q in mine) / max(seen[u].sum(), 1),
                "cosine_recent": sum(cosine[q] * np.exp(-age[u, q] / 60) for q in mine),
                "alike": peers @ seen[:, p],
                "alike_recent": peers @ fading[:, p],
                "friends": np.log1p(sum(seen[v, p] for v in np.flatnonzero(friends[u]))),
                "friends_share": sum(seen[v, p] for v in np.flatnonzero(friends[u])) / max(known, 1),
                **{name: values[p] for name, values in fits.items()},
                "own_count": np.log1p(count[u, p]),
                "own_share": count[u, p] / max(count[u, :20].sum(), 1),
                "own_recency": np.exp(-age[u, p] / 30) if count[u, p] else 0,
                "breadth": np.log1p(seen[u].sum()),
                "friends_known": np.log1p(known),
                "silence": np.exp(-last / 30),
            }
            for name, value in expected.items():
                got = float(signals[u, p, PLACE_SIGNALS.index(name)])
                assert got == pytest.approx(float(value), abs=1e-5), (u, p, name)


def test_cosine_is_item_knn(memory: Memory, sources: PlaceSources) -> None:
    users, places = np.arange(N), np.tile(np.arange(20), (N, 1))
    signals = sources.signals(sources.ask(users, 0), places)
    here = memory.counts[:, :20].tocsr()
    knn = ItemKNN(here).scores(torch.from_numpy(users), torch.arange(20)).numpy()
    mine = np.maximum(np.diff(here.indptr), 1)[:, None]
    np.testing.assert_allclose(signals[..., PLACE_SIGNALS.index("cosine")], knn / mine, atol=1e-5)


@pytest.mark.parametrize("users", [N, 12])  # more users than places, and fewer: EASE is solved from the smaller side
def test_ease_is_its_closed_form_without_what_is_negative(memory: Memory, users: int) -> None:
    some = replace(
        memory, counts=memory.counts[:users], ages=memory.ages[:users], friends=memory.friends[:users, :users]
    )
    x = (some.counts[:, :20].toarray() > 0).astype(np.float64)
    x[:, x.sum(axis=0) == 0] = 0
    p = np.linalg.inv(x.T @ x + 500 * np.eye(20))
    weights = -p / np.diag(p)[None]
    np.fill_diagonal(weights, 0)
    sources = PlaceSources(some)
    signals = sources.signals(sources.ask(np.arange(users), 0), np.tile(np.arange(20), (users, 1)))
    expected = x @ np.maximum(weights, 0)
    np.testing.assert_allclose(signals[..., PLACE_SIGNALS.index("ease")], expected, atol=1e-5)


@pytest.mark.parametrize("users", [N, 12])  # EASE is too large from both sides, and from the places' alone
def test_what_is_too_large_for_ease_has_the_same_cosines(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, users: int
) -> None:
    seen = binary(memory.counts[:users, :20].tocsr())
    visitors = np.bincount(seen.indices, minlength=20)
    similar, ease = (x.toarray() for x in items.item_models(seen, visitors))
    monkeypatch.setattr(items, "_EASE_LIMIT", 12)
    monkeypatch.setattr(rows, "_BLOCK", 7)
    by_parts, left = (x.toarray() for x in items.item_models(seen, visitors))
    assert similar.any()
    assert np.array_equal(by_parts, similar)
    np.testing.assert_allclose(left, ease if users == 12 else 0, atol=1e-6)


def test_taste_is_the_low_pass_filter_of_the_visits() -> None:
    """More places than directions, so that some of what was seen is left out."""
    rng = np.random.Generator(np.random.Philox(1))
    n, m, kinds = 240, 200, np.ones((200, 1), dtype=np.float32)
    keys, none = np.unique(rng.integers(0, n, 3000) * m + rng.zipf(1.3, 3000) % m), np.zeros(0, dtype=np.int64)
    ones, city = np.ones(len(keys), dtype=np.float32), np.zeros(m, dtype=np.int64)
    sources = PlaceSources(Memory.of((keys // m, keys % m), ones, ones, (none, none), city, traits(kinds, kinds), n))
    x = np.zeros((n, m))
    x[keys // m, keys % m] = 1
    visits, visitors = np.maximum(x.sum(axis=1), 1), np.maximum(x.sum(axis=0), 1)
    _, _, v = np.linalg.svd(x / np.sqrt(visits)[:, None] / np.sqrt(visitors))
    got = sources.signals(sources.ask(np.arange(n), 0), np.tile(np.arange(m), (n, 1)))
    assert m > TASTES
    for width in TASTE_WIDTHS:
        low = v[:width].T @ v[:width]
        expected = (x / np.sqrt(visits)[:, None] / np.sqrt(visitors)) @ low * np.sqrt(visitors)
        np.testing.assert_allclose(got[..., PLACE_SIGNALS.index(f"taste_{width}")], expected, atol=1e-4)


def test_factors_are_those_of_least_squares_also_of_somebody_it_never_saw() -> None:
    """Nearly what the iterations end with, and exactly the users' side of one: eq. 4 of Hu et al. written out."""
    rng = np.random.Generator(np.random.Philox(3))
    n, m, users, places = 300, 60, rng.integers(0, 3, 300), rng.integers(0, 3, 60)
    seen = (rng.random((n, m)) < np.where(users[:, None] == places, 0.4, 0.03)).astype(np.float32)
    seen[7] = seen[:, 11] = 0  # somebody who was nowhere, and a place where nobody was
    latent = Latent.fit(csr_array(seen), seen.sum(axis=0).astype(np.int64))
    said = latent.ask(csr_array(seen))
    got = latent.signals(said, np.tile(np.arange(m), (n, 1)))[..., LATENT_SIGNALS.index("als")]
    y = latent.rows[:, -FACTORS:].astype(np.float64)
    normal = y.T @ y + 30 * np.eye(FACTORS)
    for user in range(0, n, 29):
        there = y[seen[user] > 0]
        x = np.linalg.solve(normal + 10 * there.T @ there, 11 * there.sum(axis=0))
        np.testing.assert_allclose(got[user], y @ x, atol=1e-5)
    x, y = als_factors(csr_array(seen), factors=FACTORS, regularization=30, alpha=10, iterations=15, exact=True)
    assert np.corrcoef((x @ y.T).ravel(), got.ravel())[0, 1] > 0.99
    assert (got[7] == 0).all()
    assert (got[:, 11] == 0).all()
    same = users[:, None] == places
    assert got[same & (seen == 0)].mean() > got[~same & (seen == 0)].mean() + 0.1


def test_alike_are_the_nearest_alone() -> None:
    """Of more users than count, those of the highest cosine, and nobody is one's own peer."""
    rng = np.random.Generator(np.random.Philox(2))
    seen = (rng.random((300, 40)) < 0.2).astype(np.float32)
    seen[1::9] = 0  # who were nowhere are nobody's peers
    rows = csr_array(seen)
    alike = Alike.of(rows, csr_array(rows * 0.5), seen.sum(axis=0).astype(np.int64))
    ever, fading = alike.ask(np.arange(5), csr_array(seen[:5]))
    unit = seen * np.log(300 / seen.sum(axis=0))
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    cosine = unit[:5] @ unit.T
    cosine[np.arange(5), np.arange(5)] = 0
    cosine[cosine < np.sort(cosine, axis=1)[:, -200:-199]] = 0
    np.testing.assert_allclose(ever, cosine @ seen, atol=1e-4)
    np.testing.assert_allclose(fading, ever / 2, atol=1e-4)
    few = csr_array(seen[:4])
    among_few = Alike.of(few, few, seen[:4].sum(axis=0).astype(np.int64))
    now = csr_array(np.ones((1, 40), dtype=np.float32))
    told, _ = among_few.ask(np.array([1]), now)  # went out since: all others count
    assert (told[0] > 0).tolist() == ((seen[:4].sum(axis=0) > 0) & (seen[:4].sum(axis=0) < 4)).tolist()


def test_a_list_holds_own_places_and_says_who_named_them(memory: Memory, sources: PlaceSources) -> None:
    users = np.arange(N)
    said = sources.ask(users, 0)
    near = np.tile(np.arange(3), (N, 1))
    position, marks = sources.candidates(said, 12, near)
    own = memory.counts[:, :20].toarray() > 0
    for u in range(N):
        listed = set(position[u].tolist())
        assert len(listed) == 12
        mine = set(np.flatnonzero(own[u]).tolist())
        assert mine <= listed if len(mine) <= 12 else listed <= mine
        for p, mark in zip(position[u].tolist(), marks[u].tolist(), strict=True):
            named = {name for bit, name in enumerate(PLACE_SOURCES) if mark >> bit & 1}
            assert ("own" in named) == bool(own[u, p])
            assert ("vector" in named) == (p < 3)
    without, _ = sources.candidates(said, 8, near, without=own)
    for u in range(N):
        if own[u].sum() <= 12:
            assert not own[u, without[u]].any()


def test_a_small_city_gives_all_it_has(sources: PlaceSources) -> None:
    position, _ = sources.candidates(sources.ask(np.arange(3), 1), 200)
    assert [sorted(row) for row in position.tolist()] == [list(range(10))] * 3


def test_nobody_and_nowhere_to_have_been() -> None:
    none = np.zeros(0, dtype=np.int64)
    city, categories = np.zeros(3, dtype=np.int64), np.zeros((3, 2), dtype=np.float32)
    empty = Memory.of((none, none), np.zeros(0), np.zeros(0), (none, none), city, traits(categories, categories), 2)
    sources = PlaceSources(empty)
    said = sources.ask(np.arange(2), 0)
    position, _ = sources.candidates(said, 5)
    assert position.shape == (2, 3)
    assert np.isfinite(sources.signals(said, position)).all()
