"""Answers without the online store, without the index, without both: the rules hold, and they say what they lack."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from recsys.aggregates import ONLINE_PEOPLE, ONLINE_PLACE
from recsys.breaker import Breaker
from recsys.errors import FeatureStoreUnavailable, IndexUnavailable, SafetyUnavailable, UnknownUser
from recsys.index.server import _ServerReader
from recsys.online import Candidates
from recsys.recommend.engine import Engine
from recsys.recommend.fallback import (
    DEGRADATIONS,
    HURRIED,
    INDEX,
    LAST_KNOWN,
    LOAD,
    NO_FEATURES,
    PARTIAL,
    PROFILES,
    Guards,
    LastKnown,
)
from recsys.recommend.groups import recommend_group
from recsys.recommend.newcomer import NOBODY, WITHOUT, Profile, recommend_to_anybody
from recsys.recommend.people import PeopleQuery, recommend_people
from recsys.recommend.places import recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.recommend.reads import answering
from recsys.recommend.whynot import explain_person, explain_place
from recsys.safety import Safety
from recsys.sources import NEAR
from tests.conftest import free_port
from tests.parts import N_CITIES, N_PLACES, N_USERS, NOW, MemoryFeatures, make_engine
from tests.unit.test_breaker import Clock
from tests.unit.test_rules import ids, meets, pages, people_ids, queries

LAST = N_USERS - 1
STORES = st.sampled_from([("online",), ("index",), ("online", "index")])


class Lasting(MemoryFeatures):
    """Features as the online store has them: a place's are the same for all, and of a pair that is not known, none."""

    def _candidates(self, user_id: int, ids: Sequence[int], width: int) -> Candidates:
        read = super()._candidates(user_id, ids, width)
        if width == len(ONLINE_PLACE):
            cut, known = ONLINE_PLACE.index("place_known") + 1, -1
            own, pair = read.features[:, :cut], read.features[:, cut:]
        else:
            known = ONLINE_PEOPLE.index("tie_known")
            pair, own = read.features[:, : known + 1], read.features[:, known + 1 :]
        pair[read.features[:, known] == 0] = 0
        for at, i in enumerate(ids):
            own[at] = np.random.default_rng(int(i)).random(own.shape[1])
        return read


class Shared:
    """An engine, an index whose server is gone, new safety lists; no dataclass, or a failure prints them whole."""

    def __init__(self, engine: Engine, gone: _ServerReader, safeties: Iterator[Safety]) -> None:
        self.engine, self.gone, self.safeties = engine, gone, safeties


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("index")
    made = make_engine(folder / "whole")
    nobody = AsyncQdrantClient(url=f"http://127.0.0.1:{free_port()}", check_compatibility=False)
    safeties = (Safety(folder / f"safety-{n}" / "w") for n in count())
    yield Shared(replace(made, candidates=10), _ServerReader(nobody, "test-1"), safeties)
    asyncio.run(made.index.close())


def live(shared: Shared, **parts: Any) -> Engine:
    """An engine that remembers nothing, with features that may be broken."""
    held = shared.engine.features
    parts = {"features": MemoryFeatures(held.user_rows, held.place_rows), "guards": Guards()} | parts
    return replace(shared.engine, safety=next(shared.safeties), **parts)


def without(engine: Engine, shared: Shared, gone: Sequence[str]) -> Engine:
    """Break parts of an engine."""
    engine.features.down = "online" in gone
    return replace(engine, index=shared.gone) if "index" in gone else engine


def places(engine: Engine, query: PlaceQuery):
    return asyncio.run(recommend_places(engine, query, NOW))


def people(engine: Engine, query: PeopleQuery):
    return asyncio.run(recommend_people(engine, query, NOW))


def group(engine: Engine, query: PlaceQuery, members: Sequence[int]):
    return asyncio.run(recommend_group(engine, query, members, "average", NOW))


def test_an_index_whose_server_is_gone_does_not_answer(shared: Shared):
    with pytest.raises(IndexUnavailable):
        asyncio.run(shared.gone.vectors("users", [1]))


@settings(max_examples=120, deadline=None)
@given(queries, ids, ids, st.dictionaries(st.integers(0, N_PLACES - 1), st.integers(0, 4), max_size=40), STORES,
       st.booleans())  # fmt: skip
