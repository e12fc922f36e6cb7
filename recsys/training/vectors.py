"""The vectors: full-graph training on a sequence of snapshots, window by window, with checkpoints and exact resume.

Every step takes one snapshot, passes its whole graph once and supervises thousands of what happened in the window
after it, so no supervised edge is in its own message passing. Randomness is keyed by (seed, epoch, step) and drawn on
the CPU for the whole batch, so it is the same on every device and however many processes share the batch.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.graph import Snapshot
from recsys.models.backbone import Embeddings
from recsys.models.model import RecModel
from recsys.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    run_fingerprint,
    save_checkpoint,
)
from recsys.training.config import Progress, TrainConfig
from recsys.training.evaluation import retrieval_ndcg
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.objective import people_losses, retrieval_loss
from recsys.training.processes import ALONE, Processes
from recsys.training.sampling import step_generator, step_seed
from recsys.training.shelf import IN_MEMORY, Shelf


@dataclass(frozen=True)
class Learned:
    """What the first stage leaves to the second, on the CPU.

    Attributes:
        model: its backbone has learned every window, its friend head the labels; its place head nothing.
        config: as given, its model part sized from the data.
        windows: those with a positive. valid: the one that decides.
        before: "<window>/<name>" → tensor, the weights before a window was learned.
        history: an entry an epoch: mean losses and, in the first process, validation NDCG@10.
        shelf: where the windows' large tensors are.
    """

    model: RecModel
    config: TrainConfig
    windows: Sequence[Prepared]
    valid: Prepared
    before: dict[str, Tensor]
    history: list[dict[str, Any]]
    shelf: Shelf


def learn(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    *,
    processes: Processes = ALONE,
    checkpoint: Path | None = None,
    shelf: Shelf = IN_MEMORY,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Learned:
    """Train the vectors; arguments and errors as for `trainer.fit`.

    Args:
        shelf: where the windows' large tensors go.
        processes: all that learn together, each called with the same snapshots and configuration. Every one ends with
            the same weights; only the first measures and touches `checkpoint`.
    """
    if not train:
        raise DataError("training needs at least one snapshot (got none)")
    late = [s for s in train if s.until > valid.as_of]
    if late:
        raise DataError(f"a training window must end by {valid.as_of} where validation begins (got {late[0].until})")
    config = dataclasses.replace(config, model=size_config([*train, valid], config.model))
    with apart(config):
        return _learn(train, valid, config, processes, checkpoint, shelf, on_progress)


def _learn(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    processes: Processes,
    path: Path | None,
    shelf: Shelf,
    on_progress: Callable[[Progress], None],
) -> Learned:
    windows = [w for w in (shelf.put(prepare(snapshot, config.model)) for snapshot in train) if len(w.user)]
    if not windows:
        raise DataError("no training window has a positive: nothing to learn from")
    held_out = shelf.put(prepare(valid, config.model))
    torch.manual_seed(config.seed)
    model = RecModel(config.model)
    _fit_scales(model, windows[0])
    model.to(config.device)
    there, held_out_there = [window.to(config.device) for window in windows], held_out.to(config.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    history: list[dict[str, Any]] = []
    before: dict[str, Tensor] = {}
    fingerprint = run_fingerprint([*train, valid], config.to_dict()) if processes.first and path else ""
    if saved := processes.from_first(load_checkpoint(path, fingerprint) if processes.first and path else None):
        model.load_state_dict(dict(saved.model))
        restore_optimizer(optimizer, saved.optimizer)
        history, before = list(saved.state["history"]), dict(saved.before)
    shelf.rest()
    for epoch in range(len(history), config.epochs):
        newest = _newest(epoch, config, len(windows))
        for window in range(_newest(epoch - 1, config, len(windows)) + 1 if epoch else 1, newest + 1):
            before |= {f"{window}/{name}": value for name, value in _state(model).items()}
        losses = _epoch(model, optimizer, there[: newest + 1], config, epoch, processes, shelf, on_progress)
        history.append({"stage": "vectors", "epoch": epoch, "losses": losses})
        if not processes.first:
            continue
        metric = retrieval_ndcg(model, held_out_there, max_users=config.validation_users, seed=config.seed)
        history[-1]["ndcg"] = metric
        if path:
            state = {"history": history}
            save_checkpoint(path, Checkpoint(fingerprint, state, _state(model), before, optimizer_tensors(optimizer)))
        steps = config.steps_per_epoch
        on_progress(Progress("vectors", epoch, config.epochs, steps, steps, losses, metric))
    return Learned(model.cpu(), config, windows, held_out, before, history, shelf)


def _newest(epoch: int, config: TrainConfig, windows: int) -> int:
    """The last window that an epoch learns from: each begins when it is its turn, and is learned to the end."""
    return epoch * windows // config.epochs


def _epoch(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    prepared: Sequence[Prepared],
    config: TrainConfig,
    epoch: int,
    processes: Processes,
    shelf: Shelf,
    on_progress: Callable[[Progress], None],
) -> dict[str, float]:
    """One epoch; returns the mean of every loss."""
    model.train()
    totals: dict[str, list[float]] = {}
    for step in range(config.steps_per_epoch):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(epoch * config.steps_per_epoch + step, config)
        at = len(prepared) - 1 - step % len(prepared)  # the newest first
        losses = train_step(model, optimizer, prepared[at], config, epoch, step, processes)
        shelf.rest()
        for name, value in losses.items():
            totals.setdefault(name, []).append(value)
        on_progress(Progress("vectors", epoch, config.epochs, step + 1, config.steps_per_epoch, losses))
    return {name: sum(values) / len(values) for name, values in totals.items()}


def train_step(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    prepared: Prepared,
    config: TrainConfig,
    epoch: int,
    step: int,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """One full-graph step.

    Raises:
        DataError: a loss or a gradient is not finite; names which.
    """
    torch.manual_seed(step_seed(config.seed, epoch, step))  # dropout
    generator = step_generator(config.seed + 1, epoch, step)
    optimizer.zero_grad(set_to_none=True)
    embeddings = graph_pass(model, prepared, mixed=config.device == "cuda")
    parts = retrieval_loss(model, embeddings, prepared, config.step, generator, processes)
    parts |= people_losses(model, embeddings, prepared, config.step, generator, processes)
    found = processes.sum(torch.stack([part.detach() for part in parts.values()]))
    values = dict(zip(parts, found.tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    where = f"in epoch {epoch}, step {step}, snapshot of {prepared.snapshot.as_of:%Y-%m-%d}"
    if bad:
        raise DataError(f"the {bad[0]} loss is not finite {where} (got {values[bad[0]]})")
    loss = config.step.weights.combine(parts)
    if loss.requires_grad:  # a batch may have fewer rows than there are processes
        loss.backward()  # type: ignore[no-untyped-call]
    processes.sum_gradients(model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    if not bool(torch.isfinite(norm)):
        names = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
        raise DataError(f"the gradient of {names[0] if names else 'the model'} is not finite {where}")
    optimizer.step()
    return values


def graph_pass(model: RecModel, prepared: Prepared, *, mixed: bool) -> Embeddings:
    """Vectors to learn from, 32 bits wide; mixed: their layers multiply in bfloat16, sums over edges do not."""
    with torch.autocast(prepared.graph.user_x.device.type, dtype=torch.bfloat16, enabled=mixed):
        out: Embeddings = model(prepared.graph)
    return Embeddings(out.user.float(), out.people.float(), out.place.float())


def _schedule(step: int, config: TrainConfig) -> float:
    """Share of the peak learning rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    total = config.epochs * config.steps_per_epoch
    progress = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _fit_scales(model: RecModel, last: Prepared) -> None:
    """Standardise inputs by a snapshot."""
    model.backbone.fit_scales(last.graph)
    friends = last.snapshot.friends
    if len(friends.user_u):
        people = last.snapshot.people_features(friends.user_u[:50_000], friends.user_v[:50_000])
        model.heads.friend.shallow.standardize.fit(people)


def _state(model: RecModel) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


@contextmanager
def apart(config: TrainConfig) -> Iterator[None]:
    """The configuration's threads, and random draws that leave the caller's generators as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if config.device == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
