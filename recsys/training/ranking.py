"""The place head learns on frozen vectors, from lists that are made once: a step costs a hundredth of a graph's pass.

The vectors of a window's lists are those of before its labels were learned, as a request's are: a head that reads
vectors fitted to its own labels trusts them too much (docs/model.md). And each path of the head must earn its place on
the validation window: what the sources say, then the cosine too, then the vectors themselves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.constants import SLOT_NOT_SAID
from recsys.errors import DataError
from recsys.models.losses import list_loss
from recsys.models.model import RecModel
from recsys.training.evaluation import ranking_metrics
from recsys.training.lists import ListBatch, Lists, draw_batch
from recsys.training.sampling import step_generator, step_seed

_BLOCK = 64  # lists measured at once
PATHS: Final = {"sources": (0.0, 0.0), "cosine": (1.0, 0.0), "vectors": (1.0, 1.0)}  # PlaceHead.uses, plainest first
_WORTH = 1.01  # so much better, or the plainer one: a validation window is too small to tell less from chance


@dataclass(frozen=True)
class RankConfig:
    """How the place head is trained.

    Attributes:
        epochs: rounds through all lists; the best on the validation window is kept.
        candidates: of a list, from the sources, as many as serving asks for.
        length: how many of them a step looks at.
        lists: of a window, at most.
        batch: lists a step.
        learning_rate: peak of a rise over a tenth of the steps and a cosine to zero.
        weight_decay: AdamW's.
        fresh_rate: probability that a list is of places where the user never was.
        slot_dropout: probability that the slot is not said.
        category_rate: probability that the positive's categories are said.
    """

    epochs: int = 10
    candidates: int = 200
    length: int = 96
    lists: int = 4096
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    fresh_rate: float = 0.5
    slot_dropout: float = 0.5
    category_rate: float = 0.25


@dataclass(frozen=True)
class RankProgress:
    """After each epoch of some of PATHS: mean loss, and NDCG@10 on the validation window with revisits and without."""

    paths: str
    epoch: int
    epochs: int
    loss: float
    ndcg: float
    ndcg_new: float


def fit_head(
    model: RecModel,
    windows: Sequence[Lists],
    valid: Lists | None,
    config: RankConfig,
    *,
    seed: int,
    on_progress: Callable[[RankProgress], None] = lambda _: None,
) -> list[RankProgress]:
    """Train the place head and its context by lists; the best paths' best epoch stays.

    Args:
        model: its heads are trained, its backbone is not looked at.
        windows: lists to learn from.
        valid: decide which epoch and which paths, by the sum of both NDCG@10; None: the last epoch of the plainest.
        config: how.
        seed: of everything random.
        on_progress: called after every epoch.

    Raises:
        DataError: no window has a positive that a source names, or the loss is not finite.
    """
    windows = [lists for lists in windows if bool(lists.liked.any())]
    if not windows:
        raise DataError("no source names a place that somebody went to: nothing to rank")
    _standardize(model, windows[-1])
    untrained = _state(model)
    history: list[RankProgress] = []
    best, reached = untrained, -math.inf
    for name, uses in PATHS.items():
        model.heads.load_state_dict(untrained)
        model.heads.place.uses.copy_(torch.tensor(uses))
        found, metric = _fit_paths(model, windows, valid, config, name, seed, history, on_progress)
        if metric > reached * _WORTH:
            best, reached = found, metric
        if valid is None:
            break
    model.heads.load_state_dict(best)
    return history


def refit_head(
    model: RecModel, windows: Sequence[Lists], valid: Lists, config: RankConfig, *, paths: str, epochs: int, seed: int
) -> None:
    """Train the chosen paths anew for the chosen number of epochs, with the validation window too: the latest labels.

    The head begins at nothing; the encoder of its context goes on from what it has learned.

    Args:
        model, windows, config, seed: as for `fit_head`.
        valid: what decided; nothing may be measured on it any more.
        paths, epochs: what it decided.
    """
    model.heads.place.load_state_dict(_fresh(model, seed))
    model.heads.place.uses.copy_(torch.tensor(PATHS[paths]))
    _standardize(model, valid)
    config = replace(config, epochs=epochs)
    best, _ = _fit_paths(model, [*windows, valid], None, config, paths, seed, [], lambda _: None)
    model.heads.load_state_dict(best)


def _fresh(model: RecModel, seed: int) -> dict[str, Tensor]:
    """A place head that has learned nothing."""
    torch.manual_seed(seed)
    return type(model.heads.place)(model.config).state_dict()


def _fit_paths(
    model: RecModel,
    windows: Sequence[Lists],
    valid: Lists | None,
    config: RankConfig,
    paths: str,
    seed: int,
    history: list[RankProgress],
    on_progress: Callable[[RankProgress], None],
) -> tuple[dict[str, Tensor], float]:
    """The best epoch's weights and its sum of both NDCG@10."""
    parameters = [*model.heads.place.parameters(), *model.heads.place_context.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * sum(math.ceil(len(lists.user) / config.batch) for lists in windows)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(steps, 2), pct_start=0.1
    )
    best, reached = _state(model), -math.inf
    for epoch in range(config.epochs):
        torch.manual_seed(step_seed(seed, epoch, 0))  # dropout
        generator = step_generator(seed + 1, epoch, 0)
        model.heads.train()
        losses = [
            _step(model, optimizer, schedule, lists, chosen, anchor, config, generator)
            for lists, chosen, anchor in _batches(windows, config.batch, generator)
        ]
        model.heads.eval()
        ndcg = (0.0, 0.0) if valid is None else (measure_lists(model, valid), measure_lists(model, valid, True))
        if valid is None or sum(ndcg) > reached:
            best, reached = _state(model), sum(ndcg)
        history.append(RankProgress(paths, epoch, config.epochs, float(np.mean(losses)), *ndcg))
        on_progress(history[-1])
    return best, reached


