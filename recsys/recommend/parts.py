"""What moved a score: each kind of input replaced by what is usual among the candidates, one at a time (ablation).

A part is the log-odds that the score loses without it. Heads are not linear, so parts do not add up to the score.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.aggregates import ONLINE_PEOPLE, ONLINE_PLACE
from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.constants import SLOT_NOT_SAID
from recsys.recommend.engine import Engine
from recsys.recommend.people import PeopleQuery, RankedPeople, score_people
from recsys.recommend.ranking import PlaceQuery, Ranked
from recsys.sources import ASKED, LATENT_SIGNALS, PEOPLE_SIGNALS, PLACE_FITS, PLACE_SIGNALS
from recsys.stages import stage

VECTOR, CONTEXT, FRIENDS = "vector", "context", "friends"
_SIGNALS: Final = {
    "popularity": ("visitors", "visitors_90d", "visitors_28d", "visits_a_visitor"),
    "similar_places": ("ease", "cosine", "cosine_recent", *LATENT_SIGNALS, "alike", "alike_recent"),
    FRIENDS: ("friends", "friends_share"),
    "category": ("category", "category_lift", "tag", "tag_lift"),
    "own_visits": ("own_count", "own_share", "own_recency"),
}
_ASKED: Final = slice(len(ONLINE_PLACE) + ASKED.start, len(ONLINE_PLACE) + ASKED.stop)
_SOURCES: Final = len(ONLINE_PLACE) + len(PLACE_FITS)
_PLACE_ACTIVITY: Final = ONLINE_PLACE.index("place_known") + 1
_TIE: Final = ONLINE_PEOPLE.index("tie_known") + 1
PLACE_PARTS: Final[Mapping[str, Ints]] = {
    "activity_of_the_place": np.arange(_PLACE_ACTIVITY),
    "own_history": np.arange(_PLACE_ACTIVITY, len(ONLINE_PLACE)),
    "profile": len(ONLINE_PLACE) + np.arange(ASKED.start),
    **{part: np.array([_SOURCES + PLACE_SIGNALS.index(n) for n in names]) for part, names in _SIGNALS.items()},
}
_PEOPLE_SIGNALS: Final = {
    "same_places": ("co_visits", "rare_places", "same_days"),
    "friends_in_common": ("adamic_adar", "resource_allocation", "paths_3", "paths_3_even", "walk", "walk_near"),
    "places_of_friends": ("friends_places", "places_friends"),
    "how_many_friends_and_visits": ("peer_friends", "peer_visits"),
}
PEOPLE_PARTS: Final[Mapping[str, Ints]] = {
    "tie": np.arange(_TIE),
    "activity_of_the_person": np.arange(_TIE, len(ONLINE_PEOPLE)),
    **{
        part: np.array([len(ONLINE_PEOPLE) + PEOPLE_SIGNALS.index(n) for n in names])
        for part, names in _PEOPLE_SIGNALS.items()
    },
}


@stage("explain")
def place_parts(
    engine: Engine, query: PlaceQuery, ranked: Ranked, vector: Floats, city_id: int, at: Sequence[int]
) -> list[dict[str, float]]:
    """Of some candidates, by position: each part in log-odds; friends only where reasons may name them."""
    found, picked = ranked.found, np.asarray(at, dtype=np.int64)
    names, vectors, inputs = _variants(PLACE_PARTS, found.vectors, ranked.inputs, picked)

    def score(v: Floats, x: Floats, slot: int, categories: Sequence[int]) -> Floats:
        return engine.ranker.score_places(vector, v, x, city_id=city_id, slot=slot, categories=categories)

    plain = score(vectors, inputs, query.slot, query.desired_categories)
    unasked = ranked.inputs[picked]
    unasked[:, _ASKED] = 0
    bare = score(found.vectors[picked], unasked, SLOT_NOT_SAID, ())
    lost = _lost(ranked.scores[picked], np.concatenate([plain, bare]).reshape(-1, len(picked)))
    return [
        {
            name: round(float(values[i]), 4)
            for name, values in zip((*names, CONTEXT), lost, strict=True)
            if name != FRIENDS or found.friends[candidate] >= engine.k_anonymity
        }
        for i, candidate in enumerate(at)
    ]


@stage("explain")
def people_parts(engine: Engine, query: PeopleQuery, ranked: RankedPeople, at: int) -> dict[str, float]:
    """Of one candidate, by position: each part of the combined score in log-odds."""
    picked = np.array([at])
    names, vectors, inputs = _variants(PEOPLE_PARTS, ranked.found.vectors, ranked.inputs, picked)
    vector, city = ranked.vector, ranked.city_id
    *_, plain = score_people(engine, query, vector, vectors, inputs, city, ranked.target)
    nothing = PeopleQuery(query.user_id)
    *_, bare = score_people(engine, nothing, vector, ranked.found.vectors[picked], ranked.inputs[picked], city, None)
    lost = _lost(ranked.combined[picked], np.concatenate([plain, bare])[:, None])
    return {name: round(float(value), 4) for name, value in zip((*names, CONTEXT), lost[:, 0], strict=True)}


def _variants(
    parts: Mapping[str, Ints], vectors: Floats, inputs: Floats, picked: npt.NDArray[np.int64]
) -> tuple[list[str], Floats, Floats]:
    """Names of P parts, and (P * K) vectors and inputs of K candidates, each part in turn as usual."""
    usual, mean = inputs.mean(axis=0), vectors.mean(axis=0)
    direction = mean / max(float(np.linalg.norm(mean)), 1e-6)
    all_inputs = [inputs[picked]]
    all_vectors = [np.tile(direction, (len(picked), 1))]
    for columns in parts.values():
        without = inputs[picked]
        without[:, columns] = usual[columns]
        all_inputs.append(without)
        all_vectors.append(vectors[picked])
    return [VECTOR, *parts], np.concatenate(all_vectors).astype(np.float32), np.concatenate(all_inputs)


def _lost(scores: Floats, without: Floats) -> Floats:
    """(K,) and (P, K) probabilities → (P, K) log-odds that each part brings."""

    def log_odds(p: Floats) -> Floats:
        p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
        out: Floats = np.log(p) - np.log1p(-p)
        return out

    out: Floats = log_odds(scores)[None] - log_odds(without)
    return out
