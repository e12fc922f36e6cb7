"""Types of the fields of requests: what each may hold, strictly."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from recsys.constants import N_PRICE_BANDS, N_TIME_SLOTS
from recsys.recommend.cursor import MAX_CHARS
from recsys.recommend.engine import TOP_K_MAX
from recsys.taxonomy import MAX_TAGS

# Strict: `true` and `"1"` are no ids, and the OpenAPI file says so too.
Id = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
SourceId = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
TEXT, NUMBER = "id of a source", "number"


def _kind(value: Any) -> str:
    return TEXT if isinstance(value, str) else NUMBER


# Our number, or what the team's own data call it; the tags keep a refusal to one message, of the kind that was meant.
AnyId = Annotated[Annotated[Id, Tag(NUMBER)] | Annotated[SourceId, Tag(TEXT)], Discriminator(_kind)]
ANY_ID: Final = "our number, or the source's own id as text (`source:id` where two sources have the same)"
City = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Position = Annotated[int, Field(strict=True, ge=0, lt=MAX_TAGS)]  # the live version may know fewer: GET /taxonomy
Area = Annotated[
    Annotated[City, Tag(NUMBER)] | Annotated[str, Field(strict=True, min_length=1, max_length=200), Tag(TEXT)],
    Discriminator(_kind),
]
Slot = Annotated[int, Field(strict=True, ge=0, lt=N_TIME_SLOTS)]
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Band = Annotated[int, Field(strict=True, ge=0, lt=N_PRICE_BANDS)]
MAX_EXCLUDED: Final = 1_000  # of one request
TopK = Annotated[int, Field(strict=True, ge=1, le=TOP_K_MAX, description="how many at most")]


Excluded = Annotated[list[AnyId], Field(max_length=MAX_EXCLUDED)]
Cursor = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_CHARS)]

# What answers have in common.
RequestId = Annotated[str, Field(description="finds this request in the log; also in the header X-Request-ID")]
ModelVersion = Annotated[str, Field(description="the version that the answer is from, all of it")]
CityId = Annotated[int, Field(description="the city of the answer, our number")]
FeaturesAge = Annotated[float, Field(description="how old the oldest of the candidates' features is, seconds")]
CityName = Annotated[str, Field(description="its name")]
UserNumber = Annotated[int, Field(description="our number of the user")]
PlaceNumber = Annotated[int, Field(description="our number of the place")]
PlaceName = Annotated[str, Field(description="what the place is called")]
AreaName = Annotated[str, Field(description="the neighborhood that it is in")]
Reasons = Annotated[list[str], Field(description="why, in at most three sentences, each true in the data")]


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