def _batches(windows: Sequence[Lists], size: int, generator: torch.Generator) -> list[tuple[Lists, Tensor, Tensor]]:
    """All lists of all windows once, in batches of one window each, the batches in a random order."""
    out = []
    for lists in windows:
        anchors = lists.anchors(generator)
        out += [
            (lists, chosen, anchors[chosen])
            for chosen in torch.split(torch.randperm(len(lists.user), generator=generator), size)
        ]
    return [out[i] for i in torch.randperm(len(out), generator=generator).tolist()]


def _step(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    lists: Lists,
    chosen: Tensor,
    anchor: Tensor,
    config: RankConfig,
    generator: torch.Generator,
) -> float:
    batch = draw_batch(
        lists, chosen, anchor, length=config.length, fresh_rate=config.fresh_rate, slot_dropout=config.slot_dropout,
        category_rate=config.category_rate, generator=generator,
    )  # fmt: skip
    loss = list_loss(_logits(model, lists, batch), batch.positive, batch.log_weight)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DataError(f"the loss of the place head is not finite on {lists.prepared.snapshot.as_of:%Y-%m-%d}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    schedule.step()
    return value


def _logits(model: RecModel, lists: Lists, batch: ListBatch) -> Tensor:
    context = model.heads.place_context(batch.city, batch.slot, batch.categories)
    vectors = lists.embeddings
    out: Tensor = model.heads.place(
        vectors.user[batch.user][:, None], vectors.place[batch.place], context[:, None], batch.inputs
    )
    return out


@torch.no_grad()
def measure_lists(model: RecModel, lists: Lists, fresh: bool = False) -> float:
    """NDCG@10 of the head over lists, without a context; `fresh`: of places where the user never was."""
    n_places, prepared = len(lists.prepared.places.city), lists.prepared
    totals = lists.targets
    if fresh:  # targets that are no revisits
        user, place = prepared.positive_keys // n_places, prepared.positive_keys % n_places
        here = ~prepared.was_there(user, place) & (prepared.users.city[user] == prepared.places.city[place])
        totals = torch.bincount(user[here], minlength=len(prepared.users.city))[lists.user]
    found = []
    for at in torch.split(totals.nonzero()[:, 0], _BLOCK):
        batch = ListBatch(
            lists.user[at], lists.place[at], lists.inputs[at].float(), lists.liked[at], lists.inputs.new_zeros(0),
            lists.city[at], torch.full_like(at, SLOT_NOT_SAID), torch.zeros(len(at), model.config.n_categories),
        )  # fmt: skip
        allowed = lists.there[at] & ~(lists.visited[at] if fresh else torch.zeros(1, dtype=torch.bool))
        scores = _logits(model, lists, batch).masked_fill(~allowed, -torch.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)
        hits = (lists.liked[at] & allowed).gather(1, order).numpy()
        found.append(ranking_metrics(hits, totals[at].numpy(), 10)[1])
    return float(np.concatenate(found).mean()) if found else 0.0


def _standardize(model: RecModel, lists: Lists) -> None:
    """The head's inputs to mean 0 and deviation 1, as the last window's lists hold them."""
    sample = lists.inputs[:: max(1, len(lists.inputs) // 512)].float()
    model.heads.place.trunk.standardize.fit(sample[lists.there[:: max(1, len(lists.inputs) // 512)]])


def _state(model: RecModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.heads.state_dict().items()}
