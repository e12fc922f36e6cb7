"""The mapping file: which files, which columns, which zone. One `[[source]]` a namespace of ids."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.errors import ConfigError

Kind = Literal["view", "like", "save", "share", "attended", "ignore"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Table(_Section):
    """Where rows come from: files (a path or glob, or several) or a query that DuckDB can run."""

    files: str | list[str] | None = None
    query: str | None = None
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"

    @model_validator(mode="after")
    def _one_of(self) -> "_Table":
        if (self.files is None) == (self.query is None):
            raise ValueError("either files or query must be given, not both")
        return self


class Events(_Table):
    """What people did: one row a view or visit."""

    user: str
    place: str
    time: str
    kind: str | None = Field(default=None, description="column that names what happened")
    kinds: dict[str, Kind] = Field(default={}, description="its values → ours")
    default_kind: Kind = Field(default="attended", description="what a row without `kind` is: a check-in, attended")
    dwell: str | None = Field(default=None, description="column of seconds")
    rating: str | None = Field(default=None, description="column of a rating")
    rating_scale: tuple[float, float] = (1.0, 5.0)
    repeats: Literal["count", "merge"] | None = Field(
        default=None, description="visits of a pair at one moment; unset: they count where all times are whole minutes"
    )
    category: str | None = Field(default=None, description="column of the place's category, as of the event")
    category_separator: str | None = Field(default=None, description="what stands between several in one text")
    latitude: str | None = None
    longitude: str | None = None

    @field_validator("rating_scale")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"must be the lowest rating, then the highest (got {list(value)})")
        return value


class Places(_Table):
    """What is known of places."""

    id: str
    name: str | None = None
    category: str | None = Field(default=None, description="column of a category, or of a list of them")
    category_separator: str | None = Field(default=None, description="what stands between several in one text")
    group: str | None = Field(default=None, description="column of a coarser category")
    price: str | None = Field(default=None, description="column of a price band, 0 to 4")
    neighborhood: str | None = None
    latitude: str | None = None
    longitude: str | None = None


class Users(_Table):
    """What is known of users."""

    id: str
    name: str | None = None


class Friendships(_Table):
    """Who knows whom. Without `since`, `known` says when: before all events, or after them."""

    a: str
    b: str
    since: str | None = Field(default=None, description="column of the moment")
    known: Literal["start", "end"] = "start"


class Source(_Section):
    """One city's data; an id means one thing within it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    city: str
    timezone: str = "UTC"
    events: Events
    places: Places | None = None
    users: Users | None = None
    friendships: list[Friendships] = []

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            near = difflib.get_close_matches(value, available_timezones(), 1)
            raise ValueError(f"no such time zone{f': {near[0]} is near' if near else ''}")
        return value


class Mapping(_Section):
    """A data set.

    Attributes:
        name: of the data set.
        max_tags: rarer categories than the first so many share one tag.
        max_groups: categories without a coarser one are grouped by themselves, the most frequent first.
        source: one a city.
        folder: where relative paths start.
    """

    name: str = "own"
    max_tags: Annotated[int, Field(ge=2, le=512)] = 256
    max_groups: Annotated[int, Field(ge=1, le=32)] = 12
    source: Annotated[list[Source], Field(min_length=1)]
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _distinct(self) -> "Mapping":
        names = [s.name for s in self.source]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources have one name (got {names})")
        return self

    def files(self, table: _Table) -> list[Path]:
        """The files of a section, globs expanded, in order.

        Raises:
            ConfigError: nothing matches.
        """
        patterns = [table.files] if isinstance(table.files, str) else table.files or []
        found: list[Path] = []
        for pattern in patterns:
            path = Path(pattern) if Path(pattern).is_absolute() else self.folder / pattern
            root = Path(path.anchor)
            # a name with brackets may be that of a file, which a glob would not find
            matches = [path] if path.is_file() else sorted(root.glob(str(path.relative_to(root))))
            matched = [match for match in matches if match.is_file()]
            if not matched:
                raise ConfigError(f"files: nothing matches {pattern!r} (looked in {path.parent.resolve()})")
            found += matched
        return found


def read_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: not there, not TOML, or a key is missing, misspelt or of another type; names the key, what was
            found and, for a misspelt one, the nearest.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"no such mapping file (got {path})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not TOML: {error}") from error
    try:
        return Mapping(**{**content, "folder": path.parent})
    except ValidationError as error:
        raise ConfigError(f"{path.name}: " + "; ".join(_said(dict(e)) for e in error.errors())) from error


def _said(error: dict[str, Any]) -> str:
    where, location = "", [part for part in error["loc"] if not (isinstance(part, str) and part.startswith("function"))]
    for part in location:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    if error["type"] == "extra_forbidden":
        known = _known(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        return f"{where} is not a key" + (f": did you mean {near[0]}?" if near else f" (keys: {', '.join(known)})")
    if error["type"] == "missing":
        return f"{where} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where or 'mapping'}: {message[:1].lower()}{message[1:]}" + (
        "" if isinstance(error["input"], (dict, list)) else f" (got {error['input']!r})"
    )


def _known(location: list[Any]) -> list[str]:
    """The keys of the section at a location."""
    model: Any = Mapping
    sections = {"source": Source, "events": Events, "places": Places, "users": Users, "friendships": Friendships}
    for part in location:
        model = sections.get(part, model) if isinstance(part, str) else model
    return [name for name in model.model_fields if name != "folder"]
