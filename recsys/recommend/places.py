"""Places for one user: candidates of the city from every source, features, rank, explain."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.constants import SLOT_NOT_SAID
from recsys.online import Candidates, PlaceRow
from recsys.recommend import cursor
from recsys.recommend.catalogue import Found, never_there
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import company, why_place
from recsys.recommend.filters import NO_FILTERS, Filters
from recsys.recommend.policy import arrange
from recsys.recommend.rules import Rules
from recsys.sources import PLACE_SIGNALS

_VISITORS = PLACE_SIGNALS.index("visitors")


@dataclass(frozen=True)
class PlaceQuery:
    """A request; see `api.schemas.PlaceRecommendationRequest` for what each field means."""

    user_id: int
    city_id: int | None = None
    time_slot: int | None = None
    desired_categories: tuple[int, ...] = ()
    top_k: int = 10
    exclude_visited: bool = False
    filters: Filters = NO_FILTERS
    exclude: tuple[int, ...] = ()
    diversity: float = 0.0
    novelty: float = 0.0
    cursor: str | None = None
    reasons: bool = True

    @property
    def slot(self) -> int:
        """Its time slot, or that it has none."""
        return SLOT_NOT_SAID if self.time_slot is None else self.time_slot


@dataclass(frozen=True)
class RecommendedPlace:
    """One place of an answer; `score` is the place head's, in (0, 1), `sources` those that named it."""

    place_id: int
    name: str
    neighborhood_name: str
    score: float
    explanations: list[str]
    sources: list[str]


@dataclass(frozen=True)
class PlaceAnswer:
    """The list, best first, and the city it is for.

    Attributes:
        features_age_s: how old the oldest feature of a place is that this answer was ranked with; 0: read just now.
        next_cursor: with which the list goes on; None where it ends.
        degraded: what this answer had to do without.
    """

    city_id: int
    city_name: str
    recommendations: list[RecommendedPlace]
    features_age_s: float
    next_cursor: str | None
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """Candidates of one user, scored.

    Attributes:
        inputs: (C, D_PLACE_INPUT) of the head. scores: (C,) in (0, 1).
        complete: whether these are all places that may come.
    """

    found: Found
    online: Candidates
    inputs: Floats
    scores: Floats
    complete: bool


async def recommend_places(engine: Engine, query: PlaceQuery, now: datetime) -> PlaceAnswer:
    """Answer one request.

    Raises:
        UnknownUser: not in the feature store, or not in the live version.
        UnknownCity: no such city.
        InvalidField: a filter or the cursor is not of this version, list or city.
        Unavailable: a store did not answer in time, or what is hidden cannot be read.
        NotReady: nothing is published, or the online store is not filled.
        ArtifactError: the index holds a place that the version does not know.
    """
    vectors = await engine.index.vectors("users", [query.user_id])
    if query.user_id not in vectors:
        raise await engine.unknown(query.user_id, now)
    vector = vectors[query.user_id]
    city_id = engine.city(query.city_id, query.user_id)
    whose = ("places", query.user_id, city_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *whose)
    rules = Rules.of(engine, city_id, query.filters, (*query.exclude, *shown))
    size, most = max(engine.candidates, query.top_k), len(rules.without)
    while True:
        ranked = await rank_places(engine, query, vector, rules, size, now)
        found, chosen = ranked.found, await choose(engine, query, ranked, rules)
        if len(chosen) == query.top_k or ranked.complete:
            break
        size = most  # what was dropped after the search left too few: rare, and then everything is looked at
    user, names = known_user(ranked.online.user, query.user_id), engine.gazetteer
    return PlaceAnswer(
        city_id,
        names.cities[city_id],
        [
            RecommendedPlace(
                place.place_id,
                place.name,
                names.neighborhoods.get((place.city_id, place.neighborhood_id), ""),
                float(ranked.scores[at]),
                why_place(user, place, names, company(int(found.friends[at]), engine)) if query.reasons else [],
                found.named(at, engine.k_anonymity),
            )
            for at, place in chosen
        ],
        ranked.online.age_s,
        next_cursor(query.top_k, whose, shown, [place.place_id for _, place in chosen]),
    )


async def rank_places(
    engine: Engine, query: PlaceQuery, vector: Floats, rules: Rules, size: int, now: datetime
) -> Ranked:
    """Candidates that may come, and their scores.

    Args:
        vector: the user's. size: how many candidates to look for.
    """
    near = await rules.near(vector)
    node = engine.homes.node(query.user_id)
    apart = engine.homes.nodes(engine.safety.apart(query.user_id))

    def find() -> tuple[Found, Candidates]:
        found = engine.catalogue.find(
            node, rules.city_id, near.ids, size, without=rules.without, fresh=query.exclude_visited, apart=apart
        )
        return found, engine.features.rank_places(query.user_id, found.ids, now)

    found, online = await asyncio.to_thread(find)
    known_user(online.user, query.user_id)
    features, complete = online.features, len(found.ids) < size or size >= len(rules.without)
    if query.exclude_visited:  # the sources know where one was until the version was made, the pairs what came since
        kept = never_there(features)
        found, features = found.where(kept), features[kept]
    inputs = np.concatenate([features, engine.catalogue.signals(found)], axis=1)
    scores = engine.ranker.score_places(
        vector, found.vectors, inputs, city_id=rules.city_id, slot=query.slot, categories=query.desired_categories
    )
    return Ranked(found, online, inputs, scores, complete)


async def choose(engine: Engine, query: PlaceQuery, ranked: Ranked, rules: Rules) -> list[tuple[int, PlaceRow]]:
    """The list: positions among the candidates and their rows, in the order of the answer."""
    found = ranked.found
    order = arrange(
        found.ids, ranked.scores, found.vectors, ranked.inputs[:, _VISITORS - len(PLACE_SIGNALS)],
        diversity=query.diversity, novelty=query.novelty, top_k=query.top_k,
    )  # fmt: skip
    return await known(engine.features.places, rules.admit, found.ids, order, query.top_k)
