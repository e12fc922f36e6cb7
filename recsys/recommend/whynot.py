"""Why, and why not: one place or person traced through retrieval, rules and ranking, as a request would find them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.errors import InvalidField, UnknownPlace, UnknownUser
from recsys.recommend import cursor
from recsys.recommend.catalogue import never_there
from recsys.recommend.engine import Engine
from recsys.recommend.facets import Facets
from recsys.recommend.parts import FRIENDS, people_parts, place_parts
from recsys.recommend.people import PeopleQuery, RankedPeople, rank_people
from recsys.recommend.policy import best_first
from recsys.recommend.ranking import PlaceQuery, Ranked, place_order, rank_places
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread

Outcome = Literal["recommended", "ranked_below", "not_retrieved", "dropped"]
_FIELD: Final = {
    "price_band": "price", "categories": "categories", "tags": "tags", "neighborhood_id": "neighborhoods",
    "typical_time_slot": "open_slot",
}  # fmt: skip
_WORTH_A_WORD: Final = 0.1  # log-odds


@dataclass(frozen=True)
class Standing:
    """Where somebody or something stood in a source: `rank` from 1 among `of`; None: the source does not name it."""

    source: str
    rank: int | None
    of: int


@dataclass(frozen=True)
class Broken:
    """A rule that it breaks, and how, in words."""

    rule: str
    said: str


@dataclass(frozen=True)
class Explanation:
    """What became of one place or person.

    Attributes:
        outcome: in the list; a candidate, but after the first `top_k`; no candidate; or kept out by a rule.
        rank: from 1 among the candidates, in the order of the list; None: no candidate.
        candidates: how many there were.
        score, parts: of a candidate; see `recsys.recommend.parts`.
    """

    city_id: int
    outcome: Outcome
    broken: list[Broken]
    retrieval: list[Standing]
    rank: int | None
    candidates: int
    score: float | None = None
    parts: dict[str, float] = field(default_factory=dict)

    def words(self, city: str, top_k: int) -> list[str]:
        """The same in sentences."""
        out = [f"Kept out: {broken.said}." for broken in self.broken]
        if self.outcome == "not_retrieved":
            out.append(f"No candidate: the sources named {self.candidates} others before it.")
        if self.rank is not None and self.score is not None:
            where = "in" if self.outcome == "recommended" else "after"
            out.append(
                f"Number {self.rank} of {self.candidates} candidates, with a score of {self.score:.3f}: "
                f"{where} the first {top_k}."
            )
        for standing in self.retrieval:
            if standing.rank is not None:
                out.append(f"Source {standing.source}: number {standing.rank} of {standing.of} in {city}.")
        for name, moved in sorted(self.parts.items(), key=lambda part: -abs(part[1])):
            if abs(moved) >= _WORTH_A_WORD:
                way = "up" if moved > 0 else "down"
                out.append(f"{name.replace('_', ' ').capitalize()} moved it {way} by {abs(moved):.2f} in log-odds.")
        return out


async def explain_place(engine: Engine, query: PlaceQuery, place_id: int, now: datetime) -> Explanation:
    """What became of a place in the answer to a request.

    Raises:
        UnknownPlace: the version does not know it. Unavailable: a store did not answer in time: of a list that did
            without, there is nothing to explain. And as `places.recommend_places`.
    """
    reads = Reads(engine, now, strict=True)
    vectors = await reads.embeddings([query.user_id])
    if query.user_id not in vectors:
        raise await reads.unknown(query.user_id)
    if await reads.place(place_id) is None:
        raise UnknownPlace(f"there is no place {place_id} in model version {engine.version}")
    vector, city_id = vectors[query.user_id], engine.city(query.city_id, query.user_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, "places", query.user_id, city_id)
    rules = Rules.of(engine, city_id, query.filters, (*query.exclude, *shown))
    ranked = await rank_places(engine, reads, query, vector, rules, max(engine.candidates, query.top_k))
    if len(ranked.found.ids) < query.top_k and not ranked.complete:  # the answer looked at everything, too
        ranked = await rank_places(engine, reads, query, vector, rules, len(rules.without))
    here = np.flatnonzero(engine.catalogue.among(city_id, np.array([place_id])))
    broken = await _broken(engine, reads, query, rules, place_id, here, shown)
    order = ranked.found.ids[place_order(query, ranked)].tolist()
    explanation = Explanation(
        city_id,
        "dropped" if broken else "not_retrieved",
        broken,
        _standings(engine, ranked, vector, city_id, int(here[0])) if len(here) else [],
        None,
        len(order),
    )
    if broken or place_id not in order:
        return explanation
    at = int(np.flatnonzero(ranked.found.ids == place_id)[0])
    (parts,) = place_parts(engine, query, ranked, vector, city_id, [at])
    return _ranked(explanation, order.index(place_id) + 1, query.top_k, float(ranked.scores[at]), parts)


async def explain_person(engine: Engine, query: PeopleQuery, person_id: int, now: datetime) -> Explanation:
    """What became of a person in the answer to a request.

    Raises:
        UnknownUser: the version does not know them. InvalidField: it is the user. Unavailable: as `explain_place`.
            And as `people.recommend_people`.
    """
    if person_id == query.user_id:
        raise InvalidField("person_id", "must be somebody else than the user")
    reads = Reads(engine, now, strict=True)
    if await reads.person(person_id) is None:
        raise UnknownUser(f"there is no user {person_id} in model version {engine.version}")
    ranked = await rank_people(engine, reads, query, max(engine.candidates, query.top_k))
    broken = []
    if person_id in engine.safety.apart(query.user_id):
        broken.append(Broken("block", "one of the two has blocked the other"))
    if person_id in ranked.shown:
        broken.append(Broken("cursor", "an earlier page has shown them"))
    if person_id in ranked.friends:
        broken.append(Broken("exclude_friends", "they are friends already"))
    (row,) = await in_thread(reads.users, [person_id])
    if row is None:
        broken.append(Broken("online_store", "the online store does not know them: run `recsys materialize`"))
    elif row.home_city_id != ranked.city_id:
        broken.append(Broken("city_id", f"they do not live in {engine.gazetteer.cities[ranked.city_id]}"))
    ids = ranked.found.ids
    order = ids[best_first(ids, ranked.combined)].tolist()
    explanation = Explanation(
        ranked.city_id,
        "dropped" if broken else "not_retrieved",
        broken,
        _person_standings(engine, ranked, person_id),
        None,
        len(order),
    )
    if broken or person_id not in order:
        return explanation
    at = int(np.flatnonzero(ids == person_id)[0])
    parts = people_parts(engine, query, ranked, at)
    return _ranked(explanation, order.index(person_id) + 1, query.top_k, float(ranked.combined[at]), parts)


def _person_standings(engine: Engine, ranked: RankedPeople, person_id: int) -> list[Standing]:
    """In each source, among the city's people."""
    position = engine.community.position(person_id, ranked.city_id)
    if position is None:
        return []
    out = []
    for name, values in engine.community.strengths(ranked.found.said, ranked.city_id, ranked.vector).items():
        named = np.isfinite(values) if name == "vector" else values > 0
        rank = 1 + int((values > values[position]).sum()) if named[position] else None
        out.append(Standing(name, rank, int(named.sum())))
    return out