def test_no_degraded_answer_breaks_a_rule_and_fewer_come_only_where_fewer_exist(
    shared: Shared,
    query: PlaceQuery,
    hidden: list[int],
    since: list[int],
    repriced: dict[int, int],
    gone: tuple[str, ...],
    warm: bool,
):
    held = shared.engine.features
    now_rows = {i: replace(r, price_band=repriced.get(i, r.price_band)) for i, r in held.place_rows.items()}
    features = MemoryFeatures(held.user_rows, now_rows, pairs={(query.user_id, i) for i in since})
    engine = live(shared, features=features)
    for place in hidden:
        engine.safety.hide(place, NOW)
    if warm:  # the process has read all of the city's features once, and some of its places' rows
        whole = places(replace(engine, candidates=N_PLACES), PlaceQuery(query.user_id, query.city_id))
        assert whole.degraded == ()
    visited = set(engine.catalogue.sources.memory.counts[[query.user_id]].indices.tolist())
    if warm or "online" not in gone:
        visited |= set(since)
    engine = without(engine, shared, gone)

    def row(i: int):
        if "online" not in gone:
            return now_rows[i]
        return engine.guards.last.place(i) or held.place_rows[i]

    may = {
        i
        for i in range(N_PLACES)
        if held.place_rows[i].city_id == query.city_id
        and i not in query.exclude
        and i not in hidden
        and meets(held.place_rows[i], query.filters)
        and meets(row(i), query.filters)
        and not (query.exclude_visited and i in visited)
    }
    answers = [places(engine, query)] if len(query.exclude) % 3 else pages(lambda q: places(engine, q), query)
    seen: list[int] = []
    for answer in answers:
        assert len(answer.recommendations) == min(query.top_k, len(may) - len(seen))
        seen += [r.place_id for r in answer.recommendations]
        assert (INDEX in answer.degraded) == ("index" in gone)
        features = {LAST_KNOWN, NO_FEATURES} & set(answer.degraded)
        assert len(features) == ("online" in gone)
        if answer.recommendations and "online" in gone:
            assert features == {LAST_KNOWN if warm else NO_FEATURES}
            assert PROFILES in answer.degraded
        assert set(answer.degraded) <= DEGRADATIONS.keys()
        assert all(0 < r.score < 1 for r in answer.recommendations)
        if not query.diversity and not query.novelty:
            scores = [r.score for r in answer.recommendations]
            assert scores == sorted(scores, reverse=True)
    assert len(seen) == len(set(seen))
    assert set(seen) <= may
    if answers[-1].next_cursor is None:
        assert set(seen) == may


@settings(max_examples=50, deadline=None)
@given(st.integers(0, LAST - 1), st.integers(1, 30), people_ids, people_ids, people_ids, st.booleans(), STORES,
       st.booleans())  # fmt: skip
def test_degraded_people_are_everybody_who_may_be_shown_and_nobody_else(
    shared: Shared,
    user_id: int,
    top_k: int,
    mine: list[int],
    theirs: list[int],
    since: list[int],
    strangers: bool,
    gone: tuple[str, ...],
    warm: bool,
):
    held = shared.engine.features
    features = MemoryFeatures(held.user_rows, held.place_rows, ties={(user_id, i) for i in since})
    engine = live(shared, features=features, friendships=True)
    engine.safety.block(user_id, [u for u in mine if u != user_id], NOW)
    for other in theirs:
        if other != user_id:
            engine.safety.block(other, [user_id], NOW)
    friends = set(engine.catalogue.sources.memory.friends[[user_id]].indices.tolist())
    if warm:
        people(replace(engine, candidates=N_USERS), PeopleQuery(user_id))
    if warm or "online" not in gone:
        friends |= set(since)
    may = {
        i
        for i in range(LAST)
        if i % N_CITIES == user_id % N_CITIES
        and i not in (user_id, *mine, *theirs)
        and not (strangers and i in friends)
    }
    engine = without(engine, shared, gone)
    answers = pages(lambda q: people(engine, q), PeopleQuery(user_id, top_k=top_k, exclude_friends=strangers))
    found = [r.user_id for answer in answers for r in answer.recommendations]
    assert len(found) == len(set(found))
    assert set(found) == may
    assert all(("index" in gone) == (INDEX in answer.degraded) for answer in answers)
    assert all(("online" in gone) == (set(answer.degraded) != {INDEX} & set(answer.degraded)) for answer in answers)


