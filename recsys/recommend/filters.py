"""What a request wants of places, in its own words, as values of facets."""

from dataclasses import dataclass
from typing import Final

from recsys.constants import FACETS
from recsys.errors import InvalidField
from recsys.recommend.engine import Gazetteer
from recsys.recommend.facets import Wanted


@dataclass(frozen=True)
class Filters:
    """Of each one that is said, a place must meet it; see `api.schemas.PlaceFilters`.

    Attributes:
        price: lowest and highest price band.
        categories, tags: positions; at least one.
        neighborhoods: numbers or names within the city; one of them.
        open_slot: the time slot that is typical of the place.
    """

    price: tuple[int, int] | None = None
    categories: tuple[int, ...] = ()
    tags: tuple[int, ...] = ()
    neighborhoods: tuple[int | str, ...] = ()
    open_slot: int | None = None

    def wanted(self, names: Gazetteer, city: int) -> Wanted:
        """Values by facet.

        Raises:
            InvalidField: the version has no such category, tag or neighborhood; names it.
        """
        taxonomy = names.taxonomy
        for field, positions, known in (
            ("categories", self.categories, taxonomy.categories),
            ("tags", self.tags, taxonomy.tags),
        ):
            for at, position in enumerate(positions):
                if position >= len(known):
                    allowed = f"must be from 0 to {len(known) - 1}, see GET /taxonomy"
                    raise InvalidField(f"filters.{field}.{at}", f"{allowed} (got {position})")
        price = () if self.price is None else tuple(range(self.price[0], self.price[1] + 1))
        areas = tuple(_area(names, city, at, given) for at, given in enumerate(self.neighborhoods))
        slot = () if self.open_slot is None else (self.open_slot,)
        values = (price, self.categories, self.tags, areas, slot)
        return {facet: said for facet, said in zip(FACETS, values, strict=True) if said}


def _area(names: Gazetteer, city: int, at: int, given: int | str) -> int:
    for (of, area), name in names.neighborhoods.items():
        if of == city and given in (area, name):
            return area
    raise InvalidField(f"filters.neighborhoods.{at}", f"{names.cities[city]} has no such neighborhood (got {given!r})")


NO_FILTERS: Final = Filters()
