"""Requests and answers: the seed's section 6.3; fields are added, never renamed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recsys.constants import N_TIME_SLOTS
from recsys.recommend.engine import TOP_K_MAX
from recsys.taxonomy import MAX_TAGS

# Strict: `true` and `"1"` are no ids, and the OpenAPI file says so too.
Id = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
City = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Position = Annotated[int, Field(strict=True, ge=0, lt=MAX_TAGS)]  # the live version may know fewer: GET /taxonomy
Slot = Annotated[int, Field(strict=True, ge=0, lt=N_TIME_SLOTS)]
TopK = Annotated[int, Field(strict=True, ge=1, le=TOP_K_MAX)]


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt one must not be silently without effect."""

    model_config = ConfigDict(extra="forbid")


class PlaceRecommendationRequest(Strict):
    """Places for one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": 42, "city_id": 2, "time_slot": 2, "desired_categories": [0, 2], "top_k": 10}]
        }
    )

    user_id: Id
    city_id: City | None = Field(default=None, description="where to go; default: the user's own city")
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    desired_categories: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what for: positions in the categories of GET /taxonomy"
    )
    top_k: TopK = 10


class PlaceRecommendation(BaseModel):
    """One place, and why."""

    place_id: int
    score: float = Field(description="the place head's, between 0 and 1")
    explanations: list[str]
    name: str
    neighborhood_name: str


class PlaceRecommendationResponse(BaseModel):
    """Places of one city, best first."""

    recommendations: list[PlaceRecommendation]
    city_id: int
    city_name: str
    model_version: str
    request_id: str


class PeopleRecommendationRequest(Strict):
    """People for one user to go with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "target_place_id": 17, "activity_tags": [7, 8], "top_k": 10}]}
    )

    user_id: Id
    city_id: City | None = Field(default=None, description="where they live; default: the user's own city")
    target_place_id: Id | None = Field(default=None, description="the place to go to")
    activity_tags: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what to do there: positions in the tags of GET /taxonomy"
    )
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    top_k: TopK = 10


class PeopleRecommendation(BaseModel):
    """One person, and why."""

    user_id: int
    compat_score: float = Field(description="probability that the two match")
    attend_prob: float = Field(description="probability that they would come")
    combined_score: float = Field(description="0.7 x compat_score + 0.3 x attend_prob")
    explanations: list[str]
    name: str


class PeopleRecommendationResponse(BaseModel):
    """People of one city, best first."""

    recommendations: list[PeopleRecommendation]
    city_id: int
    city_name: str
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
