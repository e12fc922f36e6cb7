"""What ranking reads, finished: the same functions after a point-in-time join and after an online read.

Masks and ages are applied here and nowhere else, so training and serving hold the same numbers.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

PAIR_TTL: Final = timedelta(days=28)  # a pair's own history counts in ranking, and stays online, this long


@dataclass(frozen=True)
class UserRow:
    """One user as read online. Vectors are float32; `activity` is ONLINE_USER (9,)."""

    user_id: int
    name: str
    home_city_id: int
    home_neighborhood_id: int
    cat_pref: Floats
    fine_pref: Floats
    vibe_pref: Floats
    areas: dict[int, float]
    activity: Floats


@dataclass(frozen=True)
class PlaceRow:
    """One place as read online."""

    place_id: int
    name: str
    city_id: int
    neighborhood_id: int
    category_one_hot: Floats
    fine_tag_vector: Floats
    price_band: int
    typical_time_slot: int


def finish_activity(stats: Floats, fresh: npt.NDArray[np.bool_]) -> Floats:
    """(N, D) stats and (N,) freshness → (N, D + 1): zeros where stale or unknown, and the known flag."""
    kept = np.where(fresh[:, None], stats, np.float32(0))
    return np.concatenate([kept, fresh[:, None].astype(np.float32)], axis=1)


def finish_pairs(stats: Floats, count: Ints, age_days: npt.NDArray[np.float64]) -> Floats:
    """A user's history with places, as ranking reads it.

    Args:
        stats: (C, 12) USER_PLACE means.
        count: (C,) interactions so far; 0 where the pair is unknown.
        age_days: (C,) days since the last one.

    Returns:
        (C, 15) ONLINE_PAIR: stats, log count, recency exp(-age / 7 days), known; zeros beyond `PAIR_TTL`.
    """
    known = (count > 0) & (age_days >= 0) & (age_days <= PAIR_TTL / timedelta(days=1))
    recency = np.exp(-np.where(known, age_days, 0.0) / 7.0)
    log_count = np.minimum(np.log1p(np.maximum(count, 0)) / 4.0, 1.0)
    columns = np.stack([log_count, recency, np.ones_like(recency)], axis=1)
    full = np.concatenate([stats, columns.astype(np.float32)], axis=1)
    return np.where(known[:, None], full, np.float32(0))
