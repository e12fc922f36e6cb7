"""What people did, as features: each defined once, with its SQL over history and its fold of one event.

A feature view's row is a *state*: counts by day, or sums so far, in one packed list of float64. History makes states
by SQL (`history`), the online store changes them one event at a time (`fold`), and both are turned into what the model
reads by the same functions, as of a moment (`finish`). So a window shrinks as time goes by although nothing happens,
and training and serving cannot hold different numbers.
"""

from recsys.aggregates.definitions import (
    ACTIVITY_HEAD,
    PAIR_HEAD,
    PAIR_TTL,
    PLACE_COUNTERS,
    RECENT_HEAD,
    RECENT_PLACES,
    TIE_STATE,
    USER_COUNTERS,
    USER_PLACE,
    WINDOW_DAYS,
    Interaction,
)
from recsys.aggregates.finish import (
    ACTIVITY_TTL,
    D_ONLINE_PEOPLE,
    D_ONLINE_PLACE,
    ONLINE_PAIR,
    ONLINE_PEOPLE,
    ONLINE_PLACE,
    ONLINE_TIE,
    ONLINE_USER,
    PLACE_ACTIVITY,
    USER_ACTIVITY,
    USER_USER,
    Pairs,
    finish_pairs,
    finish_places,
    finish_ties,
    finish_users,
    pairs_of,
)
from recsys.aggregates.history import TOGETHER, VIEWS
from recsys.aggregates.states import States

__all__ = [
    "ACTIVITY_HEAD",
    "ACTIVITY_TTL",
    "D_ONLINE_PEOPLE",
    "D_ONLINE_PLACE",
    "ONLINE_PAIR",
    "ONLINE_PEOPLE",
    "ONLINE_PLACE",
    "ONLINE_TIE",
    "ONLINE_USER",
    "PAIR_HEAD",
    "PAIR_TTL",
    "PLACE_ACTIVITY",
    "PLACE_COUNTERS",
    "RECENT_HEAD",
    "RECENT_PLACES",
    "TIE_STATE",
    "TOGETHER",
    "USER_ACTIVITY",
    "USER_COUNTERS",
    "USER_PLACE",
    "USER_USER",
    "VIEWS",
    "WINDOW_DAYS",
    "Interaction",
    "Pairs",
    "States",
    "finish_pairs",
    "finish_places",
    "finish_ties",
    "finish_users",
    "pairs_of",
]
