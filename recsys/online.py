"""What one request reads of a user and of a place, as the online store keeps it."""

from dataclasses import dataclass

from recsys.aggregates.finish import Bools, Floats
from recsys.aggregates.states import Ints


@dataclass(frozen=True)
class UserProfile:
    """What a user says of themselves, or is known by; vectors are float32. What reasons need."""

    user_id: int
    name: str
    home_city_id: int
    home_neighborhood_id: int
    cat_pref: Floats
    fine_pref: Floats
    vibe_pref: Floats
    areas: dict[int, float]


@dataclass(frozen=True)
class UserRow(UserProfile):
    """One user as read online.

    Attributes:
        activity: (D,) float32 ONLINE_USER.
        recent: (R,) int64, the places of the last visits and views, newest first, at most 50; a place may repeat.
    """

    activity: Floats
    recent: Ints


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


@dataclass(frozen=True)
class Candidates:
    """One user and the candidates of their request, as ranking reads them.

    Attributes:
        user: None where the store knows none.
        features: (C, D) float32, ONLINE_PLACE or ONLINE_PEOPLE; what is missing or too old is zero, and its `…_known`
            column says so.
        age_s: how old the oldest of them is in this process; 0 where all were just read.
        lost: (C, 2) whether a candidate's own row, and that of the pair, are on a node of a cluster that did not
            answer: their features are zero; None: nobody's.
        user_lost: whether the user's own rows are.
    """

    user: UserProfile | None
    features: Floats
    age_s: float
    lost: Bools | None = None
    user_lost: bool = False
