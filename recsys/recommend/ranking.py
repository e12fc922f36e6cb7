"""Candidate places of one user, from every source, within the rules, scored; and their order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.aggregates.finish import Floats
from recsys.constants import SLOT_NOT_SAID
from recsys.online import Candidates
from recsys.recommend.catalogue import Found, never_there
from recsys.recommend.engine import Engine, known_user
from recsys.recommend.filters import NO_FILTERS, Filters
from recsys.recommend.policy import Order, arrange
from recsys.recommend.reads import Reads
from recsys.recommend.rules import Rules
from recsys.recommend.work import in_thread
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
    parts: bool = False

    @property
    def slot(self) -> int:
        """Its time slot, or that it has none."""
        return SLOT_NOT_SAID if self.time_slot is None else self.time_slot


@dataclass(frozen=True)
class Ranked:
    """Candidates of one user, scored.

    Attributes:
        inputs: (C, D_PLACE_INPUT) of the head. scores: (C,) in (0, 1), the head's, or of retrieval where `reads.blind`.
        complete: whether these are all places that may come.
    """

    found: Found
    online: Candidates
    inputs: Floats
    scores: Floats
    complete: bool


async def seek_places(
    engine: Engine, reads: Reads, query: PlaceQuery, vector: Floats, rules: Rules, size: int
) -> Callable[[], Ranked]:
    """Ask the index; what then finds candidates that may come and scores them blocks, so it runs in a thread.

    Args:
        vector: the user's. size: how many candidates to look for.
    """
    near = await rules.near(reads, vector)
    node = engine.homes.node(query.user_id)
    apart = engine.homes.nodes(engine.safety.apart(query.user_id))

    def rank() -> Ranked:
        found = engine.catalogue.find(
            node, rules.city_id, near, size, without=rules.without, fresh=query.exclude_visited, apart=apart
        )
        online = reads.rank_places(query.user_id, found.ids)
        user = known_user(online.user, query.user_id)
        features, complete = online.features, len(found.ids) < size or size >= len(rules.without)
        if (
            query.exclude_visited
        ):  # the sources know where one was until the version was made, the pairs what came since
            kept = never_there(features)
            found, features = found.where(kept), features[kept]
        fits = engine.catalogue.fits(user, rules.city_id, found.position, query.slot, query.desired_categories)
        inputs = np.concatenate([features, fits, engine.catalogue.signals(found)], axis=1)
        if reads.blind:
            return Ranked(found, online, inputs, found.retrieval(found.position), complete)
        scores = engine.ranker.score_places(
            vector, found.vectors, inputs, city_id=rules.city_id, slot=query.slot, categories=query.desired_categories
        )
        return Ranked(found, online, inputs, scores, complete)

    return rank


async def rank_places(
    engine: Engine, reads: Reads, query: PlaceQuery, vector: Floats, rules: Rules, size: int
) -> Ranked:
    """Candidates that may come, and their scores; see `seek_places`."""
    return await in_thread(await seek_places(engine, reads, query, vector, rules, size))


def place_order(query: PlaceQuery, ranked: Ranked) -> Order:
    """Positions of the candidates in the order of the answer."""
    found = ranked.found
    return arrange(
        found.ids, ranked.scores, found.vectors, ranked.inputs[:, _VISITORS - len(PLACE_SIGNALS)],
        diversity=query.diversity, novelty=query.novelty, top_k=query.top_k,
    )  # fmt: skip
