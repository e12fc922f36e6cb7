"""Full-graph training on a sequence of snapshots, with checkpoints and exact resume.

Two stages. The vectors learn window by window, in the order of time: every step takes one snapshot, passes its whole
graph once and supervises thousands of what happened in the window after it, so no supervised edge is in its own
message passing. The place head then learns from lists whose vectors are those of before their window was learned
(`training/ranking.py`). Randomness is keyed by (seed, epoch, step).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.graph import Snapshot
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    run_fingerprint,
    save_checkpoint,
)
from recsys.training.evaluation import Evaluation, embed, evaluate, retrieval_ndcg
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.lists import window_lists
from recsys.training.objective import StepConfig, people_losses, retrieval_loss
from recsys.training.ranking import RankConfig, RankProgress, Window, fit_head, refit_head
from recsys.training.sampling import step_generator, step_seed
from recsys.training.ties import TieConfig, choose_ties, refit_ties


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained.

    Attributes:
        model: sizes; its geography is replaced by the data's.
        step: what a step of the graph draws and how losses weigh.
        rank: how the place head learns.
        ties: how the friend head learns from friendships.
        seed: of everything random.
        epochs, steps_per_epoch: of the vectors; an epoch is a number of steps, after which validation runs.
        learning_rate: peak; a linear rise over `warmup_steps`, then a cosine to a twentieth at the last epoch.
        weight_decay: AdamW's.
        clip: largest gradient norm.
        validation_users: size of the fixed validation sample.
        threads: torch threads during `fit`; part of what makes a run repeatable to the bit.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    step: StepConfig = field(default_factory=StepConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    ties: TieConfig = field(default_factory=TieConfig)
    seed: int = 0
    epochs: int = 12
    steps_per_epoch: int = 16
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 1e-4
    clip: float = 1.0
    validation_users: int = 2000
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "validation_users", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0 (got {self.learning_rate})")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"model": self.model.to_dict()}


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after every step of the graph and every epoch of the head.

    Attributes:
        stage: "vectors" or "ranking by …". epoch, epochs, step, steps: how far it is; epochs count from 0.
        losses: of the step, or means of the epoch.
        ndcg: NDCG@10 on the validation window, at the end of an epoch: by the vectors alone, or by the head.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    losses: dict[str, float]
    ndcg: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    Attributes:
        model: with the best epoch's weights, in eval mode.
        config: as given, its model part sized from the data.
        reads: what the head reads, in words: sources, and what of PlaceHead.MAY_USE earned its place.
        best_epoch: of the head, counted from 0.
        best_metric: its validation NDCG@10.
        history: an entry an epoch and stage: mean losses and validation NDCG@10.
        valid: on the validation window, before the head learned from that too.
    """

    model: RecModel
    config: TrainConfig
    reads: str
    best_epoch: int
    best_metric: float
    history: list[dict[str, Any]]
    valid: Evaluation


