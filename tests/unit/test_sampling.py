"""What the samplers draw: from where, how often, and the same again."""

import pytest
import torch

from recsys.constants import POSITIVE_RATING
from recsys.models.config import ModelConfig
from recsys.training.inputs import CityCatalogue, Prepared, prepare, size_config
from recsys.training.sampling import (
    draw_companions,
    draw_friends,
    draw_positives,
    step_generator,
    uniform_in_city,
)
from tests.planted import Planted


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    snapshot = Planted(n_users=80, n_places=70, n_cities=3, weeks=4).snapshot(3)
    return prepare(snapshot, size_config([snapshot], ModelConfig()))


def test_catalogue_groups_by_city() -> None:
    catalogue = CityCatalogue.build(torch.tensor([2, 0, 2, 0, 2]), 4)
    assert [catalogue.of(c).tolist() for c in range(4)] == [[1, 3], [], [0, 2, 4], []]
    assert catalogue.position.tolist() == [0, 0, 1, 1, 2]
    assert catalogue.sizes().tolist() == [2, 0, 3, 0]


def test_positives_are_rated_high_and_once_a_slot(prepared: Prepared) -> None:
    labels = prepared.snapshot.labels
    expected = {
        (int(u), int(p), int(s))
        for u, p, r, s in zip(labels.user, labels.place, labels.rating, labels.slot, strict=True)
        if float(r) >= POSITIVE_RATING
    }
    got = list(zip(prepared.user.tolist(), prepared.place.tolist(), prepared.slot.tolist(), strict=True))
    assert len(got) == len(set(got))
    assert set(got) == expected
    pairs = {(u, p) for u, p, _ in expected}
    every = prepared.is_positive(torch.arange(80)[:, None], torch.arange(70)[None])
    assert {(int(u), int(p)) for u, p in every.nonzero()} == pairs


def test_uniform_draws_stay_in_the_city_and_reach_everyone(prepared: Prepared) -> None:
    city = torch.tensor([0, 1, 2]).repeat(2000)
    drawn = uniform_in_city(prepared.places, city, 2, torch.Generator().manual_seed(0))
    assert bool((prepared.places.city[drawn] == city[:, None]).all())
    counts = torch.bincount(drawn.reshape(-1), minlength=70)
    for c in range(3):
        members = counts[prepared.places.of(c)].float()
        assert float((members / members.mean() - 1).abs().max()) < 0.4


def test_positives_are_all_drawn(prepared: Prepared) -> None:
    chosen = draw_positives(prepared, 10_000, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(len(prepared.user)))


def test_pairs_of_people(prepared: Prepared) -> None:
    friends = prepared.snapshot.friends
    batch = draw_friends(prepared, 10_000, 0.6, torch.Generator().manual_seed(0))
    labelled = {
        (int(u), int(v)): (float(c), float(a))
        for u, v, c, a in zip(friends.user_u, friends.user_v, friends.compat, friends.attend, strict=True)
    }
    assert len(batch.user) == len(labelled)
    turned = 0
    for u, v, c, a in zip(batch.user, batch.peer, batch.compat, batch.attend, strict=True):
        turned += int(u > v)
        assert labelled[(int(min(u, v)), int(max(u, v)))] == (float(c), float(a))
    assert 0 < turned < len(labelled)
    there = batch.place >= 0
    assert bool(there.any())
    assert not bool(there.all())
    assert bool((prepared.places.city[batch.place[there]] == prepared.users.city[batch.peer[there]]).all())


def test_companions_come_with_their_place(prepared: Prepared) -> None:
    companions = prepared.snapshot.companions
    batch, other = draw_companions(prepared, 10_000, 0.0, torch.Generator().manual_seed(0))
    met = {
        (min(int(u), int(v)), max(int(u), int(v)), int(p))
        for u, v, p in zip(companions.user_u, companions.user_v, companions.place, strict=True)
    }
    for u, v, p in zip(batch.user.tolist(), batch.peer.tolist(), batch.place.tolist(), strict=True):
        assert (min(u, v), max(u, v), p) in met
    assert bool((prepared.users.city[other] == prepared.users.city[batch.peer]).all())
    assert bool((batch.tags == prepared.tags[batch.place]).all())


def test_every_step_has_its_own_draws_and_repeats_them() -> None:
    def numbers(*key: int) -> list[float]:
        return torch.rand(4, generator=step_generator(*key)).tolist()

    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    assert len({tuple(numbers(*key)) for key in ((1, 2, 3), (1, 3, 2), (2, 2, 3), (0, 0, 0))}) == 4