@settings(max_examples=40, deadline=None)
@given(queries, ids, st.lists(st.integers(0, LAST - 1), min_size=2, max_size=4, unique=True), STORES, st.booleans())
def test_a_groups_degraded_places_obey_the_rules(
    shared: Shared, query: PlaceQuery, hidden: list[int], members: list[int], gone: tuple[str, ...], warm: bool
):
    engine = live(shared)
    for place in hidden:
        engine.safety.hide(place, NOW)
    query = replace(query, user_id=members[0])
    if warm:
        group(replace(engine, candidates=N_PLACES), PlaceQuery(members[0], query.city_id), members[:2])
    counts, rows = engine.catalogue.sources.memory.counts, engine.features.place_rows
    visited = {i for u in members for i in counts[[u]].indices.tolist()}
    may = {
        i
        for i in range(N_PLACES)
        if rows[i].city_id == query.city_id
        and i not in (*query.exclude, *hidden)
        and meets(rows[i], query.filters)
        and not (query.exclude_visited and i in visited)
    }
    engine = without(engine, shared, gone)
    answers = pages(lambda q: group(engine, q, members), query)
    seen = [r.place_id for answer in answers for r in answer.recommendations]
    assert len(seen) == len(set(seen))
    assert set(seen) == may
    for answer in answers:
        for r in answer.recommendations:
            scores = [m.score for m in r.members]
            assert (r.score, r.least_misery) == (pytest.approx(sum(scores) / len(scores), abs=1e-6), min(scores))


def test_without_the_index_the_answer_is_the_same_but_says_so(shared: Shared):
    """The version's own vectors are those that were published: an exact search of them finds what the index finds."""
    whole, broken = live(shared), without(live(shared), shared, ["index"])
    for query in (PlaceQuery(4, 2, 3, (0, 2)), PlaceQuery(9, exclude_visited=True, diversity=0.5)):
        expected, found = places(whole, query), places(broken, query)
        assert found.degraded == ("index",)
        assert [(r.place_id, r.sources, r.explanations) for r in found.recommendations] == [
            (r.place_id, r.sources, r.explanations) for r in expected.recommendations
        ]
        assert [r.score for r in found.recommendations] == pytest.approx([r.score for r in expected.recommendations])
    asked = PeopleQuery(5, target_place_id=17)
    assert [r.user_id for r in people(broken, asked).recommendations] == [
        r.user_id for r in people(whole, asked).recommendations
    ]
    assert people(broken, asked).degraded == ("index",)
    asked = PlaceQuery(4)
    assert [r.place_id for r in group(broken, asked, [4, 9]).recommendations] == [
        r.place_id for r in group(whole, asked, [4, 9]).recommendations
    ]
    with pytest.raises(UnknownUser, match=f"user {LAST} is not in model version test-1"):
        places(broken, PlaceQuery(LAST))


def test_with_what_was_read_last_the_answer_is_the_one_of_then(shared: Shared):
    held, user_id = shared.engine.features, 4
    features = Lasting(held.user_rows, held.place_rows, pairs={(user_id, i) for i in range(0, N_PLACES, 7)})
    features.ties = {(user_id, i) for i in range(0, LAST, 5)}
    engine = live(shared, candidates=N_PLACES, features=features)
    before = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
    engine.features.down = True
    after = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
    for then, now in zip(before, after, strict=True):
        assert then.degraded == ()
        assert now.degraded == (LAST_KNOWN, PROFILES)
        assert now.recommendations == then.recommendations
    later = asyncio.run(recommend_places(engine, PlaceQuery(4), NOW.replace(minute=7)))
    assert later.features_age_s == 7 * 60


def test_in_a_hurry_the_store_is_not_asked_and_that_is_said(shared: Shared):
    held = shared.engine.features
    features = Lasting(held.user_rows, held.place_rows, pairs={(4, i) for i in range(0, N_PLACES, 7)})
    engine = live(shared, candidates=N_PLACES, features=features)
    before = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
    asked = list(engine.features.calls)
    hurried = HURRIED.set(True)
    try:
        after = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
        assert engine.features.calls == asked
        for then, now in zip(before, after, strict=True):
            assert now.degraded == (LOAD, LAST_KNOWN, PROFILES)
            assert now.recommendations == then.recommendations
        with pytest.raises(UnknownUser, match=r"there is no user 1000000$"):
            places(engine, PlaceQuery(1_000_000))
        assert engine.features.calls == [*asked, "profiles"], "an error is to be right"
        asyncio.run(explain_place(engine, PlaceQuery(4), 7, NOW))
        assert len(engine.features.calls) > len(asked) + 1, "what is explained is the whole list"
    finally:
        HURRIED.reset(hurried)
    assert places(engine, PlaceQuery(4)).degraded == ()