def _ranked(so_far: Explanation, rank: int, top_k: int, score: float, parts: dict[str, float]) -> Explanation:
    outcome: Outcome = "recommended" if rank <= top_k else "ranked_below"
    return Explanation(so_far.city_id, outcome, [], so_far.retrieval, rank, so_far.candidates, score, parts)


async def _broken(
    engine: Engine, reads: Reads, query: PlaceQuery, rules: Rules, place_id: int, here: Ints, shown: Sequence[int],
) -> list[Broken]:  # fmt: skip
    """Every rule that a place breaks, by what the version knows and by what the online store says now."""
    broken = []
    if engine.safety.is_hidden(np.array([place_id]))[0]:
        broken.append(Broken("hidden", "it is hidden from everybody"))
    if place_id in query.exclude:
        broken.append(Broken("exclude_place_ids", "the request leaves it out"))
    if place_id in shown:
        broken.append(Broken("cursor", "an earlier page has shown it"))
    (row,) = await in_thread(reads.places, [place_id])
    if row is None:
        broken.append(Broken("online_store", "the online store does not know it: run `recsys materialize`"))
    if not len(here) or (row is not None and row.city_id != rules.city_id):
        broken.append(Broken("city_id", f"it is not in {engine.gazetteer.cities[rules.city_id]}"))
        return broken
    for facet, values in rules.wanted.items():
        fits = bool(engine.catalogue.matching(rules.city_id, {facet: values})[here[0]])
        if not fits or (row is not None and not Facets.of_rows([row]).match({facet: values})[0]):
            said = f"the filter {_FIELD[facet]} wants one of {', '.join(map(str, values))}, which it has not"
            broken.append(Broken(f"filters.{_FIELD[facet]}", said))
    if query.exclude_visited:
        been = engine.catalogue.sources.visitors(rules.city_id, engine.homes.nodes([query.user_id]))[here[0]] > 0
        online = await in_thread(reads.rank_places, query.user_id, np.array([place_id]))
        if been or not never_there(online.features)[0]:
            broken.append(Broken("exclude_visited", "the user has been there or looked at it"))
    return broken


def _standings(engine: Engine, ranked: Ranked, vector: Floats, city_id: int, position: int) -> list[Standing]:
    """In each source, among the city's places. How friends rank it is said only where enough of them were there."""
    _, vectors, _ = engine.catalogue.everything(city_id)
    out = []
    strengths = {**engine.catalogue.sources.strengths(ranked.found.said), "vector": vectors @ vector}
    for name, values in strengths.items():
        named = np.ones(len(values), dtype=bool) if name in _NAMES_ALL else values > 0
        rank = 1 + int((values > values[position]).sum())
        told = named[position] and (name != FRIENDS or ranked.found.company[position] >= engine.k_anonymity)
        out.append(Standing(name, rank if told else None, int(named.sum()) if name != FRIENDS or told else 0))
    return out


_NAMES_ALL: Final = ("popular", "popular_90d", "vector")  # the others name only places of which they know something
