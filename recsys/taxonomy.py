"""What a data set calls kinds of place and sides of people: names, whose positions all vectors index by.

The synthetic world has the seed's 6 categories, 100 tags and 30 vibes; a team's own data have theirs, in
`taxonomy.json` beside the tables, and a model version carries the one that it was trained with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from recsys.constants import COARSE_CATEGORIES, FINE_TAGS, MAX_NEIGHBORHOODS_PER_USER, TAG_CATEGORY, VIBE_TAGS
from recsys.errors import DataError

FILE: Final = "taxonomy.json"
OTHER: Final = "other"  # what the rarest share
UNKNOWN: Final = "unknown"  # what is said of a place of which nothing is
MAX_TAGS: Final = 512  # a profile holds one number a tag
_BEHAVIOR: Final = 5
_POPULARITY: Final = 4

Layout = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Widths:
    """How many categories, tags and vibes: what follows for the graph's tensors (seed, section 3.2).

    Attributes:
        categories, tags, vibes: at least 1.
    """

    categories: int
    tags: int
    vibes: int

    @property
    def user_x(self) -> Layout:
        """Block of `user.x` → [start, stop)."""
        return _layout(
            home_city_id=1,
            home_neighborhood_id=1,
            cat_pref=self.categories,
            fine_pref=self.tags,
            vibe_pref=self.vibes,
            area_freqs=MAX_NEIGHBORHOODS_PER_USER,
            behavior=_BEHAVIOR,
        )

    @property
    def place_x(self) -> Layout:
        """Block of `place.x` → [start, stop)."""
        return _layout(
            city_id=1,
            neighborhood_id=1,
            category_one_hot=self.categories,
            fine_tag_vector=self.tags,
            price_band=1,
            typical_time_slot=1,
            popularity=_POPULARITY,
        )

    @property
    def d_user(self) -> int:
        """Columns of `user.x`: 148 in the synthetic world."""
        return 2 + self.categories + self.tags + self.vibes + MAX_NEIGHBORHOODS_PER_USER + _BEHAVIOR

    @property
    def d_place(self) -> int:
        """Columns of `place.x`: 114 in the synthetic world."""
        return 2 + self.categories + self.tags + 2 + _POPULARITY


def _layout(**widths: int) -> Layout:
    layout, start = {}, 0
    for name, width in widths.items():
        layout[name] = (start, start + width)
        start += width
    return layout


@dataclass(frozen=True)
class Taxonomy:
    """Names by position.

    Attributes:
        categories: coarse kinds of place.
        tags: fine ones.
        tag_category: of each tag, the position of its category.
        vibes: sides of people.

    Raises:
        DataError: a kind is empty or names one thing twice, a tag's category is not there, or there are too many tags.
    """

    categories: tuple[str, ...]
    tags: tuple[str, ...]
    tag_category: tuple[int, ...]
    vibes: tuple[str, ...]

    def __post_init__(self) -> None:
        for kind in ("categories", "tags", "vibes"):
            names = getattr(self, kind)
            if not names:
                raise DataError(f"{FILE}: {kind} must name at least one (got none)")
            if blank := [n for n in names if not isinstance(n, str) or not n.strip()]:
                raise DataError(f"{FILE}: {kind} must be names that are not blank (got {blank[0]!r})")
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise DataError(f"{FILE}: {kind} must be distinct (got {twice[0]!r} twice)")
        if len(self.tags) > MAX_TAGS:
            raise DataError(f"{FILE}: tags must be at most {MAX_TAGS} (got {len(self.tags)})")
        if len(self.tag_category) != len(self.tags):
            raise DataError(f"{FILE}: tag_category must have {len(self.tags)} entries (got {len(self.tag_category)})")
        if wrong := [c for c in self.tag_category if type(c) is not int or not 0 <= c < len(self.categories)]:
            raise DataError(f"{FILE}: tag_category must lie in [0, {len(self.categories)}) (got {wrong[0]!r})")

    @property
    def widths(self) -> Widths:
        """How many of each."""
        return Widths(len(self.categories), len(self.tags), len(self.vibes))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Back from JSON.

        Raises:
            DataError: a field is missing or no list, or the names are wrong.
        """
        kinds = ("categories", "tags", "tag_category", "vibes")
        for kind in kinds:
            if not isinstance(said.get(kind), list | tuple):
                raise DataError(f"{FILE}: {kind} must be a list (got {said.get(kind)!r})")
        return cls(**{kind: tuple(said[kind]) for kind in kinds})


CITY: Final = Taxonomy(COARSE_CATEGORIES, FINE_TAGS, TAG_CATEGORY, VIBE_TAGS)


def read_taxonomy(folder: Path) -> Taxonomy:
    """The taxonomy of the tables in a folder: the synthetic world's where they name none.

    Raises:
        DataError: the file is not one.
    """
    path = folder / FILE
    if not path.exists():
        return CITY
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{FILE} is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise DataError(f"{FILE} must be one JSON object (got {type(said).__name__})")
    return Taxonomy.from_dict(said)
