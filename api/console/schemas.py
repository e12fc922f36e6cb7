"""Requests and answers of the console's endpoints."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from api.fields import City, Excluded, Strict, TopK
from api.rules import PlaceFilters
from api.schemas import DEGRADED, Named, User

MAX_FOUND: Final = 50
MAX_PLACES: Final = 100


class CityOut(BaseModel):
    """A city of the live version."""

    city_id: int = Field(description="which city")
    city_name: str = Field(description="its name")


class About(BaseModel):
    """What the page begins with."""

    model_version: str = Field(description="the version that serves")
    versions: list[str] = Field(description="the versions that are loaded, the live one first")
    synthetic: bool = Field(description="a made-up world, whose truth is known")
    someone: int = Field(description="a person of the live version to begin with")
    now: str = Field(description="the moment the service believes in, ISO 8601")
    cities: list[CityOut] = Field(description="of the live version")
    time_slots: list[str] = Field(description="names, in order")
    slot_by_day_and_time: list[list[int]] = Field(
        description="of weekdays and weekends, the slot of morning, afternoon, evening and night"
    )
    names: bool = Field(description="people can be found by name: the lake is here")


class PersonFound(User):
    """Somebody of the live version."""

    name: str = Field(description="empty where it is not known")
    city_id: int = Field(description="which city")
    city_name: str = Field(description="its name")


class PeopleFound(BaseModel):
    """Who was found, best first."""

    users: list[PersonFound] = Field(description="at most as many as were asked for")


class Weighted(BaseModel):
    """One of somebody's tastes."""

    name: str = Field(description="of the category, tag, vibe or neighborhood")
    weight: float = Field(description="share of the whole, 0 to 1")


class PlaceSeen(Named):
    """A place where somebody was."""

    place_id: int = Field(description="our number")
    name: str = Field(description="as people read it")
    neighborhood_name: str = Field(description="empty where it is not known")
    city_name: str = Field(description="where it is")


class PersonOut(PersonFound):
    """Somebody as the online store has them now."""

    neighborhood_name: str = Field(description="empty where it is not known")
    categories: list[Weighted] = Field(description="heaviest first")
    tags: list[Weighted] = Field(description="heaviest first, at most 8")
    vibes: list[Weighted] = Field(description="heaviest first, at most 5")
    neighborhoods: list[Weighted] = Field(description="where they go out, in their own city")
    recent: list[PlaceSeen] = Field(description="places of their last visits and views, newest first, each once")
    degraded: list[str] = Field(description=DEGRADED)


class NeighborhoodOut(BaseModel):
    """One neighborhood, and where it is."""

    neighborhood_id: int = Field(description="within its city")
    name: str = Field(description="as people read it")
    places: int = Field(description="of the live version")
    latitude: float | None = Field(description="degrees north, the middle of its places; null: not known")
    longitude: float | None = Field(description="degrees east")


class CityMap(CityOut):
    """A city and its neighborhoods."""

    neighborhoods: list[NeighborhoodOut] = Field(description="by their numbers")


class PlaceOut(Named):
    """A place: what a card says besides score and reasons."""

    place_id: int = Field(description="our number")
    name: str = Field(description="as people read it")
    city_id: int = Field(description="which city")
    neighborhood_id: int = Field(description="within its city")
    neighborhood_name: str = Field(description="empty where it is not known")
    price_band: int = Field(description="0 cheap … 4 dear")
    time_slot: int = Field(description="the one that is typical of it")
    categories: list[str] = Field(description="names")
    tags: list[str] = Field(description="at most 6, the most typical first")
    visitors: int | None = Field(description="users who had been there when the version was made; null: it is newer")
    latitude: float | None = Field(description="degrees north; null: not known")
    longitude: float | None = Field(description="degrees east; null: not known")


class PlacesOut(BaseModel):
    """Places in the order in which they were asked for, without those that nobody knows."""

    places: list[PlaceOut] = Field(description="what cards say")
    degraded: list[str] = Field(description=DEGRADED)


class PopularRequest(Strict):
    """The city's most visited places, under a request's rules."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"city_id": 2, "top_k": 10}]})

    city_id: City = Field(description="which city")
    filters: PlaceFilters | None = Field(default=None, description="as of a request for places")
    exclude_place_ids: Excluded = Field(default=[], description="places that are left out")
    top_k: TopK = 10


class PopularOut(Named):
    """One place."""

    place_id: int = Field(description="our number")
    name: str = Field(description="as people read it")
    neighborhood_name: str = Field(description="empty where it is not known")
    visitors: int = Field(description="users who had been there when the version was made")


class PopularResponse(BaseModel):
    """The same list for everybody, most visited first."""

    recommendations: list[PopularOut] = Field(description="best first")
    city_id: int = Field(description="which city")
    city_name: str = Field(description="its name")
    degraded: list[str] = Field(description=DEGRADED)
    model_version: str = Field(description="the version that answered")
    request_id: str = Field(description="finds the request in the log")


class OraclePlace(Named):
    """One place."""

    place_id: int = Field(description="our number")
    name: str = Field(description="as people read it")
    neighborhood_name: str = Field(description="empty where it is not known")


class OracleResponse(BaseModel):
    """The best that any model could answer; empty for somebody of whom it was not written down."""

    there: bool = Field(description="the lists of this data set are there")
    examples: list[int] = Field(description="some of the users of whom there is one")
    recommendations: list[OraclePlace] = Field(description="best first")
    degraded: list[str] = Field(description=DEGRADED)


Text = Annotated[str, Field(max_length=200)]