def test_what_was_read_for_others_is_enough_for_places_but_not_for_people(shared: Shared):
    engine = live(shared, candidates=N_PLACES)
    places(engine, PlaceQuery(4))
    people(engine, PeopleQuery(4))
    engine.features.down = True
    assert places(engine, PlaceQuery(7)).degraded == (LAST_KNOWN, PROFILES)
    assert people(engine, PeopleQuery(7)).degraded == (NO_FEATURES, PROFILES)
    assert people(engine, PeopleQuery(4)).degraded == (LAST_KNOWN, PROFILES)


def test_without_anything_read_the_order_is_that_of_the_sources(shared: Shared):
    """Reciprocal rank fusion by a loop, over what each source says."""
    engine = live(shared, candidates=N_PLACES)
    user_id, city = 4, 1
    sources = engine.catalogue.sources
    members = sources.members(city).tolist()
    said = sources.ask(np.array([user_id]), city)
    user = engine.own.embeddings([user_id])[user_id]
    vectors = asyncio.run(engine.index.vectors("places", members))
    near = sorted(members, key=lambda i: -float(user @ vectors[i]))[:NEAR]
    worth = {i: 1e-3 * float(v) for i, v in zip(members, sources.strengths(said)["popular"], strict=True)}
    for name, values in sources.strengths(said).items():
        order = sorted(range(len(members)), key=lambda at: -float(values[at]))
        for rank, at in enumerate(order):
            if name.startswith("popular") or values[at] > 0:
                worth[members[at]] += 1 / (20 + rank) + (name == "own")
    for rank, i in enumerate(near):
        worth[i] += 1 / (20 + rank)
    engine.features.down = True
    answer = places(engine, PlaceQuery(user_id, top_k=100))
    assert answer.degraded == (NO_FEATURES, PROFILES)
    found = [r.place_id for r in answer.recommendations]
    ties = {i for i in members if abs(worth[i] - np.sort(list(worth.values()))[::-1][found.index(i)]) > 0.02}
    assert len(found) == len(members)
    assert not ties, "where sources rank equals, their order is free: a rank or two"
    own = {i for i in sources.memory.counts[[user_id]].indices.tolist() if i % N_CITIES == city}
    assert set(found[: len(own)]) == own
    for r in answer.recommendations:
        assert r.score_parts is None
        assert r.name == engine.features.place_rows[r.place_id].name
        assert r.explanations == ["Recommended from your activity and that of people like you."]
    parts = places(engine, PlaceQuery(user_id, parts=True))
    assert all(r.score_parts is None for r in parts.recommendations)


def test_people_without_anything_read_have_no_name_and_no_reason_that_needs_one(shared: Shared):
    engine = live(shared)
    engine.features.down = True
    answer = people(engine, PeopleQuery(4))
    assert answer.degraded == (NO_FEATURES, PROFILES)
    for r in answer.recommendations:
        assert (r.name, r.explanations) == ("", ["You have similar activity patterns."])
        assert r.compat_score == r.attend_prob == r.combined_score


def test_a_request_asks_a_part_that_failed_no_second_time_and_the_breaker_spares_the_next(shared: Shared):
    engine = live(shared)
    engine.features.down = True
    for expected in (1, 2, 3, 3, 3):
        places(engine, PlaceQuery(4))
        assert len(engine.features.calls) == expected


def test_answers_are_whole_again_after_one_probe_and_each_degraded_one_was_counted(shared: Shared):
    clock = Clock()
    guards = Guards(
        online=Breaker("the online store", FeatureStoreUnavailable, clock=clock),
        index=Breaker("the index", IndexUnavailable, clock=clock),
    )
    engine = live(shared, guards=guards)
    broken = without(engine, shared, ["online", "index"])
    for _ in range(4):
        assert INDEX in places(broken, PlaceQuery(4)).degraded
    assert engine.degradations == {INDEX: 4, NO_FEATURES: 4, PROFILES: 4}
    engine.features.down = False
    assert INDEX in places(engine, PlaceQuery(4)).degraded, "too early to ask"
    clock.now += 1.0
    assert places(engine, PlaceQuery(4)).degraded == ()
    assert engine.degradations[INDEX] == 5
    assert guards.online.status == guards.index.status == "closed"


