"""Whether a probability means what it says: of pairs given 0.3, do three in ten come true."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError


@dataclass(frozen=True)
class ReliabilityBin:
    """The probabilities in [low, high), 1 itself in the last bin.

    Attributes:
        low, high: the bin's ends.
        count: how many probabilities are in it, at least 1.
        probability: their mean.
        outcome: the share of them that came true.
    """

    low: float
    high: float
    count: int
    probability: float
    outcome: float


def reliability(probability: Tensor, outcome: Tensor, bins: int = 10) -> list[ReliabilityBin]:
    """The table of a reliability diagram (Murphy & Winkler, "Reliability of subjective probability forecasts", 1977).

    Args:
        probability: (L,) in [0, 1].
        outcome: (L,) bool, or 0 and 1: did it come true.
        bins: of equal width.

    Returns:
        The bins that hold a probability, in order.

    Raises:
        ConfigError: bins below 1.
        DataError: the shapes differ, or a value is no probability or no outcome.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1 (got {bins})")
    if probability.dim() != 1 or probability.shape != outcome.shape:
        raise DataError(
            f"probability and outcome must be vectors of one length (got {list(probability.shape)} and "
            f"{list(outcome.shape)})"
        )
    p, y = probability.double(), outcome.double()
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise DataError(f"probabilities must lie in [0, 1] (got {float(p[~((p >= 0) & (p <= 1))][0])})")
    if not bool(((y == 0) | (y == 1)).all()):
        raise DataError(f"outcomes must be 0 or 1 (got {float(y[(y != 0) & (y != 1)][0])})")
    at = (p * bins).long().clamp(max=bins - 1)
    count, total, true = (torch.bincount(at, weights=w, minlength=bins) for w in (torch.ones_like(p), p, y))
    return [
        ReliabilityBin(
            i / bins, (i + 1) / bins, int(count[i]), float(total[i] / count[i]), float(true[i] / count[i])
        )
        for i in count.nonzero()[:, 0].tolist()
    ]  # fmt: skip


def expected_calibration_error(probability: Tensor, outcome: Tensor, bins: int = 10) -> float:
    """Mean distance between what is said and what comes true, over bins weighted by their size, in [0, 1].

    Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.

    Args:
        probability, outcome, bins: as for `reliability`.

    Raises:
        ConfigError, DataError: as `reliability`; also where there is nothing to measure.
    """
    table = reliability(probability, outcome, bins)
    if not table:
        raise DataError("there is no probability to measure the calibration of (got 0)")
    return sum(b.count * abs(b.probability - b.outcome) for b in table) / len(probability)
