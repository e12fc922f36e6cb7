"""Places for several people at once: the candidates of each, scored for each, and brought together.

Strategies of Masthoff, "Group Recommender Systems" (2011): least misery, a place is worth what it is worth to whom it
suits least; average, what it is worth to them on average.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.online import Candidates, PlaceRow, UserProfile
from recsys.recommend import cursor
from recsys.recommend.catalogue import Found, never_there
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import why_place
from recsys.recommend.policy import arrange
from recsys.recommend.ranking import PlaceQuery
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread
from recsys.stages import stage

Strategy = Literal["least_misery", "average"]
MAX_GROUP: Final = 10


@dataclass(frozen=True)
class Member:
    """What a place is to one of them; `score` is the place head's, in (0, 1)."""

    user_id: int
    score: float
    explanations: list[str]


@dataclass(frozen=True)
class GroupPlace:
    """One place of an answer; `score` is that of the strategy, the other two are always said."""

    place_id: int
    name: str
    neighborhood_name: str
    score: float
    least_misery: float
    average: float
    members: list[Member]


@dataclass(frozen=True)
class GroupAnswer:
    """The list, best first, and the city it is for; see `places.PlaceAnswer`."""

    city_id: int
    city_name: str
    strategy: Strategy
    recommendations: list[GroupPlace]
    features_age_s: float
    next_cursor: str | None
    degraded: tuple[str, ...]


@dataclass(frozen=True)
class _Scored:
    """C candidates of n members: ids (C,), vectors (C, D), visitors (C,), scores (n, C), and what was read online."""

    ids: Ints
    vectors: Floats
    visitors: Floats
    scores: Floats
    online: Sequence[Candidates]
    complete: bool


async def recommend_group(
    engine: Engine, query: PlaceQuery, user_ids: Sequence[int], strategy: Strategy, now: datetime
) -> GroupAnswer:
    """Answer one request.

    Args:
        engine: the live version.
        query: what holds for all; its user is the first of them.
        user_ids: 2 to MAX_GROUP, distinct.
        strategy: the order.
        now: the moment.

    Raises:
        As `places.recommend_places`.
    """
    reads = Reads(engine, now)
    vectors = await reads.embeddings(user_ids)
    for user_id in user_ids:
        if user_id not in vectors:
            raise await reads.unknown(user_id)
    city_id = engine.city(_city(engine, query.city_id, user_ids), user_ids[0])
    whose = ("group", tuple(user_ids), city_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *whose)
    rules = Rules.of(engine, city_id, query.filters, (*query.exclude, *shown))
    if query.exclude_visited:
        been = engine.catalogue.sources.visitors(city_id, engine.homes.nodes(user_ids)) > 0
        rules = replace(rules, without=rules.without | been)
    size, most = max(query.top_k, 2 * engine.candidates // len(user_ids)), len(rules.without)
    while True:
        scored = await _score(engine, reads, query, {u: vectors[u] for u in user_ids}, rules, size)
        chosen, worth = await _choose(reads, query, scored, rules, strategy)
        if len(chosen) == query.top_k or scored.complete:
            break
        size = most
    users = [known_user(online.user, user_id) for online, user_id in zip(scored.online, user_ids, strict=True)]
    return GroupAnswer(
        city_id,
        engine.gazetteer.cities[city_id],
        strategy,
        [_place(engine, query, users, place, float(worth[at]), scored.scores[:, at]) for at, place in chosen],
        max(online.age_s for online in scored.online),
        next_cursor(query.top_k, whose, shown, [place.place_id for _, place in chosen]),
        reads.close(),
    )


def _city(engine: Engine, asked: int | None, user_ids: Sequence[int]) -> int:
    """The asked city, else where most of them live; the first one's where as many live elsewhere."""
    return asked if asked is not None else Counter(map(engine.homes.of, user_ids)).most_common(1)[0][0]


async def _score(
    engine: Engine, reads: Reads, query: PlaceQuery, vectors: dict[int, Floats], rules: Rules, size: int
) -> _Scored:
    hits = [await rules.near(reads, vector) for vector in vectors.values()]

    def find() -> list[Found]:
        return [
            engine.catalogue.find(
                engine.homes.node(user_id), rules.city_id, near, size, without=rules.without, fresh=False
            )
            for user_id, near in zip(vectors, hits, strict=True)
        ]

    found = await in_thread(find)
    complete = size >= len(rules.without) or all(len(f.ids) < size for f in found)
    position = np.unique(np.concatenate([f.position for f in found]))
    everywhere, place_vectors, visitors = engine.catalogue.everything(rules.city_id)
    ids = everywhere[position]
    with stage("features"):  # of all at once: the time that the request waits
        online = await asyncio.gather(*(in_thread(reads.rank_places, user_id, ids) for user_id in vectors))
    kept = np.ones(len(ids), dtype=bool)
    if query.exclude_visited:
        kept = np.all([never_there(of.features) for of in online], axis=0)

    def score(user_id: int, vector: Floats, f: Found, of: Candidates) -> Floats:
        if reads.blind:  # of one member is of all: two kinds of scores do not compare
            return f.retrieval(position)
        user = known_user(of.user, user_id)
        return engine.ranker.score_places(
            vector,
            place_vectors[position],
            np.concatenate(
                [
                    of.features,
                    engine.catalogue.fits(user, rules.city_id, position, query.slot, query.desired_categories),
                    engine.catalogue.sources.signals(f.said, position[None])[0],
                ],
                axis=1,
            ),
            city_id=rules.city_id,
            slot=query.slot,
            categories=query.desired_categories,
        )

    scores = [score(*of) for of in zip(vectors, vectors.values(), found, online, strict=True)]
    at = position[kept]
    return _Scored(ids[kept], place_vectors[at], np.log1p(visitors[at]), np.stack(scores)[:, kept], online, complete)


async def _choose(
    reads: Reads, query: PlaceQuery, scored: _Scored, rules: Rules, strategy: Strategy
) -> tuple[list[tuple[int, PlaceRow]], Floats]:
    worth: Floats = scored.scores.min(axis=0) if strategy == "least_misery" else scored.scores.mean(axis=0)
    order = arrange(
        scored.ids, worth, scored.vectors, scored.visitors,
        diversity=query.diversity, novelty=query.novelty, top_k=query.top_k,
    )  # fmt: skip
    return await in_thread(known, reads.places, rules.admit, scored.ids, order, query.top_k), worth


def _place(
    engine: Engine, query: PlaceQuery, users: Sequence[UserProfile], place: PlaceRow, worth: float, scores: Floats
) -> GroupPlace:
    names = engine.gazetteer
    return GroupPlace(
        place.place_id,
        place.name,
        names.neighborhoods.get((place.city_id, place.neighborhood_id), ""),
        worth,
        float(scores.min()),
        float(scores.mean()),
        [
            Member(user.user_id, float(score), why_place(user, place, names) if query.reasons else [])
            for user, score in zip(users, scores, strict=True)
        ],
    )
