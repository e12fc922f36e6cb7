"""How a model is trained, and where a run stands."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args

from recsys.errors import ConfigError
from recsys.models.config import ModelConfig
from recsys.training.objective import StepConfig
from recsys.training.processes import Device
from recsys.training.ranking import RankConfig
from recsys.training.ties import TieConfig


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
        device: where the vectors learn; on "cuda" the graph's pass is in mixed precision.
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
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "validation_users", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0 (got {self.learning_rate})")
        if self.device not in get_args(Device):
            raise ConfigError(f"device must be one of {get_args(Device)} (got {self.device!r})")

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
