"""Lists for the place head: what is in them does not depend on labels, and a context decides what is wanted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.constants import SLOT_NOT_SAID
from recsys.graph import PlaceLabels
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.training import ranking
from recsys.training.evaluation import embed
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.lists import ListBatch, Lists, draw_batch, window_lists
from tests.planted import Planted


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    snapshot = Planted(n_users=60, n_places=90, n_cities=2, weeks=5).snapshot(3)
    return prepare(snapshot, size_config([snapshot], ModelConfig()))


def lists_of(prepared: Prepared, size: int = 25, *, fresh: bool = False) -> Lists:
    torch.manual_seed(0)
    vectors, g = embed(RecModel(size_config([prepared.snapshot], ModelConfig())).eval(), prepared), torch.Generator()
    made = window_lists(prepared, vectors, fresh=fresh, size=size, most=1000, generator=g)
    assert made is not None
    return made


def draw(lists: Lists, **changes: float) -> ListBatch:
    g = torch.Generator().manual_seed(1)
    rates = {"slot_dropout": 1.0, "category_rate": 0.0} | changes
    length = int(rates.pop("length", 25))
    every, anchors = torch.arange(len(lists.user)), lists.anchors(g)
    return draw_batch(lists, every, anchors, length=length, generator=g, **rates)


def test_labels_decide_nothing_of_a_list(prepared: Prepared) -> None:
    one = lists_of(prepared)
    labels = prepared.snapshot.labels
    turned = PlaceLabels(labels.user, labels.place.flip(0), labels.rating, labels.slot)
    other = lists_of(
        prepare(replace(prepared.snapshot, labels=turned), size_config([prepared.snapshot], ModelConfig()))
    )
    both = sorted(set(one.user.tolist()) & set(other.user.tolist()))
    assert len(both) > 20
    for user in both:
        a, b = one.user.tolist().index(user), other.user.tolist().index(user)
        assert set(one.place[a].tolist()) == set(other.place[b].tolist())


def test_lists_know_what_was_liked(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    for row, user in enumerate(lists.user.tolist()):
        assert int(prepared.places.city[lists.place[row, 0]]) == int(prepared.users.city[user])
    assert torch.equal(lists.liked, prepared.is_positive(lists.user[:, None], lists.place))
    anchors = lists.anchors(torch.Generator().manual_seed(0))
    assert torch.equal(prepared.user[anchors], lists.user)


def test_fresh_lists_are_of_places_where_the_user_never_was(prepared: Prepared) -> None:
    every, fresh = lists_of(prepared), lists_of(prepared, fresh=True)
    visited = set(map(tuple, prepared.snapshot.data["user", "interacts", "place"].edge_index.t().tolist()))
    new = [
        (u, p) for u, p in zip(prepared.user.tolist(), prepared.place.tolist(), strict=True) if (u, p) not in visited
    ]
    here = {(u, p) for u, p in new if int(prepared.users.city[u]) == int(prepared.places.city[p])}
    assert set(fresh.user.tolist()) == {u for u, _ in here}
    for row, user in enumerate(fresh.user.tolist()):
        assert int(fresh.targets[row]) == sum(u == user for u, _ in here)
        in_city = int((prepared.places.city == fresh.city[row]).sum())
        free = in_city - sum(u == user and int(prepared.places.city[p]) == int(fresh.city[row]) for u, p in visited)
        assert int(fresh.there[row].sum()) == min(25, free), "visited places take no room in a fresh list"
        for place, there, liked in zip(fresh.place[row].tolist(), fresh.there[row], fresh.liked[row], strict=True):
            assert not (there and (user, place) in visited)
            assert bool(liked) == (bool(there) and (user, place) in here)
    assert bool(every.targets.sum() > fresh.targets.sum())
    batch = draw(fresh)
    counted = batch.positive | torch.isfinite(batch.log_weight)
    assert not bool((prepared.was_there(batch.user[:, None], batch.place) & counted).any())


def test_a_context_that_is_said_narrows_what_is_wanted(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    everything = draw(lists)
    assert torch.equal(everything.positive, prepared.is_positive(everything.user[:, None], everything.place))
    assert bool((everything.slot == SLOT_NOT_SAID).all())
    slots = draw(lists, slot_dropout=0.0)
    wanted = prepared.is_positive(slots.user[:, None], slots.place, slots.slot[:, None])
    assert torch.equal(slots.positive, wanted)
    # who likes a place at another time is neither for it nor against it
    other = prepared.is_positive(slots.user[:, None], slots.place) & ~wanted
    assert bool(other.any())
    assert bool(torch.isinf(slots.log_weight[other]).all())
    kinds = draw(lists, category_rate=1.0)
    row = kinds.positive.nonzero()[:, 0]
    assert bool((prepared.categories[kinds.place[kinds.positive]] * kinds.categories[row]).any(dim=1).all())


def test_what_is_left_stands_for_what_is_not(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    batch = draw(lists, length=12)
    assert batch.place.shape[1] == 12
    rows = [lists.user.tolist().index(u) for u in batch.user.tolist()]
    free = (lists.there & ~lists.liked)[rows].sum(dim=1)
    weight = batch.log_weight.masked_fill(batch.positive, -torch.inf).exp().sum(dim=1)
    torch.testing.assert_close(weight, free.float())


def test_a_list_learns_what_came_in_later_windows_too() -> None:
    """By ids: users and places are numbered anew in every snapshot, and who came later is not among them."""
    world = Planted(n_users=60, n_places=50, weeks=4, visits=4)
    first, later = (world.snapshot(week) for week in (2, 3))
    gone = later.data.clone()  # a later snapshot whose users and places have other numbers, and two that are new
    gone["user"].user_id, gone["place"].place_id = gone["user"].user_id + 2, gone["place"].place_id + 1
    config = size_config([first, later], ModelConfig())
    one, two = prepare(first, config), prepare(replace(later, data=gone), config)
    both = one.followed_by([two])
    expected = {(u, p, s) for u, p, s in zip(one.user.tolist(), one.place.tolist(), one.slot.tolist(), strict=True)}
    ids = {int(x): row for row, x in enumerate(first.data["user"].user_id)}
    places = {int(x): row for row, x in enumerate(first.data["place"].place_id)}
    for u, p, s in zip(two.user.tolist(), two.place.tolist(), two.slot.tolist(), strict=True):
        user, place = int(gone["user"].user_id[u]), int(gone["place"].place_id[p])
        if user in ids and place in places:
            expected.add((ids[user], places[place], s))
    found = list(zip(both.user.tolist(), both.place.tolist(), both.slot.tolist(), strict=True))
    assert len(found) == len(set(found)) > len(one.user)
    assert set(found) == expected
    assert both.positive_keys.tolist() == sorted({u * 50 + p for u, p, _ in expected})
    wide, narrow = lists_of(both), lists_of(both).learning(one)
    assert torch.equal(narrow.place, wide.place)
    assert torch.equal(narrow.liked, one.is_positive(narrow.user[:, None], narrow.place))
    assert bool((wide.liked >= narrow.liked).all())
    assert bool((wide.liked > narrow.liked).any())


def test_some_of_the_positives_alone_are_as_if_there_were_no_other_labels(prepared: Prepared) -> None:
    snapshot, labels = prepared.snapshot, prepared.snapshot.labels
    mine = labels.user % 3 == 0
    few = PlaceLabels(labels.user[mine], labels.place[mine], labels.rating[mine], labels.slot[mine])
    expected = prepare(replace(snapshot, labels=few), size_config([snapshot], ModelConfig()))
    found = prepared.only(prepared.user % 3 == 0)
    assert 0 < len(found.user) < len(prepared.user)
    for name in ("user", "place", "slot", "positive_keys", "slot_keys"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.sources is prepared.sources


def test_what_may_be_chance_is_not_clearly_better(prepared: Prepared) -> None:
    window = ranking.Window(lists_of(prepared), lists_of(prepared, fresh=True))
    rng = np.random.default_rng(0)
    before = [rng.random(len(lists.user)) for lists in window.kinds]
    ahead = [x + 0.02 for x in before]
    noisy = [x + 0.02 + rng.normal(0, 0.5, len(x)) for x in before]
    assert ranking.clearly_better(window, ahead, before)
    assert not ranking.clearly_better(window, before, before)
    assert not ranking.clearly_better(window, before, ahead)
    assert not ranking.clearly_better(window, noisy, before)
    # a user's two lists are no two witnesses: 1.7 standard errors in one kind are 1.7 where the other says the same
    luck = rng.normal(0, 1, len(before[0]))
    luck += 1.7 * np.sqrt((luck**2).sum()) / len(luck) - luck.mean()
    for times, expected in ((1.0, False), (1.4, True)):
        gain = luck + (times - 1) * luck.mean()
        assert (
            ranking.clearly_better(ranking.Window(window.every, window.every), [gain + before[0]] * 2, [before[0]] * 2)
            == expected
        )


def test_a_list_without_a_positive_is_not_learned(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    some = replace(lists, liked=lists.liked & (torch.arange(len(lists.user)) % 2 == 0)[:, None])
    batches = ranking._batches([some], 7, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([chosen for _, chosen, _ in batches]).tolist()) == [
        row for row in range(len(lists.user)) if bool(some.liked[row].any())
    ]
