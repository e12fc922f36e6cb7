"""The five tables: Arrow type, unit and range of every column, and the implicit rating.

Source: the seed document, sections 2.2 to 2.6. Added to it: `as_of` (from when on a row is known: nothing may be
used before it), and names, so that an answer can name a neighbourhood. Timestamps are UTC microseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.constants import (
    N_DAY_OF_WEEK,
    N_PRICE_BANDS,
    N_TIME_OF_DAY,
    N_TIME_SLOTS,
)

Kind = Literal["categories", "tags", "vibes"]
TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
SKEW: Final = timedelta(minutes=5)  # how far the clocks of those who write events may be ahead of ours


@dataclass(frozen=True)
class Column:
    """One column's contract.

    Attributes:
        type: Arrow type.
        unit: what a value counts ("seconds", "weight", "id", …).
        low, high: inclusive range of a value, or of each element of a list or map; None: open.
        length: what the elements of a list are, one each: a kind of name in the data set's taxonomy, or a fixed number
            of them; None: any number.
        position: elements are positions of such names.
        total: what the elements of a list or map sum to, within 1e-5; None: anything.
        references: `table.column` whose values this one must be among.
        exclusive_low: `low` itself is not allowed.
        nullable: a value may be missing.
    """

    type: pa.DataType
    unit: str
    low: float | None = None
    high: float | None = None
    length: Kind | int | None = None
    position: Kind | None = None
    total: float | None = None
    references: str | None = None
    exclusive_low: bool = False
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table's contract: its columns in order and the columns that identify a row."""

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    about: str

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema; columns are not null unless the contract says so."""
        return pa.schema([pa.field(n, c.type, nullable=c.nullable) for n, c in self.columns.items()])


def _id(references: str | None = None) -> Column:
    return Column(pa.int64(), "id", low=0, references=references)


def _weights(length: Kind) -> Column:
    return Column(pa.list_(pa.float32()), "weight", low=0.0, high=1.0, length=length, total=1.0)


_AS_OF = Column(TIMESTAMP, "moment from which on the row is known")
_CITY = Column(pa.int32(), "city", low=0)
_NEIGHBORHOOD = Column(pa.int32(), "neighborhood within its city", low=0)

USERS: Final = Table(
    "users",
    {
        "user_id": _id(),
        "name": Column(pa.string(), "text"),
        "home_city_id": _CITY,
        "home_neighborhood_id": _NEIGHBORHOOD,
        "cat_pref": _weights("categories"),
        "fine_pref": _weights("tags"),
        "vibe_pref": _weights("vibes"),
        "area_freqs": Column(pa.map_(pa.int32(), pa.float32()), "weight by neighborhood", low=0, high=1, total=1),
        "avg_sessions_per_week": Column(pa.float32(), "sessions/week", low=0, exclusive_low=True),
        "avg_views_per_session": Column(pa.float32(), "views/session", low=0, exclusive_low=True),
        "avg_likes_per_session": Column(pa.float32(), "likes/session", low=0),
        "avg_saves_per_session": Column(pa.float32(), "saves/session", low=0),
        "avg_attends_per_month": Column(pa.float32(), "attendances/month", low=0),
        "as_of": _AS_OF,
    },
    key=("user_id",),
    about="People: where they live, what they like, how they behave.",
)

PLACES: Final = Table(
    "places",
    {
        "place_id": _id(),
        "name": Column(pa.string(), "text"),
        "city_id": _CITY,
        "city_name": Column(pa.string(), "text"),
        "latitude": Column(pa.float64(), "degrees north", low=-90, high=90, nullable=True),
        "longitude": Column(pa.float64(), "degrees east", low=-180, high=180, nullable=True),
        "neighborhood_id": _NEIGHBORHOOD,
        "neighborhood_name": Column(pa.string(), "text"),
        "category_ids": Column(pa.list_(pa.int32()), "category", low=0, position="categories"),
        "category_one_hot": Column(pa.list_(pa.float32()), "weight", low=0, high=1, length="categories"),
        "fine_tag_vector": _weights("tags"),
        "price_band": Column(pa.int32(), "price band", low=0, high=N_PRICE_BANDS - 1),
        "typical_time_slot": Column(pa.int32(), "time slot", low=0, high=N_TIME_SLOTS - 1),
        "base_popularity": Column(pa.float32(), "relative draw", low=0, exclusive_low=True),
        "avg_daily_visits": Column(pa.float32(), "visits/day", low=0),
        "conversion_rate": Column(pa.float32(), "attendances/view", low=0, high=1),
        "novelty_score": Column(pa.float32(), "1 / (1 + log(1 + popularity))", low=0, high=1),
        "as_of": _AS_OF,
    },
    key=("place_id",),
    about="Places to go: where, what kind, at what price and time.",
)

INTERACTIONS: Final = Table(
    "interactions",
    {
        "user_id": _id("users.user_id"),
        "place_id": _id("places.place_id"),
        "dwell_time": Column(pa.float32(), "seconds", low=0, high=86_400),
        "num_likes": Column(pa.int32(), "likes", low=0),
        "num_saves": Column(pa.int32(), "saves", low=0),
        "num_shares": Column(pa.int32(), "shares", low=0),
        "attended": Column(pa.bool_(), "yes/no"),
        "implicit_rating": Column(pa.float32(), "rating", low=1, high=5),
        "timestamp": Column(TIMESTAMP, "moment of the event"),
        "time_of_day_bucket": Column(pa.int32(), "time of day", low=0, high=N_TIME_OF_DAY - 1),
        "day_of_week_bucket": Column(pa.int32(), "day of week", low=0, high=N_DAY_OF_WEEK - 1),
    },
    key=("user_id", "place_id", "timestamp"),
    about="What people did with places, one row a view or visit.",
)

USER_USER_EDGES: Final = Table(
    "user_user_edges",
    {
        "user_u": _id("users.user_id"),
        "user_v": _id("users.user_id"),
        "interest_overlap_score": Column(pa.float32(), "cosine", low=0, high=1),
        "co_attendance_count": Column(pa.int32(), "attendances together in the whole horizon", low=0),
        "same_neighborhood_freq": Column(pa.float32(), "Jaccard", low=0, high=1),
        "as_of": _AS_OF,
    },
    key=("user_u", "user_v"),
    about="Soft social ties, one row a pair with user_u < user_v.",
)

FRIEND_LABELS: Final = Table(
    "friend_labels",
    {
        "user_u": _id("users.user_id"),
        "user_v": _id("users.user_id"),
        "label_compat": Column(pa.int32(), "0/1", low=0, high=1),
        "label_attend": Column(pa.int32(), "0/1", low=0, high=1),
        "as_of": _AS_OF,
    },
    key=("user_u", "user_v"),
    about="Supervision for the friend head: does the pair match, would the invited one come.",
)

TABLES: Final[Mapping[str, Table]] = {t.name: t for t in (USERS, PLACES, INTERACTIONS, USER_USER_EDGES, FRIEND_LABELS)}


def implicit_rating(
    dwell_time: npt.ArrayLike,
    num_likes: npt.ArrayLike,
    num_saves: npt.ArrayLike,
    num_shares: npt.ArrayLike,
    attended: npt.ArrayLike,
) -> npt.NDArray[np.float32]:
    """Engagement → rating from 1 to 5 (seed, section 2.4), vectorised.

    Args:
        dwell_time: (N,) seconds.
        num_likes, num_saves, num_shares: (N,) counts.
        attended: (N,) bool.

    Returns:
        (N,) float32 in [1, 5].
    """
    score: npt.NDArray[Any] = (
        1.0
        + np.minimum(np.asarray(dwell_time, dtype=np.float64) / 150.0, 2.0)
        + np.minimum(np.asarray(num_likes) * 0.5, 1.5)
        + np.minimum(np.asarray(num_saves) * 1.0, 2.0)
        + np.minimum(np.asarray(num_shares) * 0.5, 1.0)
        + np.asarray(attended) * 2.0
    )
    rating: npt.NDArray[np.float32] = np.minimum(score, 5.0).astype(np.float32)
    return rating
