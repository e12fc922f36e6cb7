"""What is dropped, how often, and that nothing is where it should not be."""

import pytest
import torch

from recsys.models.dropout import Dropout, dropout_mask


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_a_mask_drops_so_much_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask((1001, 997), p, torch.ones(()))
    n = mask.numel()
    error = 5 * (p * (1 - p) / n) ** 0.5
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=error)
    assert mask.double().mean().item() == pytest.approx(1.0, abs=error / (1 - p))
    kept = mask[mask != 0]
    assert kept.min().item() == kept.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    # neighbours come of one word of random bits, and are independent all the same
    zero = (mask == 0).double().flatten()
    for lag in (1, 2, 3, 4, 997):
        assert (zero[lag:] * zero[:-lag]).mean().item() == pytest.approx(p * p, abs=2 * error)


def test_the_seed_decides_and_gradients_go_where_values_go() -> None:
    layer, x = Dropout(0.3), torch.rand(7, 5, requires_grad=True)
    torch.manual_seed(1)
    out = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), out)
    assert not torch.equal(layer(x), out)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_nothing_and_everything_can_be_dropped_and_evaluation_drops_nothing() -> None:
    x = torch.rand(4, 3)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros(4, 3))
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert Dropout(0.5)(torch.zeros(0, 3)).shape == (0, 3)
