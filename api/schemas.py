"""Requests and answers: the seed's section 6.3; fields are added, never renamed."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.fields import (
    ANY_ID,
    AnyId,
    Area,
    Band,
    City,
    Cursor,
    Excluded,
    Moment,
    Position,
    Share,
    Slot,
    Strict,
    TopK,
)
from recsys.constants import N_PRICE_BANDS
from recsys.events import Kind
from recsys.sources import PLACE_SOURCES
from recsys.taxonomy import MAX_TAGS

MAX_EVENTS: Final = 1_000  # of one request


Explain = Literal["none", "reasons"]


class PriceRange(Strict):
    """Price bands, both ends included."""

    min: Band = 0
    max: Band = N_PRICE_BANDS - 1


class PlaceFilters(Strict):
    """What a place must meet; of a list, one of its values."""

    price: PriceRange | None = Field(default=None, description="price bands, 0 cheap … 4 dear")
    categories: list[Position] | None = Field(
        default=None, min_length=1, max_length=MAX_TAGS, description="positions in the categories of GET /taxonomy"
    )
    tags: list[Position] | None = Field(
        default=None, min_length=1, max_length=MAX_TAGS, description="positions in the tags of GET /taxonomy"
    )
    neighborhoods: list[Area] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_TAGS,
        description="of the city: names as answers give them, or numbers",
    )
    open_slot: Slot | None = Field(
        default=None, description="the time slot that is typical of the place: data hold no opening hours"
    )


class ProfileIn(Strict):
    """What somebody says of themselves."""

    categories: list[Position] = Field(
        default=[], max_length=MAX_TAGS, description="what they like: positions in the categories of GET /taxonomy"
    )
    tags: list[Position] = Field(
        default=[], max_length=MAX_TAGS, description="what they like: positions in the tags of GET /taxonomy"
    )


class PlaceRecommendationRequest(Strict):
    """Places for one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": 42, "city_id": 2, "time_slot": 2, "desired_categories": [0, 2], "top_k": 10}]
        }
    )

    user_id: AnyId | None = Field(default=None, description=f"whom for: {ANY_ID}; may be left out with a `profile`")
    profile: ProfileIn | None = Field(
        default=None, description="of somebody who is not known yet; has no effect on somebody who is"
    )
    city_id: City | None = Field(default=None, description="where to go; default: the user's own city")
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    desired_categories: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what for: positions in the categories of GET /taxonomy"
    )
    exclude_visited: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="only places where the user never was: no event of theirs, of any kind"
    )
    filters: PlaceFilters | None = Field(default=None, description="what a place must meet; all that are said")
    exclude_place_ids: Excluded = Field(default=[], description=f"places that are left out: {ANY_ID}")
    diversity: Share = Field(default=0.0, description="0 best first … 1 as unlike each other as can be")
    novelty: Share = Field(default=0.0, description="0 best first … 1 the least visited first")
    explain: Explain = Field(default="reasons", description="what is said of each place: nothing, or reasons in words")
    top_k: TopK = 10
    cursor: Cursor | None = Field(default=None, description="`next_cursor` of the page before")


class Named(BaseModel):
    """What the team's own data call it."""

    source: str | None = Field(default=None, description="of an ingested data set: the source")
    source_id: str | None = Field(default=None, description="and its own id there")


class User(Named):
    """Whom an answer is for."""

    user_id: int


class PlaceRecommendation(Named):
    """One place, and why."""

    place_id: int
    score: float = Field(description="the place head's, between 0 and 1; of somebody unknown, popularity and fit")
    explanations: list[str]
    name: str
    neighborhood_name: str
    sources: list[str] = Field(
        description=f"which sources named it as a candidate: {', '.join(PLACE_SOURCES)}; none: it filled the list up; "
        "for somebody unknown: popular, profile"
    )


class PlaceRecommendationResponse(BaseModel):
    """Places of one city, best first."""

    user: User | None = Field(description="null for somebody without an id, or whose id nobody knows")
    recommendations: list[PlaceRecommendation]
    city_id: int
    city_name: str
    features_age_s: float = Field(description="how old the oldest of the places' features is, seconds")
    next_cursor: str | None = Field(description="with which the list goes on; null where it ends")
    degraded: list[str] = Field(description="what this answer had to do without: user_vector; empty: nothing")
    model_version: str
    request_id: str


class PeopleRecommendationRequest(Strict):
    """People for one user to go with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "target_place_id": 17, "activity_tags": [7, 8], "top_k": 10}]}
    )

    user_id: AnyId = Field(description=f"whom for: {ANY_ID}")
    city_id: City | None = Field(default=None, description="where they live; default: the user's own city")
    target_place_id: AnyId | None = Field(default=None, description=f"the place to go to: {ANY_ID}")
    activity_tags: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what to do there: positions in the tags of GET /taxonomy"
    )
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    top_k: TopK = 10


class PeopleRecommendation(Named):
    """One person, and why."""

    user_id: int
    compat_score: float = Field(description="probability that the two match")
    attend_prob: float = Field(description="probability that they would come")
    combined_score: float = Field(description="0.7 x compat_score + 0.3 x attend_prob")
    explanations: list[str]
    name: str


class PeopleRecommendationResponse(BaseModel):
    """People of one city, best first."""

    user: User
    recommendations: list[PeopleRecommendation]
    city_id: int
    city_name: str
    model_version: str
    request_id: str


class EventIn(Strict):
    """One thing that somebody did."""

    id: Annotated[str, Field(strict=True, min_length=1, max_length=200)] = Field(
        description="yours; what is sent twice under one id counts once"
    )
    user_id: AnyId = Field(description=f"who: {ANY_ID}")
    place_id: AnyId = Field(description=f"where: {ANY_ID}")
    kind: Kind = Field(description="what they did")
    timestamp: Moment | None = Field(
        default=None, description="when, ISO 8601, best with the offset of the place's own time; left out: now"
    )
    dwell_seconds: Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)] | None = Field(
        default=None, description="how long they looked or stayed; left out: 30, or 150 for attend"
    )


class EventsRequest(Strict):
    """What people did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"id": "a-1", "user_id": 42, "place_id": 17, "kind": "view", "dwell_seconds": 12.5},
                        {"id": "a-2", "user_id": 42, "place_id": 17, "kind": "save"},
                    ]
                }
            ]
        }
    )

    events: list[EventIn] = Field(min_length=1, max_length=MAX_EVENTS)


class EventRejected(BaseModel):
    """One event that was not taken, and why."""

    index: int = Field(description="position in the request, from 0")
    id: str
    reason: str


class EventsResponse(BaseModel):
    """What became of the events; what is accepted is on disk."""

    accepted: int
    duplicates: int = Field(description="taken before, under the same id")
    rejected: list[EventRejected]
    online: bool = Field(description="the next answer counts them; false: they count as soon as the online store can")
    model_version: str
    request_id: str


class TaxonomyResponse(BaseModel):
    """What positions mean in the live version: names in order."""

    categories: list[str]
    tags: list[str]
    tag_category: list[int] = Field(description="of each tag, the position of its category")
    vibes: list[str]
    model_version: str


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """Every error, as RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] = []


class Root(BaseModel):
    """What this is."""

    name: str
    version: str
    model_version: str | None
    links: dict[str, str]


class Health(BaseModel):
    """The process answers."""

    status: str


class Ready(BaseModel):
    """Every part answers."""

    status: str
    model_version: str
    parts: dict[str, str]
