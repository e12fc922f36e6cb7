"""Intervals of means over users by the bootstrap, paired where the same users are measured twice.

Efron & Tibshirani, "An introduction to the bootstrap", 1993, ch. 13 (percentile intervals). A resample is how often
each user is drawn, so the means of all columns in all resamples are one matrix product, and a difference of two columns
uses the same users on both sides.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
_DRAWS = 1 << 21  # users drawn at once: 17 MB of int64


def resampled_means(values: Floats, *, samples: int = 1000, seed: int = 0) -> Floats:
    """Means of every column in resamples of the rows.

    Args:
        values: (U, M), a row a user; NaN where a user has no value, which then counts in no mean. U is at least 1.
        samples: R, how many resamples.
        seed: of the resampling; the same for the same U, so two calls are paired.

    Returns:
        (R, M) float64; NaN where a resample has no user with a value.
    """
    n, there = len(values), ~np.isnan(values)
    filled, whole = np.where(there, values, 0.0), bool(there.all())
    rng = np.random.Generator(np.random.Philox(seed))
    at_once, out = max(1, _DRAWS // n), []
    for start in range(0, samples, at_once):
        rows = min(at_once, samples - start)
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=rows * n).reshape(rows, n).astype(np.float64)
        total = times @ filled
        if whole:
            out.append(total / n)
            continue
        counted = times @ there.astype(np.float64)
        out.append(np.divide(total, counted, out=np.full_like(total, np.nan), where=counted > 0))
    return np.concatenate(out)


def interval(means: Floats) -> tuple[Floats, Floats]:
    """(R, M) means of resamples → the (M,) low and (M,) high ends of 95 % of them."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.nanquantile(means, [tail, 1.0 - tail], axis=0)
    return low, high
