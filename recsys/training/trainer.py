"""Full-graph training on a sequence of snapshots, with early stopping, checkpoints and exact resume.

Every step takes one snapshot, passes its whole graph once and supervises thousands of what happened in the week
after it, so no supervised edge is in its own message passing. Randomness is keyed by (seed, epoch, step).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
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
    save_checkpoint,
)
from recsys.training.evaluation import Evaluation, evaluate
from recsys.training.inputs import Prepared, prepare, size_config
from recsys.training.objective import StepConfig, people_losses, place_losses
from recsys.training.sampling import cumulative_weights, popularity_weights, step_generator, step_seed


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained.

    Attributes:
        model: sizes; its geography is replaced by the data's.
        step: what a step draws and how losses weigh.
        seed: of everything random.
        max_epochs, steps_per_epoch: an epoch is a number of steps, after which validation runs.
        patience: epochs without a better validation NDCG@10 before stopping.
        learning_rate: peak; a linear rise over `warmup_steps`, then a cosine to a twentieth at the last epoch.
        weight_decay: AdamW's.
        clip: largest gradient norm.
        validation_users: size of the fixed validation sample.
        threads: torch threads during `fit`; part of what makes a run repeatable to the bit.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    step: StepConfig = field(default_factory=StepConfig)
    seed: int = 0
    max_epochs: int = 12
    steps_per_epoch: int = 16
    patience: int = 4
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 1e-4
    clip: float = 1.0
    validation_users: int = 2000
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("max_epochs", "steps_per_epoch", "patience", "validation_users", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0 (got {self.learning_rate})")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"model": self.model.to_dict()}


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after every step; `valid` is there at the end of an epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: dict[str, float]
    valid: Evaluation | None = None


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    Attributes:
        model: with the best epoch's weights, in eval mode.
        config: as given, its model part sized from the data.
        best_epoch: counted from 0. best_metric: its validation NDCG@10.
        epochs: how many ran, those before a resume included.
        history: an entry an epoch: mean losses and validation metrics.
    """

    model: RecModel
    config: TrainConfig
    best_epoch: int
    best_metric: float
    epochs: int
    history: list[dict[str, Any]]


@dataclass
class _Run:
    """What changes between epochs."""

    epoch: int = 0
    best_epoch: int = -1
    best_metric: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)

    def finished(self, config: TrainConfig) -> bool:
        return self.epoch >= config.max_epochs or self.epoch - self.best_epoch > config.patience

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def fit(
    train: Sequence[Snapshot],
    valid: Snapshot,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Fitted:
    """Train to the best validation NDCG@10.

    Args:
        train: snapshots whose labels supervise; their windows lie before `valid.as_of`.
        valid: the snapshot that decides when to stop.
        config: how.
        checkpoint: file to save to after every epoch and to resume from; None: neither. One of another configuration
            or other data is ignored and replaced.
        on_progress: called after every step.

    Returns:
        The best epoch's model.

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
    _fit_scales(model, prepared, config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    run, best = _Run(), _state(model)
    fingerprint = run_fingerprint(train, valid, config)
    saved = load_checkpoint(path, fingerprint) if path else None
    if saved:
        model.load_state_dict(dict(saved.model))
        restore_optimizer(optimizer, saved.optimizer)
        run, best = _Run(**saved.state), dict(saved.best)
    popular = [cumulative_weights(p.places, popularity_weights(p)) for p in prepared]
    while not run.finished(config):
        losses = _epoch(model, optimizer, prepared, popular, config, run.epoch, on_progress)
        result = evaluate(model, held_out, max_users=config.validation_users, seed=config.seed)
        metric = result.rows["model"]["ndcg"]
        if metric > run.best_metric:
            run.best_epoch, run.best_metric, best = run.epoch, metric, _state(model)
        run.history.append({"epoch": run.epoch, "losses": losses, "valid": result.to_dict()})
        run.epoch += 1
        if path:
            state = Checkpoint(fingerprint, run.to_dict(), _state(model), best, optimizer_tensors(optimizer))
            save_checkpoint(path, state)
        steps = config.steps_per_epoch
        on_progress(Progress(run.epoch - 1, config.max_epochs, steps, steps, losses, result))
    model.load_state_dict(best)
    return Fitted(model.eval(), config, run.best_epoch, run.best_metric, run.epoch, run.history)


def _epoch(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    prepared: Sequence[Prepared],
    popular: Sequence[Tensor],
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
        at = (epoch * config.steps_per_epoch + step) % len(prepared)
        losses = train_step(model, optimizer, prepared[at], popular[at], config, epoch, step)
        for name, value in losses.items():
            totals.setdefault(name, []).append(value)
        on_progress(Progress(epoch, config.max_epochs, step + 1, config.steps_per_epoch, losses))
    return {name: sum(values) / len(values) for name, values in totals.items()}


def train_step(
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    prepared: Prepared,
    popular: Tensor,
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
    parts = place_losses(model, embeddings, prepared, popular, config.step, generator)
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
    total = config.max_epochs * config.steps_per_epoch
    progress = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _fit_scales(model: RecModel, prepared: Sequence[Prepared], seed: int) -> None:
    """Standardise inputs by the latest training snapshot; the heads' by pairs as the place head will meet them."""
    last = prepared[-1]
    generator = torch.Generator().manual_seed(seed)
    model.backbone.fit_scales(last.graph)
    chosen = torch.randint(len(last.user), (20_000,), generator=generator)
    users, places = last.user[chosen], last.place[chosen]
    other = places[torch.randperm(len(places), generator=generator)]
    online = torch.cat([last.snapshot.place_features(users, places), last.snapshot.place_features(users, other)])
    model.heads.place.trunk.standardize.fit(online)
    friends = last.snapshot.friends
    if len(friends.user_u):
        people = last.snapshot.people_features(friends.user_u[:50_000], friends.user_v[:50_000])
        model.heads.friend.trunk.standardize.fit(people)


def run_fingerprint(train: Sequence[Snapshot], valid: Snapshot, config: TrainConfig) -> str:
    """Hash of what decides a run's outcome: the configuration, and the windows, features and labels."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for snapshot in (*train, valid):
        digest.update(f"{snapshot.as_of.isoformat()} {snapshot.until.isoformat()}".encode())
        labels, friends = snapshot.labels, snapshot.friends
        for tensor in (
            labels.user, labels.place, labels.rating, friends.user_u, friends.compat, friends.attend,
            snapshot.pair_keys, snapshot.place_online, snapshot.user_online, snapshot.data["user"].x,
        ):  # fmt: skip
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


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
