"""The suites of the tables. A suite is made for a data set: its horizon and sizes."""

from collections.abc import Callable, Mapping
from typing import Final

from expectations import friend_labels, interactions, places, user_user_edges, users
from expectations.rules import Bounds
from recsys.quality import Suite

# In the order in which they can be judged: what refers comes after what it refers to.
SUITES: Final[Mapping[str, Callable[[Bounds], Suite]]] = {
    "users": users.suite,
    "places": places.suite,
    "interactions": interactions.suite,
    "user_user_edges": user_user_edges.suite,
    "friend_labels": friend_labels.suite,
}