def fit(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Fitted:
    """Train vectors, then the place head to the best validation NDCG@10, then that again with the validation window.

    Args:
        train: snapshots whose labels supervise; their windows lie before `valid.as_of`.
        valid: the snapshot that decides which epoch and which paths of the head are best.
        config: how.
        checkpoint: file to save to after every epoch and to resume from; None: neither. One of another configuration
            or other data is ignored and replaced.
        on_progress: called after every step.

    Returns:
        The finished model.

    Raises:
        DataError: no snapshot, no positive, ids the model does not know, or values that are not finite.
    """
    if not train:
        raise DataError("training needs at least one snapshot (got none)")
    late = [s for s in train if s.until > valid.as_of]
    if late:
        raise DataError(f"a training window must end by {valid.as_of} where validation begins (got {late[0].until})")
    config = dataclasses.replace(config, model=size_config([*train, valid], config.model))
    with _threads(config.threads), torch.random.fork_rng(devices=[]):
        return _fit(train, valid, config, checkpoint, on_progress)


def _fit(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    path: Path | None,
    on_progress: Callable[[Progress], None],
) -> Fitted:
    prepared = [prepare(snapshot, config.model) for snapshot in train]
    prepared = [p for p in prepared if len(p.user)]
    if not prepared:
        raise DataError("no training window has a positive: nothing to learn from")
    held_out = prepare(valid, config.model)
    torch.manual_seed(config.seed)
    model = RecModel(config.model)
    _fit_scales(model, prepared[0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    fingerprint = run_fingerprint([*train, valid], config.to_dict())
    history: list[dict[str, Any]] = []
    before: dict[str, Tensor] = {}  # "<window>/<name>": the weights before a window was learned
    saved = load_checkpoint(path, fingerprint) if path else None
    if saved:
        model.load_state_dict(dict(saved.model))
        restore_optimizer(optimizer, saved.optimizer)
        history, before = list(saved.state["history"]), dict(saved.before)
    for epoch in range(len(history), config.epochs):
        newest = _newest(epoch, config, len(prepared))
        for window in range(_newest(epoch - 1, config, len(prepared)) + 1 if epoch else 1, newest + 1):
            before |= {f"{window}/{name}": value for name, value in _state(model).items()}
        losses = _epoch(model, optimizer, prepared[: newest + 1], config, epoch, on_progress)
        metric = retrieval_ndcg(model, held_out, max_users=config.validation_users, seed=config.seed)
        history.append({"stage": "vectors", "epoch": epoch, "losses": losses, "ndcg": metric})
        if path:
            state = {"history": history}
            save_checkpoint(path, Checkpoint(fingerprint, state, _state(model), before, optimizer_tensors(optimizer)))
        steps = config.steps_per_epoch
        on_progress(Progress("vectors", epoch, config.epochs, steps, steps, losses, metric))

    def say(p: RankProgress) -> None:
        on_progress(Progress(f"ranking by {p.reads}", p.epoch, p.epochs, 1, 1, {"place": p.loss}, p.ndcg))

    # not kept in the checkpoint: it is short, and begins the same after every resume
    windows, valid_lists = _lists(model, prepared, before, held_out, config)
    ranked = fit_head(model, windows, valid_lists, config.rank, seed=config.seed, on_progress=say)
    tried = [p for p in ranked if p.reads == model.heads.place.reads]
    # without a validation list the last epoch's weights stay, see `fit_head`
    best = tried[-1] if valid_lists is None else max(tried, key=lambda p: p.ndcg + p.ndcg_new)
    history += [{"stage": "ranking", **dataclasses.asdict(p)} for p in ranked]
    by = choose_ties(model, prepared[-1], held_out, embed(model, held_out), config.ties, seed=config.seed)
    history.append({"stage": "ties", **dataclasses.asdict(by)})
    figures = evaluate(model, held_out, max_users=config.validation_users, seed=config.seed)
    if valid_lists is not None:  # after the last measurement on them
        refit_head(model, windows, valid_lists, config.rank, epochs=best.epoch + 1, seed=config.seed)
    if by.by_ties:
        refit_ties(model, [prepared[-1], held_out], config.ties, seed=config.seed)
    return Fitted(model.eval(), config, best.reads, best.epoch, best.ndcg, history, figures)


def _newest(epoch: int, config: TrainConfig, windows: int) -> int:
    """The last window that an epoch learns from: each begins when it is its turn, and is learned to the end."""
    return epoch * windows // config.epochs


def _lists(
    model: RecModel,
    prepared: Sequence[Prepared],
    before: Mapping[str, Tensor],
    held_out: Prepared,
    config: TrainConfig,
) -> tuple[list[Window], Window | None]:
    """Lists of every window but the first, before which the vectors knew nothing, and of the validation window.

    Where there is no other window, the first one's: by vectors that have seen its labels, for want of better.
    """
    generator, rank = step_generator(config.seed, 0, 0), config.rank

    def made(window: Prepared) -> Window | None:
        vectors, sizes = embed(model, window), {"size": rank.candidates, "most": rank.lists}
        both = (window_lists(window, vectors, fresh=fresh, generator=generator, **sizes) for fresh in (False, True))
        found = Window(*both)
        return found if found.kinds else None

    final = _state(model)
    windows: list[Window | None] = []
    for number, window in enumerate(prepared[1:], start=1):
        prefix = f"{number}/"
        then = {k.removeprefix(prefix): v for k, v in before.items() if k.startswith(prefix)}
        model.load_state_dict(then or final)  # fewer epochs than windows: the last ones were never learned
        windows.append(made(window))
    model.load_state_dict(final)
    if not any(windows):
        windows = [made(prepared[0])]
    return [window for window in windows if window is not None], made(held_out)


def _epoch(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    prepared: Sequence[Prepared],
    config: TrainConfig,
    epoch: int,
    on_progress: Callable[[Progress], None],
) -> dict[str, float]:
    """One epoch; returns the mean of every loss."""
    model.train()
    totals: dict[str, list[float]] = {}
    for step in range(config.steps_per_epoch):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(epoch * config.steps_per_epoch + step, config)
        at = len(prepared) - 1 - step % len(prepared)  # the newest first
        losses = train_step(model, optimizer, prepared[at], config, epoch, step)
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
) -> dict[str, float]:
    """One full-graph step.

    Raises:
        DataError: a loss or a gradient is not finite; names which.
    """
    torch.manual_seed(step_seed(config.seed, epoch, step))  # dropout
    generator = step_generator(config.seed + 1, epoch, step)
    optimizer.zero_grad(set_to_none=True)
    embeddings = model(prepared.graph)
    parts = retrieval_loss(model, embeddings, prepared, config.step, generator)
    parts |= people_losses(model, embeddings, prepared, config.step, generator)
    values = {name: float(part.detach()) for name, part in parts.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    where = f"in epoch {epoch}, step {step}, snapshot of {prepared.snapshot.as_of:%Y-%m-%d}"
    if bad:
        raise DataError(f"the {bad[0]} loss is not finite {where} (got {values[bad[0]]})")
    config.step.weights.combine(parts).backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    if not bool(torch.isfinite(norm)):
        names = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
        raise DataError(f"the gradient of {names[0] if names else 'the model'} is not finite {where}")
    optimizer.step()
    return values


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
        model.heads.friend.trunk.standardize.fit(people)


def _state(model: RecModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextmanager
def _threads(count: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
