"""What each part of the model brings: the same training without it, measured on the same validation users."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recsys.models.losses import LossWeights
from recsys.training.config import TrainConfig
from recsys.training.evaluation import METRICS, bootstrap_difference
from recsys.training.trainer import Fitted

WHOLE: Final = "whole model"
# By variant: what differs in which part of the configuration; a number is added. Other seeds say what chance does.
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    WHOLE: {},
    "whole model, another seed": {"seed": 1},
    "whole model, a third seed": {"seed": 2},
    "no social edges": {"model": {"messages": ("interacts", "rev_interacts")}},
    "no interacts edges": {"model": {"messages": ("social",)}},
    "no messages at all": {"model": {"messages": ()}},
    "no edge gates": {"model": {"gate_hidden": 0}},
    "no online features": {"model": {"inputs": ("sources",)}},
    "no signals of sources": {"model": {"inputs": ("online",)}},
    "one member of the place head": {"model": {"members": 1}},
    "no contexts": {"step": {"friend_context_dropout": 1.0}, "rank": {"slot_dropout": 1.0, "category_rate": 0.0}},
    "no people loss": {"step": {"weights": LossWeights(people=0.0)}},
    "no companion loss": {"step": {"weights": LossWeights(companion=0.0)}},
}


@dataclass(frozen=True)
class Ablated:
    """A variant's figures on the validation window.

    Attributes:
        variant: its name. run: of data, configuration and code; another one means another measurement.
        reads: what the head reads, in words.
        ndcg, recall: at 10, of the whole answer. vectors_ndcg: NDCG@10 by the vectors alone.
        friend_auc, attend_auc, friend_ece, attend_ece: as of `Evaluation`.
        user_id, user_ndcg: (U,) NDCG@10 of each user.
    """

    variant: str
    run: str
    reads: str
    ndcg: float
    recall: float
    vectors_ndcg: float
    friend_auc: float | None
    attend_auc: float | None
    friend_ece: float | None
    attend_ece: float | None
    user_id: npt.NDArray[np.int64]
    user_ndcg: npt.NDArray[np.float64]


def variant_config(base: TrainConfig, variant: str) -> TrainConfig:
    """The configuration of one of VARIANTS."""
    changed = {}
    for part, change in VARIANTS[variant].items():
        value = getattr(base, part)
        changed[part] = value + change if isinstance(value, int) else dataclasses.replace(value, **change)
    return dataclasses.replace(base, **changed)


def figures_of(variant: str, run: str, fitted: Fitted) -> Ablated:
    """What a finished training reached, before its head learned from the validation window too."""
    valid, vectors = fitted.valid, [e for e in fitted.history if e["stage"] == "vectors"]
    return Ablated(
        variant=variant,
        run=run,
        reads=fitted.reads,
        ndcg=valid.rows["model"]["ndcg"],
        recall=valid.rows["model"]["recall"],
        vectors_ndcg=float(vectors[-1]["ndcg"]),
        friend_auc=valid.friend_auc,
        attend_auc=valid.attend_auc,
        friend_ece=valid.friend_ece,
        attend_ece=valid.attend_ece,
        user_id=valid.user_id,
        user_ndcg=valid.per_user["model"][METRICS.index("ndcg")],
    )


def differences(found: Sequence[Ablated]) -> dict[str, dict[str, float]]:
    """By variant, its NDCG@10 less that of the whole model: mean and 95 % of the paired bootstrap over users.

    The interval is over users alone. What another seed does to the whole model, its rows of the table say.
    """
    whole = next(one for one in found if one.variant == WHOLE)
    return {one.variant: bootstrap_difference(one.user_ndcg, whole.user_ndcg) for one in found if one.variant != WHOLE}


def markdown(found: Sequence[Ablated], world: str) -> str:
    """The table of `docs/model.md`.

    Args:
        found: the whole model first.
        world: on which data, in words.
    """
    minus = differences(found)
    lines = [
        f"{world}: validation window, {len(found[0].user_id):,} users.",
        "",
        "| | NDCG@10 | less the whole, 95 % | by vectors alone | friend AUC | attend AUC | the head reads |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        d = minus.get(one.variant)
        change = "" if d is None else f"{d['mean']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
        people = " | ".join("–" if v is None else f"{v:.4f}" for v in (one.friend_auc, one.attend_auc))
        lines.append(f"| {one.variant} | {one.ndcg:.4f} | {change} | {one.vectors_ndcg:.4f} | {people} | {one.reads} |")
    return "\n".join(lines) + "\n"
