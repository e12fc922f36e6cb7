"""Lists for the place head: what is in them does not depend on labels, and a context decides what is wanted."""

from dataclasses import replace

import pytest
import torch

from recsys.constants import SLOT_NOT_SAID
from recsys.graph import PlaceLabels
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.training.evaluation import embed
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.lists import ListBatch, Lists, draw_batch, window_lists
from tests.planted import Planted


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    snapshot = Planted(n_users=60, n_places=90, n_cities=2, weeks=5).snapshot(3)
    return prepare(snapshot, size_config([snapshot], ModelConfig()))


def lists_of(prepared: Prepared, size: int = 25) -> Lists:
    torch.manual_seed(0)
    model = RecModel(size_config([prepared.snapshot], ModelConfig())).eval()
    made = window_lists(prepared, embed(model, prepared), size=size, most=1000, generator=torch.Generator())
    assert made is not None
    return made


def draw(lists: Lists, **changes: float) -> ListBatch:
    g = torch.Generator().manual_seed(1)
    rates = {"fresh_rate": 0.0, "slot_dropout": 1.0, "category_rate": 0.0} | changes
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


def test_lists_know_what_was_liked_and_visited(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    visited = set(map(tuple, prepared.snapshot.data["user", "interacts", "place"].edge_index.t().tolist()))
    for row, user in enumerate(lists.user.tolist()):
        assert int(prepared.places.city[lists.place[row, 0]]) == int(prepared.users.city[user])
        for column, place in enumerate(lists.place[row].tolist()):
            assert bool(lists.visited[row, column]) == ((user, place) in visited)
    assert torch.equal(lists.liked, prepared.is_positive(lists.user[:, None], lists.place))
    anchors = lists.anchors(torch.Generator().manual_seed(0))
    assert torch.equal(prepared.user[anchors], lists.user)


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


def test_fresh_lists_have_only_new_places(prepared: Prepared) -> None:
    batch = draw(lists_of(prepared), fresh_rate=1.0)
    counted = batch.positive | torch.isfinite(batch.log_weight)
    assert not bool((prepared.was_there(batch.user[:, None], batch.place) & counted).any())


def test_what_is_left_stands_for_what_is_not(prepared: Prepared) -> None:
    lists = lists_of(prepared)
    batch = draw(lists, length=12)
    assert batch.place.shape[1] == 12
    rows = [lists.user.tolist().index(u) for u in batch.user.tolist()]
    free = (lists.there & ~lists.liked)[rows].sum(dim=1)
    weight = batch.log_weight.masked_fill(batch.positive, -torch.inf).exp().sum(dim=1)
    torch.testing.assert_close(weight, free.float())
