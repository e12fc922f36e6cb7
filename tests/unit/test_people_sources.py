"""What the sources say of a pair of people is what a loop over users, places and days says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifacts import save_artifact
from recsys.errors import ArtifactError
from recsys.sources import PEOPLE_SIGNALS, PEOPLE_SOURCES, SOURCES, Outings, PeopleSources
from recsys.sources.rows import binary, matrix, packed

N, M = 30, 12
HOME = (np.arange(N) >= 20).astype(np.int64)
NOTHING = np.zeros(0, dtype=np.int64)


def symmetric(u: np.ndarray, v: np.ndarray, n: int = N):
    return binary(matrix(np.ones(2 * len(u)), (np.concatenate([u, v]), np.concatenate([v, u])), (n, n)))


def history(seed: int = 5) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ties (some across cities), and visits (user, place, day) with repeats."""
    rng = np.random.Generator(np.random.Philox(seed))
    key = np.unique(rng.integers(0, N * N, 110))
    u, v = key // N, key % N
    visits = rng.integers(0, N - 2, 260), rng.integers(0, M, 260), rng.integers(700, 712, 260)  # two went nowhere
    return (u[u < v], v[u < v]), visits


@pytest.fixture(scope="module")
def sources() -> PeopleSources:
    ties, visits = history()
    return PeopleSources(symmetric(*ties), Outings.of(*visits, (N, M)), HOME)


def all_signals(sources: PeopleSources, users: np.ndarray, city: int) -> np.ndarray:
    everybody = np.tile(np.arange(len(sources.members(city))), (len(users), 1))
    return sources.signals(sources.ask(users, city), everybody)


@pytest.mark.parametrize("city", [0, 1])
def test_signals_equal_a_loop(sources: PeopleSources, city: int) -> None:
    ties, visits = history()
    friends = symmetric(*ties).toarray() > 0
    events = set(zip(*(x.tolist() for x in visits), strict=True))
    seen = np.zeros((N, M), dtype=bool)
    days = np.zeros(N)
    for u, p, _ in events:
        seen[u, p] = True
        days[u] += 1
    visitors, active = seen.sum(axis=0), seen.any(axis=1).sum()
    vector = seen * np.log(active / np.maximum(visitors, 1))
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    vector = np.divide(vector, length, out=np.zeros_like(vector), where=length > 0)
    degree = friends.sum(axis=1)
    members = np.flatnonzero(city == HOME)
    inside = city == HOME
    got = all_signals(sources, np.arange(N), city)
    for u in range(N):
        walk = friends[u] * inside / max(degree[u], 1)
        walks = []
        for _ in range(12):
            walks.append(walk)
            walk = np.array([
                sum(walk[w] / degree[w] for w in np.flatnonzero(friends[v] & inside)) * inside[v] for v in range(N)
            ])  # fmt: skip
        for at, v in enumerate(members):
            if u == v:
                continue
            common = [w for w in np.flatnonzero(friends[u] & friends[v]) if inside[w]]
            paths = [
                (a, b) for a in np.flatnonzero(friends[u] & inside) for b in np.flatnonzero(friends[a] & inside)
                if friends[b, v]
            ]  # fmt: skip
            both = np.flatnonzero(seen[u] & seen[v])
            met = [(p, d) for (w, p, d) in events if w == u and (v, p, d) in events]
            came = {(p, d): sum((w, p, d) in events for w in range(N)) for p, d in met}
            theirs = [w for w in np.flatnonzero(friends[v]) if inside[w]]
            ours = [w for w in np.flatnonzero(friends[u]) if inside[w]]
            rare = {p: 1 / np.log(max(visitors[p], 2)) for p in range(M)}
            expected = {
                "co_visits": vector[u] @ vector[v],
                "rare_places": np.log1p(sum(rare[p] for p in both)),
                "same_days": np.log1p(sum(rare[p] / (came[p, d] - 1) for p, d in met)),
                "adamic_adar": sum(1 / np.log(degree[w]) for w in common),
                "resource_allocation": sum(1 / degree[w] for w in common),
                "paths_3": np.log1p(len(paths)),
                "paths_3_even": np.log(
                    1e-3 + sum(1 / (degree[a] * degree[b]) for a, b in paths) / max(np.sqrt(degree[u] * degree[v]), 1)
                ),
                "walk": np.log(1e-6 + sum(0.15 * 0.85 ** (k + 1) * x[v] for k, x in enumerate(walks))),
                "walk_near": np.log(1e-6 + sum(0.5 * 0.5 ** (k + 1) * x[v] for k, x in enumerate(walks[:5]))),
                "friends_places": sum(vector[w] @ vector[v] for w in ours) / max(degree[u], 1),
                "places_friends": sum(vector[w] @ vector[u] for w in theirs) / max(degree[v], 1),
                "peer_friends": np.log1p(degree[v]), "peer_visits": np.log1p(days[v]),
                "friends_known": np.log1p(degree[u]), "visits": np.log1p(days[u]),
            }  # fmt: skip
            assert list(expected) == list(PEOPLE_SIGNALS)
            np.testing.assert_allclose(got[u, at], list(expected.values()), atol=2e-5, err_msg=f"{u} {v}")


