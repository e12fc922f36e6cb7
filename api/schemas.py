"""Requests and answers: the seed's section 6.3; fields are added, never renamed."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.fields import (
    ANY_ID,
    AnyId,
    AreaName,
    City,
    CityId,
    CityName,
    Cursor,
    FeaturesAge,
    ModelVersion,
    Moment,
    PlaceName,
    PlaceNumber,
    Position,
    Reasons,
    RequestId,
    Slot,
    Strict,
    TopK,
    UserNumber,
)
from api.rules import PlaceContext, PlaceRules, ProfileIn
from recsys.events import Kind
from recsys.recommend.fallback import DEGRADATIONS
from recsys.recommend.groups import MAX_GROUP, Strategy
from recsys.sources import PEOPLE_SOURCES, PLACE_SOURCES
from recsys.taxonomy import MAX_TAGS

MAX_EVENTS: Final = 1_000  # of one request
DEGRADED: Final = "what this answer had to do without, empty: nothing; " + "; ".join(
    f"{name}: {said}" for name, said in DEGRADATIONS.items()
)


class PlaceRecommendationRequest(PlaceRules):
    """Places for one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": 42, "city_id": 2, "time_slot": 2, "desired_categories": [0, 2], "top_k": 3}]
        }
    )

    user_id: AnyId | None = Field(default=None, description=f"whom for: {ANY_ID}; may be left out with a `profile`")
    profile: ProfileIn | None = Field(
        default=None, description="of somebody who is not known yet; has no effect on somebody who is"
    )


class GroupRecommendationRequest(PlaceContext):
    """Places for several users at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": [42, 17, 8], "time_slot": 5, "top_k": 3}]})

    user_ids: list[AnyId] = Field(min_length=2, max_length=MAX_GROUP, description=f"whom for, each once: {ANY_ID}")
    explain: Literal["none", "reasons"] = Field(
        default="reasons", description="what is said of each place to each user: nothing, or reasons"
    )
    strategy: Strategy = Field(
        default="least_misery", description="the order: by the score of whom a place suits least, or by the mean score"
    )


class Named(BaseModel):
    """What the team's own data call it."""

    source: str | None = Field(default=None, description="of an ingested data set: the source")
    source_id: str | None = Field(default=None, description="and its own id there")


class User(Named):
    """Whom an answer is for."""

    user_id: UserNumber


class PlaceRecommendation(Named):
    """One place, and why."""

    place_id: PlaceNumber
    score: float = Field(description="the place head's, between 0 and 1; of somebody unknown, popularity and fit")
    explanations: Reasons
    name: PlaceName
    neighborhood_name: AreaName
    sources: list[str] = Field(
        description=f"which sources named it as a candidate: {', '.join(PLACE_SOURCES)}; none: it filled the list up; "
        "for somebody unknown: popular, profile"
    )
    score_parts: dict[str, float] | None = Field(
        default=None, description="with `explain` parts: log-odds that the score would lose without each kind of input"
    )


class PlaceRecommendationResponse(BaseModel):
    """Places of one city, best first."""

    user: User | None = Field(description="null for somebody without an id, or whose id nobody knows")
    recommendations: list[PlaceRecommendation] = Field(description="best first, each once")
    city_id: CityId
    city_name: CityName
    features_age_s: FeaturesAge
    next_cursor: str | None = Field(description="with which the list goes on; null where it ends")
    degraded: list[str] = Field(description=DEGRADED)
    model_version: ModelVersion
    request_id: RequestId


class GroupMember(User):
    """What a place is to one of them."""

    score: float = Field(description="the place head's, between 0 and 1")
    explanations: Reasons


class GroupRecommendation(Named):
    """One place, and what it is to each."""

    place_id: PlaceNumber
    score: float = Field(description="that of the strategy")
    least_misery: float = Field(description="the lowest of the members' scores")
    average: float = Field(description="their mean")
    members: list[GroupMember] = Field(description="what it is to each of them, in the order of the request")
    name: PlaceName
    neighborhood_name: AreaName


