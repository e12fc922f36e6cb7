"""The places of a city that most people had been to: what a list without a model is, under the same rules."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recsys.recommend.engine import Engine, known
from recsys.recommend.filters import Filters
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread


@dataclass(frozen=True)
class PopularPlace:
    """One place, and how many users had been there when the version was made."""

    place_id: int
    name: str
    neighborhood_name: str
    visitors: int


async def popular_places(
    engine: Engine, city_id: int, filters: Filters, exclude: Collection[int], top_k: int, now: datetime
) -> tuple[list[PopularPlace], tuple[str, ...]]:
    """Places by visitors, most first; of equals the one with the smaller id.

    Returns:
        At most `top_k` places, and what the answer had to do without.

    Raises:
        UnknownCity, InvalidField: the version has no such city, or what a filter names.
        NotReady: the online store knows none of the places.
    """
    rules = Rules.of(engine, engine.city(city_id, -1), filters, exclude)
    ids, _, visitors = engine.catalogue.everything(city_id)
    may = np.flatnonzero(~rules.without)
    reads = Reads(engine, now)
    order = may[np.lexsort((ids[may], -visitors[may]))]
    chosen = await in_thread(known, reads.places, rules.admit, ids, order, top_k)
    areas = engine.gazetteer.neighborhoods
    places = [
        PopularPlace(row.place_id, row.name, areas.get((row.city_id, row.neighborhood_id), ""), int(visitors[at]))
        for at, row in chosen
    ]
    return places, reads.close()
