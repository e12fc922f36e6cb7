"""How well a method ranks the full catalogue for the users of a task; never a sample of the catalogue.

Equal scores: a metric is its expectation over all orders of the tied candidates, drawn for each user on its own,
computed exactly (McSherry & Najork, "Computing information retrieval performance measures efficiently in the presence
of tied scores", ECIR 2008). So a method gains nothing by how its candidates are numbered, no seed is involved, and a
constant score gets what a random order gets on average.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
LONGER: Final = 20  # length of the list of the second recall
NOTHING: Final = "nothing to measure: no user is known before the cut and has a target after it (got 0)"
_CELLS = 1 << 22  # scores of one block: 34 MB in float64, and a few copies and masks beside it


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Attributes:
        users: (U,) numbers, and (U,) their `activity`, see `Task`.
        by_user: (U,) float64 by metric, see `measure`: "recall", "recall_20", "ndcg", "mrr", "popularity_percentile",
            "novelty" and, where asked for, "auc", NaN where a user has no negative.
        covered: (C,) how probably a candidate is in somebody's list.
    """

    users: Ints
    activity: Ints
    by_user: Mapping[str, Floats]
    covered: Floats

    @property
    def recall(self) -> Floats:
        """(U,) recall@k."""
        return self.by_user["recall"]

    @property
    def ndcg(self) -> Floats:
        """(U,) NDCG@k."""
        return self.by_user["ndcg"]

    @property
    def auc(self) -> Floats | None:
        """(U,) AUC, None if not asked for."""
        return self.by_user.get("auc")

    def means(self, among: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Means over users, every user the same weight, and "coverage": the share of the candidates that is in a list.

        Args:
            among: (U,) which users; None: all, and only then there is a coverage.

        Raises:
            DataError: there is no user to measure.
        """
        chosen = slice(None) if among is None else among
        if len(self.users[chosen]) == 0:
            raise DataError(NOTHING)
        values = {name: v[chosen] for name, v in self.by_user.items()}
        out = {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}
        return out if among is not None else out | {"coverage": float(self.covered.mean())}


@torch.inference_mode()
def measure(task: Task, method: Scores, *, k: int = 10) -> Measured:
    """Rank the whole catalogue for every user of a task, a block of users at a time.

    - recall: hits in the top k / min(k, targets); recall_20 at 20, whatever k is.
    - ndcg: NDCG@k with binary gains.
    - mrr: 1 / rank of the first target in the whole catalogue (Voorhees, "The TREC-8 question answering track report",
      1999).
    - popularity_percentile: mean percentile, among the candidates, of the popularity of what is in the top k: 0.5 for a
      random order, more the more a method keeps to what everybody knows (popularity bias; Abdollahpouri et al.,
      "Managing popularity bias in recommender systems with personalized re-ranking", FLAIRS 2019, average popularity).
    - novelty: mean self-information -log2 p of the top k, in bits, with p the share of users that chose it before the
      cut (Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010); what
      nobody chose counts as chosen by one.
    - coverage: the share of the candidates in the top k of at least one user.
    - auc: how often a target is above a negative, ties half.

    All are expectations over tied candidates.

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
    worth = torch.from_numpy(np.stack([percentiles(task.popularity), _surprise(task)], axis=1))
    names = [
        "recall",
        "recall_20",
        "ndcg",
        "mrr",
        "popularity_percentile",
        "novelty",
        *(["auc"] if task.negatives is not None else []),
    ]
    found = {name: np.zeros(n) for name in names}
    missed = torch.zeros(width, dtype=torch.float64)  # the log of how probably a candidate is in no list
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        users = torch.from_numpy(task.users[rows])
        scores = method.scores(users, candidates)
        _check(scores, (len(users), width), method)
        targets, excluded = task.targets[rows], torch.from_numpy(task.excluded[rows].toarray() > 0)
        masked = scores.masked_fill(excluded, -torch.inf)
        wanted, n_targets = torch.from_numpy(targets.toarray() > 0), np.diff(targets.indptr).astype(np.int64)
        hits = expected_hits(masked, wanted, max(k, LONGER))
        found["recall"][rows], found["ndcg"][rows] = ranking_metrics(hits, n_targets, k)
        found["recall_20"][rows], _ = ranking_metrics(hits, n_targets, LONGER)
        found["mrr"][rows] = expected_reciprocal_rank(masked, wanted)
        user, candidate, listed = in_list(masked, k)
        sums = torch.zeros(len(users), 3, dtype=torch.float64)
        sums.index_add_(0, user, listed[:, None] * torch.cat([worth[candidate], torch.ones(len(user), 1)], dim=1))
        found["popularity_percentile"][rows], found["novelty"][rows] = (sums[:, :2] / sums[:, 2:]).T.numpy()
        missed.index_add_(0, candidate, torch.log1p(-listed))
        if task.negatives is not None:
            found["auc"][rows] = _auc(scores.double().numpy(), targets, task.negatives[rows])
    return Measured(task.users, task.activity, found, -np.expm1(missed.numpy()))


def pooled(parts: Sequence[Measured]) -> Measured:
    """Cities put together, a user of two cities counting in each; a metric only where all parts have it."""
    none = np.zeros(0, dtype=np.int64)
    names = [name for name in parts[0].by_user if all(name in p.by_user for p in parts)] if parts else []
    return Measured(
        np.concatenate([none, *(p.users for p in parts)]),
        np.concatenate([none, *(p.activity for p in parts)]),
        {name: np.concatenate([p.by_user[name] for p in parts]) for name in names},
        np.concatenate([np.zeros(0), *(p.covered for p in parts)]),
    )


def percentiles(values: Ints) -> Floats:
    """(C,) numbers → for each the share of all that is smaller, and half of what is equal; their mean is 0.5."""
    ordered = np.sort(values)
    both = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return both / (2.0 * max(len(values), 1))


def _surprise(task: Task) -> Floats:
    """(C,) -log2 of the share of users that chose a candidate."""
    return -np.log2(np.maximum(task.popularity, 1) / max(task.population, 1))


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


def in_list(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Who is in the first k ranks, and how probably, all orders of equal scores being equally likely.

    Args:
        scores: (B, C), higher is better, -inf for what is excluded and never in a list. k: ranks.

    Returns:
        (E,) rows, (E,) columns and (E,) probabilities in (0, 1], float64: every place of a list once.
    """
    last = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    candidate = (scores >= last) & (scores > -torch.inf)
    row, column = candidate.nonzero(as_tuple=True)
    above = scores[row, column] > last[row, 0]
    room = k - torch.bincount(row[above], minlength=len(scores))
    tied = torch.bincount(row[~above], minlength=len(scores))
    share = (room / tied.clamp(min=1)).clamp(max=1.0).double()
    return row, column, torch.where(above, torch.ones((), dtype=torch.float64), share[row])


def expected_reciprocal_rank(scores: Tensor, targets: Tensor) -> Floats:
    """The mean of 1 / rank of the first target, all orders of equal scores being equally likely.

    Only the ties of the best target matter. Of g equal candidates with t targets, below `above` others, the first
    target comes after j or more of them with the probability Π (g - t - i) / (g - i) over i < j.

    Args:
        scores: (B, C), higher is better, -inf for what is excluded.
        targets: (B, C) bool, at least one a row, none excluded.

    Returns:
        (B,) float64 in (0, 1].
    """
    best = scores.masked_fill(~targets, -torch.inf).amax(dim=1, keepdim=True)
    above = (scores > best).sum(dim=1).double().numpy()
    at_best = scores == best
    tied, good = at_best.sum(dim=1).double().numpy(), (at_best & targets).sum(dim=1).double().numpy()
    out = 1.0 / (above + 1.0)
    rows = np.flatnonzero(tied > good)  # where all that are tied are targets, the first of them is the first
    if len(rows):
        a, g, t = above[rows, None], tied[rows, None], good[rows, None]
        i = np.arange(int((g - t).max()))
        survives = np.cumprod(np.maximum(g - t - i, 0.0) / np.maximum(g - i, 1.0), axis=1)
        # E[1 / rank] = 1 / (a + 1) less what each further candidate before the target takes off
        out[rows] -= (survives / ((a + 1.0 + i) * (a + 2.0 + i))).sum(axis=1)
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