@settings(max_examples=40, deadline=None)
@given(queries, ids, st.integers(2, 4), st.booleans())
def test_with_a_node_away_the_rules_hold_and_what_the_others_have_counts(
    shared: Shared, query: PlaceQuery, hidden: list[int], nodes: int, warm: bool
):
    held = shared.engine.features
    engine = live(shared, features=Lasting(held.user_rows, held.place_rows), candidates=N_PLACES)
    for place in hidden:
        engine.safety.hide(place, NOW)
    if warm:
        assert places(engine, PlaceQuery(query.user_id, query.city_id)).degraded == ()
    whole = pages(lambda q: places(engine, q), query)
    engine.features.away = lambda i: i % nodes == 1
    answers = pages(lambda q: places(engine, q), query)
    listed, found = ({r.place_id for a in by for r in a.recommendations} for by in (whole, answers))
    assert found == listed
    for answer in answers:
        assert set(answer.degraded) <= {PARTIAL, NO_FEATURES}
        assert not warm or NO_FEATURES not in answer.degraded
        for r in answer.recommendations:
            assert r.name == held.place_rows[r.place_id].name
    assert engine.guards.online.status == "closed", "the others are not left alone for it"


def test_what_a_node_holds_is_as_read_last_and_it_is_named(shared: Shared):
    held = shared.engine.features
    features = Lasting(held.user_rows, held.place_rows, pairs={(4, i) for i in range(0, N_PLACES, 3)})
    engine = live(shared, candidates=N_PLACES, features=features)
    before = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
    features.away = lambda i: i % 4 in (0, 2)
    after = places(engine, PlaceQuery(4)), people(engine, PeopleQuery(4)), group(engine, PlaceQuery(4), [4, 9])
    for then, now in zip(before, after, strict=True):
        assert now.degraded == (PARTIAL,)
        assert now.recommendations == then.recommendations
    assert engine.degradations == {PARTIAL: 3}
    later = asyncio.run(recommend_places(engine, PlaceQuery(4), NOW.replace(minute=7)))
    assert later.features_age_s == 7 * 60
    for explain, query in ((explain_place, PlaceQuery(4)), (explain_person, PeopleQuery(4))):
        with pytest.raises(FeatureStoreUnavailable, match="a node of the online store"):
            asyncio.run(explain(engine, query, 7, NOW))
    assert engine.guards.online.status == "closed"
    with pytest.raises(UnknownUser, match="there is no user 1000000 in model version test-1"):
        places(engine, PlaceQuery(10**6))


def test_where_most_is_away_and_nothing_was_read_the_order_is_that_of_the_sources(shared: Shared):
    engine = live(shared, candidates=N_PLACES)
    engine.features.away = lambda i: i % 5 != 0
    assert places(engine, PlaceQuery(5)).degraded == (NO_FEATURES, PARTIAL)
    assert people(engine, PeopleQuery(5)).degraded == (NO_FEATURES, PARTIAL)


def test_newcomers_too(shared: Shared):
    engine = without(live(shared), shared, ["online", "index"])
    whole = asyncio.run(recommend_to_anybody(live(shared), PlaceQuery(NOBODY, 1), Profile((2,)), NOW))
    answer = asyncio.run(recommend_to_anybody(engine, PlaceQuery(NOBODY, 1), Profile((2,)), NOW))
    assert answer.degraded == (PROFILES, WITHOUT)
    assert [r.place_id for r in answer.recommendations] == [r.place_id for r in whole.recommendations]
    with pytest.raises(UnknownUser, match="there is no user 1000000 in model version test-1"):
        places(engine, PlaceQuery(10**6))


def test_no_list_of_what_is_hidden_no_answer(shared: Shared, monkeypatch: pytest.MonkeyPatch):
    engine = without(live(shared), shared, ["online", "index"])

    def unreadable() -> None:
        raise SafetyUnavailable("it cannot be read")

    monkeypatch.setattr(engine.safety, "refresh", unreadable)
    for ask, query in ((places, PlaceQuery(4)), (people, PeopleQuery(4))):
        with pytest.raises(SafetyUnavailable):
            ask(engine, query)
    with pytest.raises(SafetyUnavailable):
        group(engine, PlaceQuery(4), [4, 9])


