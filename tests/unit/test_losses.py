"""Losses against numbers worked by hand and against what they estimate."""

import math

import pytest
import torch

from recsys.models.losses import LossWeights, Temperature, binary_loss, bpr_loss, list_loss, sampled_softmax
from recsys.models.share import Share
from recsys.training.inputs import CityCatalogue
from recsys.training.objective import in_city_softmax, rows


def test_bpr_by_hand() -> None:
    positive, negative = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    each = [math.log1p(math.exp(d)) for d in (-1.0, 0.0, 0.0, 2.0)]
    assert bpr_loss(positive, negative).item() == pytest.approx(sum(each) / 4)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert bpr_loss(positive, negative, weight).item() == pytest.approx((each[0] + each[3]) / 2)
    assert bpr_loss(positive, negative, torch.zeros(2, 2)).item() == 0.0


def test_lists_by_hand() -> None:
    none = -math.inf
    logits = torch.tensor([[1.0, 0.0, 3.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    positive = torch.tensor([[True, False, False, True, False], [True, False, False, False, False]])
    weight = torch.tensor([[0.0, math.log(2), 0.0, 0.0, none], [0.0, none, none, none, none]])
    others = 2 + math.exp(3)  # two stand behind the first negative; the last is neither
    first = (math.log((math.e + others) / math.e) + math.log((math.exp(2) + others) / math.exp(2))) / 2
    assert list_loss(logits, positive, weight).item() == pytest.approx(first / 2)  # a list without negatives costs 0
    logits.requires_grad_()
    list_loss(logits, positive, weight).backward()
    assert bool(logits.grad.isfinite().all())
    assert logits.grad[0, 4] == 0
    assert list_loss(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool), torch.zeros(0, 3)).item() == 0.0


def test_binary_by_hand() -> None:
    loss = binary_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)
    assert binary_loss(torch.zeros(0), torch.zeros(0)).item() == 0.0


def test_log_q_correction_removes_the_bias_of_the_sampler() -> None:
    torch.manual_seed(0)
    scores = torch.randn(400) * 1.5
    exact = (torch.logsumexp(scores, 0) - scores[0]).item()
    others = torch.arange(1, 400)
    weight = torch.softmax(scores[1:] * 0.7, 0)  # the better an item, the more often it is drawn
    draws = 300
    corrected, naive = [], []
    for _ in range(200):
        drawn = torch.multinomial(weight, draws, replacement=True)
        sampled = scores[others[drawn]][None]
        log_q = (draws * weight[drawn]).log()
        corrected.append(sampled_softmax(scores[:1], sampled, log_q).item())
        naive.append(sampled_softmax(scores[:1], sampled, torch.zeros(draws)).item())
    assert sum(corrected) / 200 == pytest.approx(exact, abs=0.03)
    assert abs(sum(naive) / 200 - exact) > 0.3


def test_in_city_softmax_equals_a_loop_and_its_sample_estimates_it() -> None:
    torch.manual_seed(1)
    city = torch.randint(0, 3, (300,))
    catalogue = CityCatalogue.build(city, 3)
    items = torch.nn.functional.normalize(torch.randn(300, 8), dim=1)
    query = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
    target = torch.randint(0, 300, (40,))
    tau = torch.tensor(0.3)
    expected = 0.0
    for q, t in zip(query, target.tolist(), strict=True):
        members = (city == city[t]).nonzero()[:, 0]
        expected += (torch.logsumexp(items[members] @ q / tau, 0) - items[t] @ q / tau).item() / 40
    generator = torch.Generator().manual_seed(0)
    whole = Share(0, 40, 40)
    exact = in_city_softmax(query, items, target, catalogue, tau, 1000, generator, whole)
    assert exact.item() == pytest.approx(expected, rel=1e-5)
    sampled = [in_city_softmax(query, items, target, catalogue, tau, 50, generator, whole).item() for _ in range(100)]
    assert sum(sampled) / 100 == pytest.approx(expected, abs=0.03)


def test_rows_gathers_any_shape_and_adds_up_gradients() -> None:
    table = torch.arange(6.0).reshape(3, 2).requires_grad_()
    out = rows(table, torch.tensor([[0, 2], [2, 2]]))
    assert out.shape == (2, 2, 2)
    out.sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1, 1], [0, 0], [3, 3]]


def test_temperature_starts_where_told_and_never_leaves_its_bounds() -> None:
    temperature = Temperature(start=0.1, low=0.03, high=0.5)
    assert temperature().item() == pytest.approx(0.1, rel=1e-4)
    for extreme, bound in ((-100.0, 0.03), (100.0, 0.5)):
        with torch.no_grad():
            temperature.raw.fill_(extreme)
        assert temperature().item() == pytest.approx(bound, rel=1e-4)


def test_losses_are_combined_by_weight() -> None:
    weights = LossWeights(friend=0.5, attend=0.3)
    parts = {"retrieval": torch.tensor(2.0), "friend": torch.tensor(4.0), "attend": torch.tensor(10.0)}
    assert weights.combine(parts).item() == pytest.approx(2 + 2 + 3)
    with pytest.raises(ValueError, match="at least one loss"):
        weights.combine({})
