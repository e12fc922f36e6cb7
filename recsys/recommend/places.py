"""Places for one user: ranked candidates, the last filter, reasons."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from recsys.online import PlaceRow
from recsys.recommend import cursor
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import company, why_place
from recsys.recommend.parts import place_parts
from recsys.recommend.ranking import PlaceQuery, Ranked, place_order, seek_places
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread


@dataclass(frozen=True)
class RecommendedPlace:
    """One place of an answer; `score` is the place head's, in (0, 1), `sources` those that named it.

    `score_parts`, where they are asked for, are log-odds; see `recsys.recommend.parts`. Without features at hand the
    score is that of retrieval, and has no parts.
    """

    place_id: int
    name: str
    neighborhood_name: str
    score: float
    explanations: list[str]
    sources: list[str]
    score_parts: dict[str, float] | None = None


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


async def recommend_places(engine: Engine, query: PlaceQuery, now: datetime) -> PlaceAnswer:
    """Answer one request.

    Raises:
        UnknownUser: not in the feature store, or not in the live version.
        UnknownCity: no such city.
        InvalidField: a filter or the cursor is not of this version, list or city.
        Unavailable: what is hidden cannot be read.
        NotReady: nothing is published, or the online store is not filled.
        ArtifactError: the index holds a place that the version does not know.
    """
    reads = Reads(engine, now)
    vectors = await reads.embeddings([query.user_id])
    if query.user_id not in vectors:
        raise await reads.unknown(query.user_id)
    vector = vectors[query.user_id]
    city_id = engine.city(query.city_id, query.user_id)
    whose = ("places", query.user_id, city_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *whose)
    rules = Rules.of(engine, city_id, query.filters, (*query.exclude, *shown))
    size, most = max(engine.candidates, query.top_k), len(rules.without)

    def choose(rank: Callable[[], Ranked]) -> tuple[Ranked, list[tuple[int, PlaceRow]]]:
        ranked = rank()
        order = place_order(query, ranked)
        return ranked, known(reads.places, rules.admit, ranked.found.ids, order, query.top_k)

    while True:
        ranked, chosen = await in_thread(choose, await seek_places(engine, reads, query, vector, rules, size))
        if len(chosen) == query.top_k or ranked.complete:
            break
        size = most  # what was dropped after the search left too few: rare, and then everything is looked at
    parts: list[dict[str, float] | None] = [None] * len(chosen)
    if query.parts and not reads.blind:
        parts[:] = place_parts(engine, query, ranked, vector, city_id, [at for at, _ in chosen])
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
                why_place(user, place, names, company(int(ranked.found.friends[at]), engine)) if query.reasons else [],
                ranked.found.named(at, engine.k_anonymity),
                moved,
            )
            for (at, place), moved in zip(chosen, parts, strict=True)
        ],
        ranked.online.age_s,
        next_cursor(query.top_k, whose, shown, [place.place_id for _, place in chosen]),
        reads.close(),
    )
