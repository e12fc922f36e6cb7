"""What may be answered to one request for places: the city, what is hidden, exclusions and filters.

Once as a mask that the search for candidates obeys, and once more over the rows that are about to be answered, as the
online store has them now: a place may have changed, or been hidden, since the version was made.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.online import PlaceRow
from recsys.recommend.engine import Engine
from recsys.recommend.facets import Bools, Facets, Wanted
from recsys.recommend.filters import Filters
from recsys.recommend.reads import Reads
from recsys.sources import NEAR
from recsys.stages import stage


@dataclass(frozen=True)
class Rules:
    """Of one request.

    Attributes:
        city_id: the only city. wanted: what the filters ask.
        exclude: ids that the request leaves out.
        barred: (C,) places of the city, by position, that are excluded or hidden.
        without: (C,) all that may not come: barred, or not what is wanted.
    """

    engine: Engine
    city_id: int
    wanted: Wanted
    exclude: frozenset[int]
    barred: Bools
    without: Bools

    @classmethod
    @stage("policy")
    def of(cls, engine: Engine, city_id: int, filters: Filters, exclude: Collection[int]) -> "Rules":
        """Raise InvalidField where the version does not have what a filter names, and what `Safety.refresh` raises."""
        wanted = filters.wanted(engine.gazetteer, city_id)
        engine.safety.refresh()
        ids, _, _ = engine.catalogue.everything(city_id)
        barred = engine.safety.is_hidden(ids)
        if exclude:
            barred |= engine.catalogue.among(city_id, np.fromiter(exclude, dtype=np.int64))
        without = barred | ~engine.catalogue.matching(city_id, wanted) if wanted else barred
        return cls(engine, city_id, wanted, frozenset(exclude), barred, without)

    async def near(self, reads: Reads, vector: Floats) -> Ints:
        """Ids of the nearest places that may come, best first."""
        catalogue = self.engine.catalogue

        async def search() -> Ints:
            exclude = catalogue.ids(self.city_id, self.barred)
            hits = await self.engine.index.search(
                "places", vector, city_id=self.city_id, limit=NEAR, exclude=exclude, where=self.wanted
            )
            return hits.ids

        return await reads.near(search, lambda: catalogue.nearest(self.city_id, vector, self.without, NEAR))

    @stage("policy")
    def admit(self, rows: list[PlaceRow]) -> list[bool]:
        """The last filter, over places as read online."""
        self.engine.safety.refresh()  # what was decided since the search holds too
        good = ~self.engine.safety.is_hidden(np.array([row.place_id for row in rows], dtype=np.int64))
        if self.wanted:
            good &= Facets.of_rows(rows).match(self.wanted)
        return [
            bool(fits) and row.city_id == self.city_id and row.place_id not in self.exclude
            for row, fits in zip(rows, good, strict=True)
        ]
