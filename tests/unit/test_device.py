"""Where the vectors learn: what was asked for, what is there, and that mixed precision learns the same thing."""

from dataclasses import replace

import pytest
import torch

from recsys.errors import ConfigError
from recsys.models.model import RecModel
from recsys.models.sparse import Relation, aggregate
from recsys.training.config import TrainConfig
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.objective import people_losses, retrieval_loss
from recsys.training.processes import device_of
from recsys.training.sampling import step_generator
from recsys.training.trainer import fit
from recsys.training.vectors import graph_pass
from tests.planted import Planted
from tests.unit.test_trainer import SMALL

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")


def prepared() -> tuple[RecModel, Prepared]:
    snapshot = Planted(n_users=50, n_places=60, weeks=5, visits=5).snapshot(3)
    config = size_config([snapshot], SMALL.model)
    torch.manual_seed(0)
    return RecModel(config), prepare(snapshot, config)


def losses(model: RecModel, window: Prepared, precise: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    embeddings = graph_pass(model, window, mixed=not precise)
    parts = retrieval_loss(model, embeddings, window, SMALL.step, step_generator(0, 0, 0))
    return parts | people_losses(model, embeddings, window, SMALL.step, step_generator(0, 0, 0))


def test_in_mixed_precision_losses_and_gradients_stay_near_those_of_32_bits() -> None:
    model, window = prepared()
    found = {}
    for precise in (True, False):
        model.zero_grad()
        parts = losses(model, window, precise)
        SMALL.step.weights.combine(parts).backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([p.grad.reshape(-1) for p in model.backbone.parameters() if p.grad is not None])
        found[precise] = {name: part.item() for name, part in parts.items()}, gradient
    (exact, exact_gradient), (mixed, mixed_gradient) = found[True], found[False]
    assert mixed == pytest.approx(exact, rel=0.02)
    assert mixed != exact, "nothing was rounded: this was no mixed precision"
    assert bool(mixed_gradient.isfinite().all())
    assert torch.cosine_similarity(mixed_gradient, exact_gradient, dim=0).item() > 0.98


@pytest.mark.parametrize("how", ["sum", "mean", "attention"])
def test_sums_over_edges_stay_32_bits_wide_in_mixed_precision(how: str) -> None:
    index = torch.stack([torch.arange(3000), torch.zeros(3000, dtype=torch.int64)])
    relation = Relation.from_edges(index, 3000, 1)
    weight, x = torch.ones(3000), torch.ones(3000, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = aggregate(relation, weight.bfloat16(), x.bfloat16(), how)  # type: ignore[arg-type]
    assert got.dtype == torch.float32  # bfloat16 has no 3000, nor a sum that could pass 256
    assert got.tolist() == [[3000.0, 3000.0] if how == "sum" else [1.0, 1.0]]


def test_the_device_is_what_was_asked_for_or_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (device_of("auto"), device_of("cpu")) == ("cpu", "cpu")
    with pytest.raises(ConfigError, match=r"device cuda was asked for, and PyTorch finds no GPU here \("):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (device_of("auto"), device_of("cpu"), device_of("cuda")) == ("cuda", "cpu", "cuda")
    with pytest.raises(ConfigError, match="device must be one of"):
        TrainConfig(device="tpu")  # type: ignore[arg-type]


@GPU
@pytest.mark.parametrize("how", ["sum", "mean", "attention"])
def test_the_sparse_layer_is_the_same_on_a_gpu(how: str) -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randint(n, (500,), generator=generator) for n in (40, 30)]).unique(dim=1)
    relation = Relation.from_edges(index, 40, 30)
    weight, x = torch.rand(index.shape[1], generator=generator) + 0.5, torch.randn(40, 16, generator=generator)
    found = []
    for device in ("cpu", "cuda"):
        leaves = [leaf.to(device, copy=True).requires_grad_() for leaf in (weight, x)]
        out = aggregate(relation.to(device), *leaves, how)  # type: ignore[arg-type]
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([t.detach().cpu() for t in (out, *(leaf.grad for leaf in leaves)) if t is not None])
    for there, here in zip(*found, strict=True):
        torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)


@GPU
def test_training_on_a_gpu_ends_near_training_on_a_cpu() -> None:
    world = Planted(n_users=300, n_places=300, weeks=5, visits=10)
    data = [world.snapshot(2), world.snapshot(3)], world.snapshot(4)
    config = replace(SMALL, epochs=6, steps_per_epoch=8)
    here, there = (fit(*data, replace(config, device=device)) for device in ("cpu", "cuda"))
    assert {p.device.type for p in there.model.parameters()} == {"cpu"}
    ours, theirs = (f.valid.rows["model"]["ndcg"] for f in (there, here))
    assert ours == pytest.approx(theirs, rel=0.1)
