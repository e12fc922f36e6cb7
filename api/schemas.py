"""Requests and answers: the seed's section 6.3; fields are added, never renamed."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from recsys.constants import N_TIME_SLOTS
from recsys.events import Kind
from recsys.recommend.engine import TOP_K_MAX
from recsys.sources import PEOPLE_SOURCES, PLACE_SOURCES
from recsys.taxonomy import MAX_TAGS

# Strict: `true` and `"1"` are no ids, and the OpenAPI file says so too.
Id = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
SourceId = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
TEXT, NUMBER = "id of a source", "number"


def _kind(value: Any) -> str:
    return TEXT if isinstance(value, str) else NUMBER


# Our number, or what the team's own data call it; the tags keep a refusal to one message, of the kind that was meant.
AnyId = Annotated[Annotated[Id, Tag(NUMBER)] | Annotated[SourceId, Tag(TEXT)], Discriminator(_kind)]
_ANY_ID: Final = "our number, or the source's own id as text (`source:id` where two sources have the same)"
City = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Position = Annotated[int, Field(strict=True, ge=0, lt=MAX_TAGS)]  # the live version may know fewer: GET /taxonomy
Slot = Annotated[int, Field(strict=True, ge=0, lt=N_TIME_SLOTS)]
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")
MAX_EVENTS: Final = 1_000  # of one request
TopK = Annotated[int, Field(strict=True, ge=1, le=TOP_K_MAX)]


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt one must not be silently without effect."""

    model_config = ConfigDict(extra="forbid")


def _is_text(value: Any) -> Any:
    if not isinstance(value, str) or not _MOMENT.match(value):
        raise ValueError(f"must be a moment in ISO 8601, like 2024-03-25T18:30:00+07:00 (got {value!r:.40})")
    return value


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


# The hour is that of the offset which is given: who says when something happened knows the local time.
Moment = Annotated[datetime, BeforeValidator(_is_text), AfterValidator(_in_utc)]


class PlaceRecommendationRequest(Strict):
    """Places for one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": 42, "city_id": 2, "time_slot": 2, "desired_categories": [0, 2], "top_k": 10}]
        }
    )

    user_id: AnyId = Field(description=f"whom for: {_ANY_ID}")
    city_id: City | None = Field(default=None, description="where to go; default: the user's own city")
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    desired_categories: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what for: positions in the categories of GET /taxonomy"
    )
    exclude_visited: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="only places where the user never was: no event of theirs, of any kind"
    )
    top_k: TopK = 10


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
    score: float = Field(description="the place head's, between 0 and 1")
    explanations: list[str]
    name: str
    neighborhood_name: str
    sources: list[str] = Field(
        description=f"which sources named it as a candidate: {', '.join(PLACE_SOURCES)}; none: it filled the list up"
    )


class PlaceRecommendationResponse(BaseModel):
    """Places of one city, best first."""

    user: User
    recommendations: list[PlaceRecommendation]
    city_id: int
    city_name: str
    features_age_s: float = Field(description="how old the oldest of the places' features is, seconds")
    model_version: str
    request_id: str


class PeopleRecommendationRequest(Strict):
    """People for one user to go with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "target_place_id": 17, "activity_tags": [7, 8], "top_k": 10}]}
    )

    user_id: AnyId = Field(description=f"whom for: {_ANY_ID}")
    city_id: City | None = Field(default=None, description="where they live; default: the user's own city")
    target_place_id: AnyId | None = Field(default=None, description=f"the place to go to: {_ANY_ID}")
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
    sources: list[str] = Field(
        description=f"which sources named them as a candidate: {', '.join(PEOPLE_SOURCES)}; none: filled the list up"
    )


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
    user_id: AnyId = Field(description=f"who: {_ANY_ID}")
    place_id: AnyId = Field(description=f"where: {_ANY_ID}")
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
