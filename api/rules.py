"""What may be asked of any list of places: rules, variety, length."""

from typing import Annotated, Literal

from pydantic import Field

from api.fields import ANY_ID, Area, Band, City, Cursor, Excluded, Position, Share, Slot, Strict, TopK
from recsys.constants import N_PRICE_BANDS
from recsys.taxonomy import MAX_TAGS

Explain = Literal["none", "reasons", "parts"]


class PriceRange(Strict):
    """Price bands, both ends included."""

    min: Band = Field(default=0, description="the cheapest band")
    max: Band = Field(default=N_PRICE_BANDS - 1, description="the dearest; at least `min`")


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


class PlaceContext(Strict):
    """What may be asked of any list of places."""

    city_id: City | None = Field(default=None, description="where to go; default: the user's own city, or most users'")
    time_slot: Slot | None = Field(default=None, description="0 morning … 5 weekend night; left out: not said")
    desired_categories: list[Position] | None = Field(
        default=None, max_length=MAX_TAGS, description="what for: positions in the categories of GET /taxonomy"
    )
    exclude_visited: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="only places where none of the users ever was: no event of theirs, of any kind"
    )
    filters: PlaceFilters | None = Field(default=None, description="what a place must meet; all that are said")
    exclude_place_ids: Excluded = Field(default=[], description=f"places that are left out: {ANY_ID}")
    diversity: Share = Field(default=0.0, description="0 best first … 1 as unlike each other as can be")
    novelty: Share = Field(default=0.0, description="0 best first … 1 the least visited first")
    top_k: TopK = 10
    cursor: Cursor | None = Field(default=None, description="`next_cursor` of the page before")


class PlaceRules(PlaceContext):
    """The same, and what is said of each."""

    explain: Explain = Field(
        default="reasons",
        description="what is said of each place: nothing, reasons, or also what moved its score (`score_parts`)",
    )
