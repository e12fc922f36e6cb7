"""Simple methods against loops that follow the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from recsys.errors import ConfigError
from recsys.training import place_baselines
from recsys.training.als import Als
from recsys.training.baselines import Blend, Scores
from recsys.training.people_baselines import (
    AdamicAdar,
    CommonNeighbours,
    CoVisits,
    Degree,
    Jaccard,
    Katz,
    PersonalizedPageRank,
)
from recsys.training.place_baselines import AnyOrder, Ease, FriendsVisited, ItemKNN, OwnVisits, PopularPlaces
from recsys.training.protocols import friend_graph, incidence

N_USERS, N_PLACES = 14, 11


def everything(method: Scores, n_users: int = N_USERS, n_columns: int = N_PLACES) -> np.ndarray:
    return method.scores(torch.arange(n_users), torch.arange(n_columns)).double().numpy()


@pytest.fixture
def counts() -> np.ndarray:
    """(14, 11) visits, with a user and a place that have none."""
    rng = np.random.default_rng(4)
    out = rng.integers(1, 5, (N_USERS, N_PLACES)) * (rng.random((N_USERS, N_PLACES)) < 0.35)
    out[5], out[:, 7] = 0, 0
    return out


@pytest.fixture
def edges() -> np.ndarray:
    return np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 0], [1, 4], [4, 6], [6, 0], [8, 2], [8, 4], [9, 10]])


def visits(counts: np.ndarray):
    user, place = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.reshape(-1), axis=1)
    return incidence(user, place, counts.shape)


def test_popularity_counts_visitors_and_not_visits(counts: np.ndarray) -> None:
    scores = everything(PopularPlaces(visits(counts)))
    np.testing.assert_array_equal(scores, np.tile((counts > 0).sum(axis=0), (N_USERS, 1)))


def test_own_visits_come_first_and_popularity_decides_among_equal_counts(counts: np.ndarray) -> None:
    scores, popular = everything(OwnVisits(visits(counts))), (counts > 0).sum(axis=0)
    for user in range(N_USERS):
        by_hand = sorted(range(N_PLACES), key=lambda p: (counts[user, p], popular[p]), reverse=True)
        ours = sorted(range(N_PLACES), key=lambda p: scores[user, p], reverse=True)
        assert [(counts[user, p], popular[p]) for p in ours] == [(counts[user, p], popular[p]) for p in by_hand]


def test_item_knn_sums_cosines_of_other_places(counts: np.ndarray) -> None:
    x, expected = counts > 0, np.zeros((N_USERS, N_PLACES))
    for user in range(N_USERS):
        for place in range(N_PLACES):
            for mine in np.flatnonzero(x[user]):
                if mine != place and x[:, place].any():
                    both = (x[:, mine] & x[:, place]).sum()
                    expected[user, place] += both / math.sqrt(x[:, mine].sum() * x[:, place].sum())
    np.testing.assert_allclose(everything(ItemKNN(visits(counts))), expected, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.5, 500.0])
@pytest.mark.parametrize("few_users", [True, False])
def test_ease_equals_the_closed_form_from_both_sides(counts: np.ndarray, penalty: float, few_users: bool) -> None:
    counts = counts[:9] if few_users else counts
    x = (counts > 0).astype(float)
    inverse = np.linalg.inv(x.T @ x + penalty * np.eye(N_PLACES))
    weights = np.zeros((N_PLACES, N_PLACES))
    for i in range(N_PLACES):
        for j in range(N_PLACES):
            if i != j:
                weights[i, j] = -inverse[i, j] / inverse[j, j]
    method = Ease(visits(counts), penalty=penalty)
    assert method._by_user is few_users  # both branches are run
    np.testing.assert_allclose(everything(method, len(counts)), x @ weights, atol=2e-6)


def test_ease_scores_some_candidates_in_the_order_asked_for(counts: np.ndarray) -> None:
    method = Ease(visits(counts))
    full = everything(method)
    some = method.scores(torch.tensor([9, 5, 2]), torch.tensor([10, 7, 0, 3])).numpy()
    np.testing.assert_allclose(some, full[[9, 5, 2]][:, [10, 7, 0, 3]], atol=1e-7)
    assert (some[1] == 0).all()  # a user without a visit
    assert (some[:, 1] == 0).all()  # a place without one


def test_ease_refuses_what_is_too_large(counts: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ease.fits(visits(counts))
    monkeypatch.setattr(place_baselines, "EASE_LIMIT", 9)
    assert Ease.fits(visits(counts[:8]))  # few users are enough
    assert not Ease.fits(visits(counts))
    with pytest.raises(ConfigError, match=r"at most 9 \(got 10 places and 12 users with a visit\)"):
        Ease(visits(counts))
    with pytest.raises(ConfigError, match="penalty of EASE"):
        Ease(visits(counts[:8]), penalty=0.0)


def test_ease_of_no_visits_scores_nothing() -> None:
    assert (everything(Ease(visits(np.zeros((3, 4), dtype=int))), 3, 4) == 0).all()


def test_friends_visited_counts_friends_and_not_their_visits(counts: np.ndarray, edges: np.ndarray) -> None:
    graph = friend_graph(edges, n_users=N_USERS)
    expected = graph.toarray() @ (counts > 0)
    np.testing.assert_array_equal(everything(FriendsVisited(visits(counts), graph)), expected)


def test_degree_common_neighbours_and_adamic_adar_by_sets(edges: np.ndarray) -> None:
    friends: dict[int, set[int]] = {u: set() for u in range(N_USERS)}
    for a, b in edges.tolist():
        friends[a].add(b)
        friends[b].add(a)
    graph = friend_graph(edges, n_users=N_USERS)
    degree, common, adamic_adar = (
        everything(method, N_USERS, N_USERS) for method in (Degree(graph), CommonNeighbours(graph), AdamicAdar(graph))
    )
    for a in range(N_USERS):
        for b in range(N_USERS):
            shared = friends[a] & friends[b]
            assert degree[a, b] == len(friends[b])
            assert common[a, b] == len(shared)
            if a != b:
                assert adamic_adar[a, b] == pytest.approx(sum(1 / math.log(len(friends[z])) for z in shared))


def test_jaccard_is_shared_friends_over_all_friends(edges: np.ndarray) -> None:
    graph = friend_graph(edges, n_users=N_USERS)
    friends = [set(np.flatnonzero(row).tolist()) for row in graph.toarray()]
    scores = everything(Jaccard(graph), N_USERS, N_USERS)
    for a in range(N_USERS):
        for b in range(N_USERS):
            either = friends[a] | friends[b]
            assert scores[a, b] == pytest.approx(len(friends[a] & friends[b]) / len(either) if either else 0.0)


def test_katz_counts_every_path_by_walking_it(edges: np.ndarray) -> None:
    graph = friend_graph(edges, n_users=N_USERS)
    friends = [np.flatnonzero(row).tolist() for row in graph.toarray()]
    scores = everything(Katz(graph, beta=0.1, length=4), N_USERS, N_USERS)
    for user in range(N_USERS):
        expected, ends = np.zeros(N_USERS), [user]
        for length in range(1, 5):
            ends = [there for here in ends for there in friends[here]]
            for end in ends:
                expected[end] += 0.1**length
        np.testing.assert_allclose(scores[user], expected, atol=1e-12)
    some = Katz(graph, beta=0.1).scores(torch.tensor([6, 2]), torch.tensor([9, 0, 4])).numpy()
    np.testing.assert_allclose(some, scores[[6, 2]][:, [9, 0, 4]])
    # all paths, while beta is below 1 / the largest eigenvalue
    full = np.linalg.inv(np.eye(N_USERS) - 0.005 * graph.toarray()) - np.eye(N_USERS)
    np.testing.assert_allclose(everything(Katz(graph, length=30), N_USERS, N_USERS), full, atol=1e-12)
    for wrong in ({"beta": 0.0}, {"beta": 1.0}, {"length": 1}):
        with pytest.raises(ConfigError, match="Katz needs beta"):
            Katz(graph, **wrong)


@pytest.mark.parametrize("restart", [0.05, 0.15, 0.6])
def test_pagerank_is_where_a_walk_with_restarts_is(edges: np.ndarray, restart: float) -> None:
    graph = friend_graph(edges, n_users=N_USERS)
    friends = [np.flatnonzero(row).tolist() for row in graph.toarray()]
    scores = everything(PersonalizedPageRank(graph, restart=restart), N_USERS, N_USERS)
    for user in range(N_USERS):
        if not friends[user]:  # nobody is ever met
            assert np.delete(scores[user], user).sum() == 0
            continue
        share = np.eye(N_USERS)[user]
        for _ in range(600):
            after = restart * np.eye(N_USERS)[user]
            for here in range(N_USERS):
                for there in friends[here]:
                    after[there] += (1 - restart) * share[here] / len(friends[here])
            share = after
        np.testing.assert_allclose(scores[user], share, rtol=2e-6, atol=1e-8)
        assert scores[user].sum() == pytest.approx(1.0)


def test_pagerank_in_blocks_and_out_of_range(edges: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = friend_graph(edges, n_users=N_USERS)
    whole = everything(PersonalizedPageRank(graph), N_USERS, N_USERS)
    monkeypatch.setattr("recsys.training.people_baselines._AT_ONCE", 3)
    some = PersonalizedPageRank(graph).scores(torch.tensor([6, 2, 9, 0]), torch.tensor([9, 0, 4])).numpy()
    np.testing.assert_allclose(some, whole[[6, 2, 9, 0]][:, [9, 0, 4]], rtol=1e-6)
    for restart in (0.0, 1.0):
        with pytest.raises(ConfigError, match="restart of PageRank"):
            PersonalizedPageRank(graph, restart=restart)


def test_any_order_prefers_nothing() -> None:
    assert (everything(AnyOrder()) == 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_als_solves_every_place_exactly_given_the_users(counts: np.ndarray, weighted: bool) -> None:
    """Eq. 5 of the paper with all cells written out: after the last half step it holds to the rounding."""
    method = Als(visits(counts), factors=3, regularization=0.7, alpha=2.5, counts=weighted)
    x, found = method.user.double().numpy(), method.place.double().numpy()
    for place in range(N_PLACES):
        normal, right = 0.7 * np.eye(3), np.zeros(3)
        for user in range(N_USERS):
            r = counts[user, place] if weighted else float(counts[user, place] > 0)
            normal += (1 + 2.5 * r) * np.outer(x[user], x[user])
            right += (1 + 2.5 * r) * (counts[user, place] > 0) * x[user]
        np.testing.assert_allclose(found[place], np.linalg.solve(normal, right), atol=1e-4)
    scores = everything(method)
    np.testing.assert_allclose(scores, x @ found.T, atol=1e-5)
    assert scores[5].tolist() == [0.0] * N_PLACES
    assert (scores[:, 7] == 0).all()
    assert scores[counts > 0].mean() > scores[counts == 0].mean()


def test_als_is_the_same_every_time_and_refuses_what_is_out_of_range(counts: np.ndarray) -> None:
    first, again = (everything(Als(visits(counts), factors=4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for wrong in ({"factors": 0}, {"iterations": 0}, {"alpha": 0.0}, {"regularization": 0.0}):
        with pytest.raises(ConfigError, match="of ALS must be"):
            Als(visits(counts), **wrong)


def test_co_visits_are_cosines_of_rare_places(counts: np.ndarray) -> None:
    counts[:, 0] = 1  # everybody goes there: it says nothing
    counts[5, 0] = 0
    x = (counts > 0).astype(float)
    active = int((x.sum(axis=1) > 0).sum())
    rarity = np.array([math.log(active / n) if n else 0.0 for n in x.sum(axis=0)])
    scores = everything(CoVisits(visits(counts)), N_USERS, N_USERS)
    for a in range(N_USERS):
        for b in range(N_USERS):
            u, v = x[a] * rarity, x[b] * rarity
            length = np.linalg.norm(u) * np.linalg.norm(v)
            assert scores[a, b] == pytest.approx(u @ v / length if length else 0.0, abs=1e-6)
    assert rarity[0] == 0
    assert scores[5].sum() == 0


def test_a_blend_is_the_weighted_sum(counts: np.ndarray, edges: np.ndarray) -> None:
    popular, knn = PopularPlaces(visits(counts)), ItemKNN(visits(counts))
    blended = everything(Blend((1.0, popular), (0.25, knn)))
    np.testing.assert_allclose(blended, everything(popular) + 0.25 * everything(knn), atol=1e-6)


def test_equal_sums_in_another_order_stay_ties() -> None:
    """Candidates 1 and 2 share friends of the same degrees with user 0, met in another order."""
    degrees = [3, 3, 5]
    first, second = [10, 11, 12], [13, 14, 15]
    edges, leaf = [], 100
    for shared, candidate in ((first, 1), (second[::-1], 2)):
        for z, degree in zip(shared, degrees, strict=True):
            edges += [[0, z], [candidate, z]] + [[z, leaf + i] for i in range(degree - 2)]
            leaf += degree
    scores = AdamicAdar(friend_graph(np.array(edges))).scores(torch.tensor([0]), torch.tensor([1, 2]))
    assert scores[0, 0] == scores[0, 1]
