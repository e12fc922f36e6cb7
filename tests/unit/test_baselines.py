"""Simple methods against loops that follow the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from recsys.errors import ConfigError
from recsys.training import place_baselines
from recsys.training.baselines import Blend, Scores
from recsys.training.people_baselines import AdamicAdar, CommonNeighbours, CoVisits, Degree
from recsys.training.place_baselines import Ease, FriendsVisited, ItemKNN, OwnVisits, PopularPlaces
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