@pytest.mark.parametrize(("gone", "error"), [("online", FeatureStoreUnavailable), ("index", IndexUnavailable)])
def test_of_a_list_that_does_without_there_is_nothing_to_explain(shared: Shared, gone: str, error: type[Exception]):
    engine = without(live(shared), shared, [gone])
    for explain, query in ((explain_place, PlaceQuery(4)), (explain_person, PeopleQuery(4))):
        with pytest.raises(error):
            asyncio.run(explain(engine, query, 7, NOW))


def test_ready_is_an_index_that_has_answered_and_degraded_a_part_that_does_not(shared: Shared):
    def ask(engine: Engine) -> dict[str, bool]:
        return asyncio.run(answering(engine, NOW))

    with pytest.raises(IndexUnavailable, match="has not answered since the start"):
        ask(without(live(shared), shared, ["index"]))
    engine = live(shared)
    assert ask(engine) == {"online_store": True, "index": True}
    assert ask(without(engine, shared, ["online", "index"])) == {"online_store": False, "index": False}
    engine = live(shared)
    engine.features.silent = ["10.0.0.7:6379"]
    for _ in range(5):
        assert ask(engine) == {"online_store": False, "index": True}
    assert engine.guards.online.status == "closed", "a node that is away is no reason to leave the others alone"
    engine = live(shared)
    engine.features.down = True
    assert ask(engine) == {"online_store": False, "index": True}


def test_what_is_remembered_is_bounded_and_what_was_forgotten_online_is_forgotten(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("recsys.recommend.fallback._KEPT", 3)
    monkeypatch.setattr("recsys.recommend.fallback._ROWS", 4)
    features, last, at_us = shared.engine.features, LastKnown(), NOW.timestamp() * 1e6
    asked = np.arange(3)
    for user_id in range(5):
        features.pairs = {(user_id, 1)}
        last.keep_ranked(user_id, asked, features.rank_places(user_id, asked, NOW), at_us, people=False)
    assert [last.user(i) is not None for i in range(5)] == [False, False, True, True, True]
    known, enough, _ = last.ranked(4, asked, at_us, people=False)
    assert (known[:, -1].tolist(), enough) == ([0, 1, 0], True)
    features.pairs = set()
    last.keep_ranked(4, asked, features.rank_places(4, asked, NOW), at_us, people=False)
    assert not last.ranked(4, asked, at_us, people=False)[0][:, -1].any()
    others = np.arange(10, 13)  # with them the table would be too long
    last.keep_ranked(4, others, features.rank_places(4, others, NOW), at_us, people=False)
    assert [last.ranked(4, x, at_us, people=False)[1] for x in (asked, others)] == [False, True]
    last.keep_ranked(4, others, features.rank_places(4, others, NOW), at_us, people=False)  # they are there already
    last.keep_ranked(4, asked[:1], features.rank_places(4, asked[:1], NOW), at_us, people=False)
    assert last.ranked(4, np.append(others, 0), at_us, people=False)[0][:, :-1].any(axis=1).all()
    many = np.arange(20, 29)
    last.keep_ranked(4, many, features.rank_places(4, many, NOW), at_us, people=False)
    known = last.ranked(4, many, at_us, people=False)[0][:, 0] > 0
    assert known.tolist() == [True] * 4 + [False] * 5, "more at once than there is room for"


def test_a_place_as_of_the_version_is_the_place_but_for_the_weights_of_its_tags(shared: Shared, tmp_path: Path):
    own = shared.engine.own
    for i, row in shared.engine.features.place_rows.items():
        mine = own.place(i)
        assert mine is not None
        same = ("place_id", "name", "city_id", "neighborhood_id", "price_band", "typical_time_slot")
        assert [getattr(mine, name) for name in same] == [getattr(row, name) for name in same]
        np.testing.assert_array_equal(mine.category_one_hot, row.category_one_hot)
        np.testing.assert_array_equal(mine.fine_tag_vector > 0, row.fine_tag_vector > 0)
    assert own.place(N_PLACES) is None
    assert own.user(LAST) is None
    assert own.embeddings([LAST, -1]) == {}
