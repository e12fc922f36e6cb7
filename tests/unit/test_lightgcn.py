"""LightGCN against dense matrices, and what it learns from."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.training.lightgcn import EPOCHS, LightGCN, chosen_lightgcn
from recsys.training.measure import measure
from recsys.training.place_baselines import PopularPlaces
from recsys.training.protocols import PlacesTask, incidence, places_task


def tastes(seed: int, groups: int = 4, users: int = 160, places: int = 80, visits: int = 4000) -> PlacesTask:
    """Users of a group go to the places of their group, four times out of five."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, visits)
    own = rng.integers(0, places // groups, visits) * groups + user % groups
    place = np.where(rng.random(visits) < 0.8, own, rng.integers(0, places, visits))
    return places_task(user, place, rng.integers(0, 10**15, visits), protocol="new")


def test_layers_equal_products_of_the_normalised_matrix() -> None:
    """Eq. 7 and 8 of the paper: D^-1/2 A D^-1/2 over users and places together, and the mean of its powers."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (7, 5)) * (rng.random((7, 5)) < 0.5)
    counts[2], counts[:, 3] = 0, 0
    counts[0, 0], counts[6, 4] = 2, 1
    model = LightGCN(csr_array(counts.astype(float)), width=6, layers=3, seed=1)
    whole = np.zeros((12, 12))
    for u in range(7):
        for p in range(5):
            if counts[u, p]:
                degrees = (counts[u] > 0).sum() * (counts[:, p] > 0).sum()
                whole[u, 7 + p] = whole[7 + p, u] = 1 / np.sqrt(degrees)
    start = torch.cat([model.user, model.place]).detach().double().numpy()
    layers = [start]
    for _ in range(3):
        layers.append(whole @ layers[-1])
    expected = np.mean(layers, axis=0)
    user, place = model()
    np.testing.assert_allclose(torch.cat([user, place]).detach().numpy(), expected, atol=1e-6)
    scores = model.scores(torch.tensor([4, 2]), torch.tensor([1, 3]))
    np.testing.assert_allclose(scores.numpy(), (expected[:7] @ expected[7:].T)[[4, 2]][:, [1, 3]], atol=1e-6)


def test_it_learns_tastes_and_the_same_by_the_same_seed() -> None:
    task = tastes(1)
    found = chosen_lightgcn(task)
    popular = measure(task, PopularPlaces(task.visits)).ndcg.mean()
    assert measure(task, found).ndcg.mean() > 1.3 * popular
    users, places = torch.from_numpy(task.users), torch.from_numpy(task.candidates)
    assert torch.equal(found.scores(users, places), chosen_lightgcn(task).scores(users, places))
    assert not torch.equal(found.scores(users, places), chosen_lightgcn(task, seed=1).scores(users, places))


def test_the_last_tenth_of_train_chooses_the_epochs() -> None:
    task = tastes(2)
    part = places_task(task.train_user, task.train_place, task.train_moment, protocol="new", quantile=0.9,
                       n_users=task.visits.shape[0], n_places=task.visits.shape[1])  # fmt: skip
    reached = [measure(part, LightGCN(part.visits).learn(epochs)).ndcg.mean() for epochs in EPOCHS]
    rises = 1 + next((i for i, (a, b) in enumerate(pairwise(reached)) if b <= a), len(EPOCHS) - 1)
    users, places = torch.from_numpy(task.users), torch.from_numpy(task.candidates)
    expected = LightGCN(task.visits).learn(EPOCHS[rises - 1]).scores(users, places)
    assert torch.equal(chosen_lightgcn(task).scores(users, places), expected)


def test_who_was_nowhere_and_where_nobody_was_score_nothing() -> None:
    visits = incidence(np.array([0, 0, 2]), np.array([0, 3, 3]), (4, 5))
    scores = LightGCN(visits).learn(2).scores(torch.arange(4), torch.arange(5))
    assert (scores != 0).numpy().tolist() == [[u in (0, 2) and p in (0, 3) for p in range(5)] for u in range(4)]


def test_a_train_that_tells_nothing_takes_the_fewest_epochs() -> None:
    moment = np.array([0, 0, 0, 5, 6])
    task = places_task(np.array([0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 1]), moment, protocol="new", cut=5)
    expected = LightGCN(task.visits).learn(EPOCHS[0]).scores(torch.arange(2), torch.arange(2))
    assert torch.equal(chosen_lightgcn(task).scores(torch.arange(2), torch.arange(2)), expected)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be at least 1 \(got 0 and 3\)"):
        LightGCN(csr_array(np.eye(2)), width=0)