class GroupRecommendationResponse(BaseModel):
    """Places of one city for all of them, best first."""

    users: list[User] = Field(description="whom it is for, in the order of the request")
    strategy: Strategy = Field(description="what the order is by")
    recommendations: list[GroupRecommendation] = Field(description="best first, each once")
    city_id: CityId
    city_name: CityName
    features_age_s: FeaturesAge
    next_cursor: str | None = Field(description="with which the list goes on; null where it ends")
    degraded: list[str] = Field(description=DEGRADED)
    model_version: ModelVersion
    request_id: RequestId


class PeopleRecommendationRequest(Strict):
    """People for one user to go with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "target_place_id": 17, "activity_tags": [7, 8], "top_k": 3}]}
    )

    user_id: AnyId = Field(description=f"whom for: {ANY_ID}")
    city_id: City | None = Field(default=None, description="where they live; default: the user's own city")
    target_place_id: AnyId | None = Field(default=None, description=f"the place to go to: {ANY_ID}")
    activity_tags: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what to do there: positions in the tags of GET /taxonomy"
    )
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    exclude_friends: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="nobody who is a friend already; refused where the data know no friendships"
    )
    top_k: TopK = 10
    cursor: Cursor | None = Field(default=None, description="`next_cursor` of the page before")


class PeopleRecommendation(Named):
    """One person, and why."""

    user_id: UserNumber
    compat_score: float = Field(description="probability that the two match")
    attend_prob: float = Field(description="probability that they would come")
    combined_score: float = Field(description="0.7 x compat_score + 0.3 x attend_prob")
    explanations: Reasons
    name: str = Field(description="what they are called; empty where it cannot be read now")
    sources: list[str] = Field(
        description=f"which sources named them as a candidate: {', '.join(PEOPLE_SOURCES)}; none: filled the list up"
    )


class PeopleRecommendationResponse(BaseModel):
    """People of one city, best first."""

    user: User = Field(description="whom it is for")
    recommendations: list[PeopleRecommendation] = Field(description="best first, each once")
    city_id: CityId
    city_name: CityName
    features_age_s: FeaturesAge
    next_cursor: str | None = Field(description="with which the list goes on; null where it ends")
    degraded: list[str] = Field(description=DEGRADED)
    model_version: ModelVersion
    request_id: RequestId


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

    events: list[EventIn] = Field(min_length=1, max_length=MAX_EVENTS, description="what happened, in any order")


class EventRejected(BaseModel):
    """One event that was not taken, and why."""

    index: int = Field(description="position in the request, from 0")
    id: str = Field(description="yours")
    reason: str = Field(description="in one sentence")


class EventsResponse(BaseModel):
    """What became of the events; what is accepted is on disk."""

    accepted: int = Field(description="are in the log now")
    duplicates: int = Field(description="taken before, under the same id")
    rejected: list[EventRejected] = Field(description="were not taken; the others were")
    online: bool = Field(description="the next answer counts them; false: they count as soon as the online store can")
    model_version: ModelVersion
    request_id: RequestId


class TaxonomyResponse(BaseModel):
    """What positions mean in the live version: names in order."""

    categories: list[str] = Field(description="by position")
    tags: list[str] = Field(description="by position")
    tag_category: list[int] = Field(description="of each tag, the position of its category")
    vibes: list[str] = Field(description="by position")
    model_version: ModelVersion


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="which, with dots between names and positions: `events.0.kind`")
    message: str = Field(description="what it must be")


class Problem(BaseModel):
    """Every error, as RFC 9457 problem details."""

    type: str = Field(default="about:blank", description="no more than the status says")
    title: str = Field(description="what the status is called")
    status: int = Field(description="that of the answer")
    detail: str = Field(description="what is wrong, in one sentence")
    request_id: RequestId
    errors: list[FieldError] = Field(default=[], description="of 422: every field that is wrong")


class Root(BaseModel):
    """What this is."""

    name: str = Field(description="recsys")
    version: str = Field(description="of the code")
    model_version: str | None = Field(description="the version that serves; null while nothing is published")
    links: dict[str, str] = Field(description="where to go on: a path by name")


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(description="alive")


class Ready(BaseModel):
    """Requests may come; degraded: answers do without a part."""

    status: Literal["ready", "degraded"] = Field(description="degraded: something is missing, and answers do without")
    model_version: str = Field(description="the version that serves")
    parts: dict[str, str] = Field(description="how each part is, in words")