def test_a_pair_has_the_signals_of_its_row(sources: PeopleSources) -> None:
    rng = np.random.default_rng(0)
    u, v = rng.integers(0, N, 300), rng.integers(0, N, 300)
    got = sources.pairs(u, v)
    for city in (0, 1):
        rows, members = all_signals(sources, np.arange(N), city), sources.members(city)
        here = HOME[v] == city
        np.testing.assert_allclose(got[here], rows[u[here], np.searchsorted(members, v[here])], atol=1e-6)
    assert sources.pairs(NOTHING, NOTHING).shape == (0, len(PEOPLE_SIGNALS))


def test_without_a_tie_everything_is_as_if_it_had_never_been(sources: PeopleSources) -> None:
    (u, v), visits = history()
    gone = np.zeros(len(u), dtype=bool)
    gone[::4] = True
    never = PeopleSources(symmetric(u[~gone], v[~gone]), Outings.of(*visits, (N, M)), HOME)
    left = sources.without(v[gone], u[gone])
    for city in (0, 1):
        np.testing.assert_array_equal(all_signals(left, np.arange(N), city), all_signals(never, np.arange(N), city))
    assert not np.array_equal(all_signals(left, np.arange(N), 0), all_signals(sources, np.arange(N), 0))


def test_candidates_are_named_by_who_named_them_and_never_oneself(sources: PeopleSources) -> None:
    users = np.arange(20)
    said = sources.ask(users, 0)
    near = np.stack([np.delete(np.arange(20), u)[:3] for u in users])
    position, marks = sources.candidates(said, 8, near)
    assert position.shape == marks.shape == (20, 8)
    for row in range(20):
        assert len(set(position[row].tolist())) == 8
        assert row not in position[row]
        for at, mark in zip(position[row], marks[row], strict=True):
            named = {name for bit, name in enumerate(PEOPLE_SOURCES) if mark >> bit & 1}
            assert named == {n for n in PEOPLE_SOURCES[:-1] if said.named[n][row, at] > 0} | (
                {"vector"} if at in near[row] else set()
            )
    everybody, _ = sources.candidates(said, 100)
    assert all(sorted(row.tolist()) == np.delete(np.arange(20), u).tolist() for u, row in enumerate(everybody))
    # someone of another city finds all twenty, by nothing where they know nobody and went nowhere with anybody
    away, _ = sources.candidates(sources.ask(np.array([25]), 0), 100)
    assert sorted(away[0].tolist()) == list(range(20))


@pytest.mark.parametrize(("n_ties", "n_visits"), [(None, None), (0, None), (None, 0), (0, 0)])
def test_what_they_say_survives_an_artifact(tmp_path: Path, n_ties: int | None, n_visits: int | None) -> None:
    (u, v), visits = history()
    friends = symmetric(u[:n_ties], v[:n_ties])
    before = PeopleSources(friends, Outings.of(*(x[:n_visits] for x in visits), (N, M)), HOME)
    kept = before.tensors() | packed("friends", friends) | {"city": torch.zeros(M, dtype=torch.int32)}
    after = PeopleSources.load(save_artifact(tmp_path, "v1", {}, tables={}, tensors={SOURCES: kept}).tensors(SOURCES))
    for city in (0, 1):
        expected = all_signals(before, np.arange(N), city)
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(all_signals(after, np.arange(N), city), expected)
        found = [x.candidates(x.ask(np.arange(N), city), 5) for x in (before, after)]
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    "change", ["people.home", "people.place", "people.days.data", "people.there.indptr", "friends.data"]
)
def test_tensors_that_do_not_fit_together_are_refused(sources: PeopleSources, change: str) -> None:
    kept = sources.tensors() | packed("friends", sources.friends) | {"city": torch.zeros(M, dtype=torch.int32)}
    for broken in ({k: t for k, t in kept.items() if k != change}, kept | {change: kept[change][:-1]}):
        with pytest.raises(ArtifactError, match="no tensors of the people's sources"):
            PeopleSources.load(broken)
    with pytest.raises(ArtifactError, match="no tensors of the people's sources"):
        PeopleSources.load(kept | {"people.place": kept["people.place"] + M})


def test_one_user_has_nobody_to_go_with() -> None:
    nowhere = Outings.of(NOTHING, NOTHING, NOTHING, (1, 0))
    alone = PeopleSources(symmetric(NOTHING, NOTHING, 1), nowhere, np.zeros(1, dtype=np.int64))
    said = alone.ask(np.array([0]), 0)
    assert alone.candidates(said, 10)[0].shape == (1, 0)
    assert alone.signals(said, np.zeros((1, 0), dtype=np.int64)).shape == (1, 0, len(PEOPLE_SIGNALS))
