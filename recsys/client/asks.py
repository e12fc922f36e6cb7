"""What may be asked: the fields of requests, as in `docs/openapi.json`. What is left out has the server's default."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Required, TypedDict

from recsys.client.answers import Strategy

Id = int | str  # our number, or the id of the team's own data ("source:id" where two sources have the same)


class PriceRange(TypedDict, total=False):
    """Price bands, 0 to 4, both ends included."""

    min: int
    max: int


class PlaceFilters(TypedDict, total=False):
    """What a place must meet; of a list, one of its values."""

    price: PriceRange
    categories: Sequence[int]
    tags: Sequence[int]
    neighborhoods: Sequence[str | int]
    open_slot: int


class Profile(TypedDict, total=False):
    """What somebody likes who is not known yet."""

    categories: Sequence[int]
    tags: Sequence[int]


class PlaceContext(TypedDict, total=False):
    """What may be asked of any list of places."""

    city_id: int
    time_slot: int
    desired_categories: Sequence[int]
    exclude_visited: bool
    filters: PlaceFilters
    exclude_place_ids: Sequence[Id]
    diversity: float
    novelty: float
    top_k: int
    cursor: str


class Places(PlaceContext, total=False):
    """Of a request for places: `user_id`, or a `profile`."""

    user_id: Id
    profile: Profile
    explain: Literal["none", "reasons", "parts"]


class Groups(PlaceContext, total=False):
    """Of a request for places for several users."""

    user_ids: Required[Sequence[Id]]
    explain: Literal["none", "reasons"]
    strategy: Strategy


class People(TypedDict, total=False):
    """Of a request for people."""

    user_id: Required[Id]
    city_id: int
    target_place_id: Id
    activity_tags: Sequence[int]
    time_slot: int
    exclude_friends: bool
    top_k: int
    cursor: str


class Explain(PlaceContext, total=False):
    """Why `place_id`, or else `person_id`, is in the list that the other fields ask for, or why not."""

    user_id: Required[Id]
    place_id: Id
    person_id: Id
    target_place_id: Id
    activity_tags: Sequence[int]
    exclude_friends: bool


class Event(TypedDict, total=False):
    """One thing that somebody did; `id` is yours, and what is sent twice under one counts once.

    A `timestamp` that is a `datetime` has an offset: best that of the place.
    """

    id: Required[str]
    user_id: Required[Id]
    place_id: Required[Id]
    kind: Required[Literal["view", "like", "save", "share", "attend"]]
    timestamp: datetime | str
    dwell_seconds: float
