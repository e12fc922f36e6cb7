"""How places fit a profile and a request: by hand, as training and as serving see them, and in the head."""

import numpy as np
import pytest
import torch

from recsys.aggregates import D_ONLINE_PLACE
from recsys.constants import SLOT_NOT_SAID
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.sources import ASKED, PLACE_FITS, Stated, Traits
from recsys.training.evaluation import embed
from recsys.training.inputs import prepare, size_config
from recsys.training.lists import draw_batch, window_lists
from tests.planted import Planted


@pytest.fixture
def traits() -> Traits:
    """Three places: two of the first category, one of the second; two of the first area."""
    return Traits(
        np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32),
        np.array([[3, 4, 0], [0, 0, 2], [0, 0, 0]], dtype=np.float32),
        area=np.array([7, 2, 7]), price=np.array([0, 4, 2]), slot=np.array([1, 5, 0]),
    )  # fmt: skip


def stated(city: int = 0) -> Stated:
    return Stated(
        np.array([[0.8, 0.2]], dtype=np.float32), np.array([[2, 0, 0]], dtype=np.float32), np.array([city]),
        np.array([[2, 7, -1]]), np.array([[0.25, 0.75, 0.0]], dtype=np.float32),
    )  # fmt: skip


def by_name(fits: np.ndarray) -> dict[str, list[float]]:
    return {name: [pytest.approx(float(x), abs=1e-6) for x in fits[0, :, i]] for i, name in enumerate(PLACE_FITS)}


def test_what_fits_by_hand(traits: Traits):
    got = by_name(traits.fits(stated(), 0, np.array([[0, 1, 2]]), np.array([5]), np.array([[0, 1]], dtype=np.float32)))
    assert got["likes_tags"] == [0.6, 0, 0], "a place without a tag fits nothing"
    assert got["likes_categories"] == [0.8, 0.8, 0.2]
    assert got["area_share"] == [0.75, 0.25, 0.75]
    assert got["price_band"] == [0, 4, 2]
    assert [got[f"slot_{i}"] for i in range(6)] == [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert got["slot_fits"] == [0, 1, 0]
    assert got["wanted"] == [0, 0, 1]


def test_who_is_away_is_at_home_in_no_area_and_who_asks_for_nothing_gets_nothing(traits: Traits):
    got = by_name(traits.fits(stated(city=1), 0, np.array([[2, 0]])))
    assert got["area_share"] == got["wanted"] == got["slot_fits"] == [0, 0]
    nothing = by_name(traits.fits(stated(), 0, np.array([[2, 0]]), np.array([SLOT_NOT_SAID]), np.zeros((1, 2))))
    assert nothing["slot_fits"] == nothing["wanted"] == [0, 0]
    assert nothing["area_share"] == [0.75, 0.75]


def test_a_list_to_learn_from_holds_what_its_context_asks_for():
    """Contexts are drawn a step: what a list was made with, nothing being asked, is replaced."""
    snapshot = Planted(n_users=60, n_places=90, n_cities=2, weeks=4, visits=6).snapshot(3)
    model = RecModel(size_config([snapshot], ModelConfig())).eval()
    prepared, generator = prepare(snapshot, model.config), torch.Generator().manual_seed(1)
    lists = window_lists(prepared, embed(model, prepared), fresh=False, size=20, most=50, generator=generator)
    assert lists is not None
    asked = slice(D_ONLINE_PLACE + ASKED.start, D_ONLINE_PLACE + ASKED.stop)
    assert not lists.inputs[..., asked].any()
    chosen = torch.arange(len(lists.user))
    batch = draw_batch(
        lists, chosen, lists.anchors(generator), length=20, slot_dropout=0.3, category_rate=0.7, generator=generator
    )
    rows = enumerate(zip(batch.slot.tolist(), batch.categories, strict=True))
    expected = [
        [(bool((wanted * prepared.categories[p]).any()), int(prepared.slots[p]) == slot) for p in batch.place[i]]
        for i, (slot, wanted) in rows
    ]
    assert batch.inputs[..., asked].bool().tolist() == [[list(pair) for pair in row] for row in expected]
    assert batch.inputs[..., asked].mean(dim=(0, 1)).gt(0.02).all()
