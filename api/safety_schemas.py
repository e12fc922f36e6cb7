"""Requests and answers about who is kept apart from whom, and which places are hidden."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from api.fields import ANY_ID, AnyId, PlaceNumber, RequestId, Strict
from api.schemas import Named, User

MAX_BLOCKS: Final = 1_000  # of one request


class BlocksRequest(Strict):
    """Whom somebody no longer wants to meet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": [7, 8]}]})

    user_ids: list[AnyId] = Field(min_length=1, max_length=MAX_BLOCKS, description=f"whom: {ANY_ID}")


class BlocksResponse(BaseModel):
    """Whom somebody blocked; on disk, and in the next answer."""

    user: User = Field(description="who blocked")
    blocks: list[User] = Field(description="in the order of blocking; who blocked them is not said")
    request_id: RequestId


class Place(Named):
    """A place by its ids."""

    place_id: PlaceNumber


class HiddenResponse(BaseModel):
    """Whether a place is hidden from everybody; on disk, and in the next answer."""

    place: Place = Field(description="which")
    hidden: bool = Field(description="whether nobody is shown it")
    request_id: RequestId
