"""Training objectives: the seed's three (section 5.1) and two retrieval losses in the embedding space."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def bpr_loss(positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
    """Bayesian personalised ranking, mean of -log sigmoid(positive - negative) (Rendle et al. 2009).

    Args:
        positive: (B, 1) or (B,) logits.
        negative: (B, K) or (B,) logits.
        weight: like `negative`, 0 where a drawn negative is in truth a positive; None: all 1.

    Returns:
        Scalar; 0 when nothing weighs.
    """
    loss = F.softplus(negative - positive)
    if weight is None:
        return loss.mean()
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def list_loss(logits: Tensor, positive: Tensor, log_weight: Tensor) -> Tensor:
    """Cross entropy of each positive of a list against the list's negatives, every list the same weight.

    Positives do not stand against each other: a list has one order of many that are right.

    Args:
        logits: (B, L). positive: (B, L) bool. log_weight: (B, L): a negative that stands for n of its kind has log n;
            -inf for what is neither.

    Returns:
        Scalar; 0 for no list.
    """
    if len(logits) == 0:
        return logits.sum()
    negatives = (logits + log_weight).masked_fill(positive, -torch.inf)
    # a list of positives alone has nothing to learn, and no infinity to spoil its gradient
    others = torch.cat([negatives, logits.new_full((len(logits), 1), -1e4)], dim=1).logsumexp(dim=1, keepdim=True)
    loss = (F.softplus(others - logits) * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return loss.mean()


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy, (B,) logits and (B,) labels in {0, 1}; 0 for an empty batch."""
    if len(logits) == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def sampled_softmax(positive: Tensor, candidates: Tensor, log_q: Tensor) -> Tensor:
    """Softmax cross entropy over sampled candidates, corrected for how they were sampled.

    With candidates drawn so that item j is expected q_j times, the sum of exp(score - log q) over the sample estimates
    the sum over the whole catalogue (Bengio & Senécal 2008; "logQ correction", Yi et al. 2019). The positive stands
    beside the sample; where it was drawn as well, the caller masks that candidate with -inf and estimates the others.

    Args:
        positive: (B,) scores over temperature.
        candidates: (B, C) scores over temperature.
        log_q: (C,) log of the expected count of each candidate in the sample.

    Returns:
        Scalar, the mean over the batch.
    """
    everything = torch.logaddexp(positive, (candidates - log_q).logsumexp(dim=1))
    return (everything - positive).mean()


class Temperature(nn.Module):
    """A learned, bounded temperature of the retrieval softmax.

    Unbounded, it can collapse to 0, where every gradient but that of the hardest negative vanishes.

    Attributes:
        low, high: bounds of the temperature.
    """

    def __init__(self, start: float = 0.1, low: float = 0.03, high: float = 0.5) -> None:
        super().__init__()
        self.low, self.high = low, high
        share = (torch.tensor(start).log() - torch.tensor(low).log()) / (
            torch.tensor(high).log() - torch.tensor(low).log()
        )
        self.raw = nn.Parameter(torch.logit(share))

    def forward(self) -> Tensor:
        """Scalar in (low, high)."""
        low, high = torch.tensor(self.low).log(), torch.tensor(self.high).log()
        return torch.exp(low + (high - low) * torch.sigmoid(self.raw))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of a step of the graph; `friend` and `attend` are the seed's."""

    friend: float = 0.5
    attend: float = 0.3
    retrieval: float = 1.0
    people: float = 0.3
    companion: float = 0.1

    def combine(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the parts that are there."""
        if not parts:
            raise ValueError("a step needs at least one loss (got none)")
        return torch.stack([getattr(self, name) * value for name, value in parts.items()]).sum()
