"""How well a method ranks the full catalogue for the users of a task; never a sample of the catalogue.

Equal scores: a metric is its expectation over all orders of the tied candidates, computed exactly (McSherry & Najork,
"Computing information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008). So a
method gains nothing by how its candidates are numbered, no seed is involved, and a constant score gets what a random
order gets on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.training.baselines import Scores
from recsys.training.evaluation import ranking_metrics
from recsys.training.protocols import Ints, Task

Floats = npt.NDArray[np.float64]
_CELLS = 1 << 22  # scores of one block: 34 MB in float64, and a few copies and masks beside it


@dataclass(frozen=True)
class Measured:
    """Metrics by user, (U,) float64 in [0, 1] each; `auc` is NaN where there is no negative, None if not asked for."""

    users: Ints
    recall: Floats
    ndcg: Floats
    auc: Floats | None

    def means(self) -> dict[str, float]:
        """Means over users, every user the same weight.

        Raises:
            DataError: there is no user to measure.
        """
        if len(self.users) == 0:
            raise DataError("nothing to measure: no user is known before the cut and has a target after it (got 0)")
        out = {"recall": float(self.recall.mean()), "ndcg": float(self.ndcg.mean())}
        if self.auc is not None and not np.isnan(self.auc).all():
            out["auc"] = float(np.nanmean(self.auc))
        return out


@torch.inference_mode()
def measure(task: Task, method: Scores, *, k: int = 10) -> Measured:
    """Rank the whole catalogue for every user of a task, a block of users at a time.

    Recall@k is hits / min(k, targets), NDCG@k has binary gains; both are expectations over tied candidates. AUC is how
    often a target is above a negative, ties half.

    Args:
        task: what is asked.
        method: asked for scores by the numbers of the data, some users and all candidates at a time.
        k: length of the list.

    Raises:
        ConfigError: k below 1.
        DataError: the method's scores have another shape or are not finite.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1 (got {k})")
    n, width = task.targets.shape
    candidates = torch.from_numpy(task.candidates)
    recall, ndcg = np.zeros(n), np.zeros(n)
    auc = None if task.negatives is None else np.zeros(n)
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        users = torch.from_numpy(task.users[rows])
        scores = method.scores(users, candidates)
        _check(scores, (len(users), width), method)
        targets, excluded = task.targets[rows], torch.from_numpy(task.excluded[rows].toarray() > 0)
        masked = scores.masked_fill(excluded, -torch.inf)
        hits = expected_hits(masked, torch.from_numpy(targets.toarray() > 0), k)
        recall[rows], ndcg[rows] = ranking_metrics(hits, np.diff(targets.indptr).astype(np.int64), k)
        if auc is not None and task.negatives is not None:
            auc[rows] = _auc(scores.double().numpy(), targets, task.negatives[rows])
    return Measured(task.users, recall, ndcg, auc)


def pooled(parts: Sequence[Measured]) -> Measured:
    """Cities put together, a user of two cities counting in each; AUC only where all parts have one."""
    if not parts:
        return Measured(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), None)
    aucs = [p.auc for p in parts if p.auc is not None]
    return Measured(
        np.concatenate([p.users for p in parts]),
        np.concatenate([p.recall for p in parts]),
        np.concatenate([p.ndcg for p in parts]),
        np.concatenate(aucs) if len(aucs) == len(parts) else None,
    )


def expected_hits(scores: Tensor, targets: Tensor, k: int) -> Floats:
    """The probability of a target at each rank, all orders of equal scores being equally likely.

    At a rank it is the share of targets among the candidates of that rank's score. Groups of ties that end within the
    list are all in it; only the last may go on below, so it alone is counted over the whole row.

    Args:
        scores: (B, C), higher is better, -inf for what is excluded. targets: (B, C) bool, none excluded. k: ranks.

    Returns:
        (B, min(k, C)) float64 in [0, 1].
    """
    values, order = scores.topk(min(k, scores.shape[1]), dim=1)
    found = targets.gather(1, order).double()
    same = (values[:, :, None] == values[:, None, :]).double()
    share = (same * found[:, None, :]).sum(dim=2) / same.sum(dim=2)
    at_last = scores == values[:, -1:]
    share_last = (at_last & targets).sum(dim=1, keepdim=True) / at_last.sum(dim=1, keepdim=True)
    out: Floats = torch.where(values == values[:, -1:], share_last.double(), share).numpy()
    return out


def _auc(scores: Floats, targets: csr_array, negatives: Ints) -> Floats:
    """(B, C) scores → (B,): the share of (target, negative) pairs in order, ties half; NaN without a negative."""
    row, column = targets.nonzero()
    against, there = np.take_along_axis(scores, np.maximum(negatives, 0), axis=1), negatives >= 0
    difference = scores[row, column][:, None] - against[row]
    won = (((difference > 0) + 0.5 * (difference == 0)) * there[row]).sum(axis=1)
    pairs = np.diff(targets.indptr) * there.sum(axis=1)
    total = np.bincount(row, weights=won, minlength=len(scores))
    out: Floats = np.divide(total, pairs, out=np.full(len(scores), np.nan), where=pairs > 0)
    return out


def _check(scores: Tensor, shape: tuple[int, int], method: Scores) -> None:
    name = type(method).__name__
    if tuple(scores.shape) != shape:
        raise DataError(f"scores of {name} must be (users, candidates) = {shape} (got {tuple(scores.shape)})")
    if not bool(torch.isfinite(scores).all()):
        raise DataError(f"scores of {name} must be finite (got {int((~torch.isfinite(scores)).sum())} that are not)")
