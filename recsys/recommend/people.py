"""People for one user to go with: candidates of the city from every source, ties, both probabilities, reasons."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recsys.aggregates import ONLINE_PEOPLE
from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.constants import SLOT_NOT_SAID
from recsys.errors import UnknownPlace
from recsys.online import UserProfile
from recsys.recommend import cursor
from recsys.recommend.community import FoundPeople
from recsys.recommend.cursor import next_cursor
from recsys.recommend.engine import Engine, known, known_user
from recsys.recommend.explain import why_person
from recsys.recommend.policy import best_first
from recsys.recommend.reads import Reads
from recsys.recommend.work import in_thread
from recsys.sources import NEAR

_TIE_KNOWN = ONLINE_PEOPLE.index("tie_known")


@dataclass(frozen=True)
class PeopleQuery:
    """A request; see `api.schemas.PeopleRecommendationRequest` for what each field means."""

    user_id: int
    city_id: int | None = None
    target_place_id: int | None = None
    activity_tags: tuple[int, ...] = ()
    time_slot: int | None = None
    top_k: int = 10
    exclude_friends: bool = False
    cursor: str | None = None


@dataclass(frozen=True)
class RecommendedPerson:
    """One person of an answer; the three scores lie in (0, 1), `sources` are those that named them.

    Without features at hand all three are that of retrieval.
    """

    user_id: int
    name: str
    compat_score: float
    attend_prob: float
    combined_score: float
    explanations: list[str]
    sources: list[str]


@dataclass(frozen=True)
class PeopleAnswer:
    """The list, best first, and the city it is for; see `places.PlaceAnswer`."""

    city_id: int
    city_name: str
    recommendations: list[RecommendedPerson]
    features_age_s: float
    next_cursor: str | None
    degraded: tuple[str, ...]


@dataclass(frozen=True)
class RankedPeople:
    """C candidates of one request, in no order, scored.

    Attributes:
        user: as read online. vector: (D,) the user's. target: (D,) of the place to go to; None: not said.
        found: the candidates. inputs: (C, D_PEOPLE_INPUT).
        compat, attend, combined: (C,) in (0, 1).
        age_s: how old the oldest feature of a candidate is.
        shown: whom earlier pages had. friends: who is left out for being one; empty where they are not.
        complete: whether these are all who may come.
    """

    user: UserProfile
    city_id: int
    vector: Floats
    target: Floats | None
    found: FoundPeople
    inputs: Floats
    compat: Floats
    attend: Floats
    combined: Floats
    age_s: float
    shown: tuple[int, ...]
    friends: frozenset[int]
    complete: bool


async def seek_people(engine: Engine, reads: Reads, query: PeopleQuery, size: int) -> Callable[[], RankedPeople]:
    """Ask the index; what then finds at most `size` who may come, but for what the last filter finds, and scores them.

    That blocks, so it runs in a thread. Both raise as an answer does.
    """
    vector = await reads.person(query.user_id)
    if vector is None:
        raise await reads.unknown(query.user_id)
    city_id = engine.city(query.city_id, query.user_id)
    target = None
    if query.target_place_id is not None:
        target = await reads.place(query.target_place_id)
        if target is None:
            raise UnknownPlace(f"there is no place {query.target_place_id} in model version {engine.version}")
    node = engine.homes.node(query.user_id)
    shown = () if query.cursor is None else cursor.decode(query.cursor, *_whose(query, city_id))
    engine.safety.refresh()
    friends = frozenset(engine.friends(query.user_id) if query.exclude_friends else ())
    without = [query.user_id, *engine.safety.apart(query.user_id), *friends, *shown]
    barred = engine.homes.nodes(without)

    async def search() -> Ints:
        hits = await engine.index.search("users", vector, city_id=city_id, limit=NEAR, exclude=without, using="people")
        return hits.ids

    near = await reads.near(search, lambda: engine.community.nearest(city_id, vector, barred, NEAR))

    def rank() -> RankedPeople:
        found = engine.community.find(node, city_id, near, size, without=barred)
        online = reads.rank_people(query.user_id, found.ids)
        user, features, complete = known_user(online.user, query.user_id), online.features, len(found.ids) < size
        left_out = friends
        if query.exclude_friends:  # the version knows friends until it was made, the ties who became one since
            since = features[:, _TIE_KNOWN] > 0
            left_out |= frozenset(found.ids[since].tolist())
            found, features = found.where(~since), features[~since]
        inputs = np.concatenate([features, engine.community.signals(found)], axis=1)
        if reads.blind:
            scores = (found.retrieval,) * 3
        else:
            scores = score_people(engine, query, vector, found.vectors, inputs, city_id, target)
        return RankedPeople(
            user, city_id, vector, target, found, inputs, *scores, online.age_s, shown, left_out, complete
        )  # fmt: skip

    return rank


async def rank_people(engine: Engine, reads: Reads, query: PeopleQuery, size: int) -> RankedPeople:
    """At most `size` candidates who may come, scored; see `seek_people`."""
    return await in_thread(await seek_people(engine, reads, query, size))


def score_people(
    engine: Engine, query: PeopleQuery, vector: Floats, others: Floats, inputs: Floats, city_id: int,
    target: Floats | None,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """(C,) compatibility, attendance and combined score of candidates in the context of a request."""
    slot = SLOT_NOT_SAID if query.time_slot is None else query.time_slot
    compat, attend = engine.ranker.score_people(
        vector, others, inputs, city_id=city_id, slot=slot, place=target, tags=query.activity_tags
    )
    return compat, attend, engine.ranker.combine(compat, attend)


def _whose(query: PeopleQuery, city_id: int) -> tuple[object, ...]:
    return "people", query.user_id, city_id


async def recommend_people(engine: Engine, query: PeopleQuery, now: datetime) -> PeopleAnswer:
    """Answer one request.

    Raises:
        UnknownUser, UnknownPlace, UnknownCity: an id that is not in the data or in the live version.
        InvalidField: friends are to be excluded and the data know none, or the cursor is of another list.
        Unavailable: who is blocked cannot be read.
        NotReady: nothing is published, or the online store is not filled.
    """

    def choose(rank: Callable[[], RankedPeople]) -> tuple[RankedPeople, list[tuple[int, UserProfile]]]:
        ranked = rank()

        def admit(rows: list[UserProfile]) -> list[bool]:
            engine.safety.refresh()  # what was decided since the search holds too
            apart = engine.safety.apart(query.user_id)
            return [row.home_city_id == ranked.city_id and row.user_id not in apart for row in rows]

        ids = ranked.found.ids
        return ranked, known(reads.users, admit, ids, best_first(ids, ranked.combined), query.top_k)

    reads, size = Reads(engine, now), max(engine.candidates, query.top_k)
    while True:
        ranked, chosen = await in_thread(choose, await seek_people(engine, reads, query, size))
        if len(chosen) == query.top_k or ranked.complete:
            break
        size *= 4  # what was dropped after the search left too few: rare
    city_id, names = ranked.city_id, engine.gazetteer
    return PeopleAnswer(
        city_id,
        names.cities[city_id],
        [
            RecommendedPerson(
                peer.user_id,
                peer.name,
                float(ranked.compat[at]),
                float(ranked.attend[at]),
                float(ranked.combined[at]),
                why_person(ranked.user, peer, names),
                ranked.found.named(at),
            )
            for at, peer in chosen
        ],
        ranked.age_s,
        next_cursor(query.top_k, _whose(query, city_id), ranked.shown, [peer.user_id for _, peer in chosen]),
        reads.close(),
    )
