"""No answer breaks a rule, and none is shorter than it must be: requests of all kinds against a plain loop."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.constants import C_COARSE, C_FINE
from recsys.errors import InvalidField, NotReady, UnknownUser
from recsys.online import PlaceRow
from recsys.recommend.engine import Engine
from recsys.recommend.filters import Filters
from recsys.recommend.groups import recommend_group
from recsys.recommend.newcomer import NOBODY, WITHOUT, Profile, recommend_to_anybody
from recsys.recommend.people import PeopleQuery, recommend_people
from recsys.recommend.places import PlaceAnswer, recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.safety import Safety
from tests.parts import N_AREAS, N_CITIES, N_PLACES, N_USERS, NOW, MemoryFeatures, make_engine

EVERYWHERE = range(N_PLACES)
ids = st.lists(st.integers(0, N_PLACES + 5), max_size=60, unique=True)
bands = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: (min(pair), max(pair)))
filters = st.builds(
    Filters,
    price=st.none() | bands,
    categories=st.just(()) | st.lists(st.integers(0, C_COARSE - 1), min_size=1, max_size=3).map(tuple),
    tags=st.just(()) | st.lists(st.integers(0, C_FINE - 1), min_size=1, max_size=40).map(tuple),
    neighborhoods=st.just(()) | st.lists(st.integers(0, N_AREAS - 1), min_size=1, max_size=3).map(tuple),
    open_slot=st.none() | st.integers(0, 5),
)
shares = st.sampled_from([0.0, 0.0, 0.3, 1.0])
queries = st.builds(
    PlaceQuery,
    user_id=st.integers(0, N_USERS - 2),
    city_id=st.integers(0, N_CITIES - 1),
    top_k=st.integers(1, 100),
    exclude_visited=st.booleans(),
    filters=st.just(Filters()) | filters,
    exclude=ids.map(tuple),
    diversity=shares,
    novelty=shares,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Iterator[Safety]]]:
    folder = tmp_path_factory.mktemp("index")
    made = make_engine(folder)
    yield replace(made, candidates=10), (Safety(folder.parent / f"safety-{n}" / "w") for n in count())
    asyncio.run(made.index.close())


def meets(row: PlaceRow, wanted: Filters) -> bool:
    """The filters' meaning, one place at a time."""
    low, high = wanted.price or (0, 4)
    return (
        low <= row.price_band <= high
        and (not wanted.categories or any(row.category_one_hot[c] > 0 for c in wanted.categories))
        and (not wanted.tags or any(row.fine_tag_vector[t] > 0 for t in wanted.tags))
        and (not wanted.neighborhoods or row.neighborhood_id in wanted.neighborhoods)
        and wanted.open_slot in (None, row.typical_time_slot)
    )


def pages(ask, query, most: int = 300) -> list:
    """The pages of a list, up to its end."""
    out = [ask(query)]
    while out[-1].next_cursor is not None and len(out) < most:
        out.append(ask(replace(query, cursor=out[-1].next_cursor)))
    return out


@settings(max_examples=150, deadline=None)
@given(queries, ids, ids, st.dictionaries(st.integers(0, N_PLACES - 1), st.integers(0, 4), max_size=40))
def test_no_answer_breaks_a_rule_and_fewer_come_only_where_fewer_exist(
    shared, query: PlaceQuery, hidden: list[int], since: list[int], repriced: dict[int, int]
):
    engine, safeties = shared
    held = engine.features
    assert isinstance(held, MemoryFeatures)
    safety = next(safeties)
    for place in hidden:
        safety.hide(place, NOW)
    now_rows = {i: replace(r, price_band=repriced.get(i, r.price_band)) for i, r in held.place_rows.items()}
    features = MemoryFeatures(held.user_rows, now_rows, pairs={(query.user_id, i) for i in since})
    visited = {*engine.catalogue.sources.memory.counts[[query.user_id]].indices.tolist(), *since}
    may = {
        i
        for i in EVERYWHERE
        if held.place_rows[i].city_id == query.city_id
        and i not in query.exclude
        and i not in hidden
        and meets(held.place_rows[i], query.filters)  # as of the version, which the search knows
        and meets(now_rows[i], query.filters)  # and as of now
        and not (query.exclude_visited and i in visited)
    }
    live = replace(engine, features=features, safety=safety)
    if len(query.exclude) % 3:  # one page is enough for most
        answers = [asyncio.run(recommend_places(live, query, NOW))]
    else:
        answers = pages(lambda q: asyncio.run(recommend_places(live, q, NOW)), query)
    seen: list[int] = []
    for answer in answers:
        found = [r.place_id for r in answer.recommendations]
        assert len(found) == min(query.top_k, len(may) - len(seen))
        seen += found
        assert answer.city_id == query.city_id
        if not query.diversity and not query.novelty:
            scores = [r.score for r in answer.recommendations]
            assert scores == sorted(scores, reverse=True)
    assert len(seen) == len(set(seen))
    assert set(seen) <= may
    if answers[-1].next_cursor is None:
        assert set(seen) == may


@settings(max_examples=60, deadline=None)
@given(
    queries,
    ids,
    st.lists(st.integers(0, N_USERS - 2), min_size=2, max_size=4, unique=True),
    st.sampled_from(["least_misery", "average"]),
    st.lists(st.tuples(st.integers(0, N_USERS - 2), st.integers(0, N_PLACES - 1)), max_size=30),
)
def test_a_groups_places_obey_the_rules_and_are_worth_what_the_strategy_says(
    shared, query: PlaceQuery, hidden: list[int], group: list[int], strategy: str, since: list[tuple[int, int]]
):
    engine, safeties = shared
    safety, rows = next(safeties), engine.features.place_rows
    for place in hidden:
        safety.hide(place, NOW)
    features = MemoryFeatures(engine.features.user_rows, rows, pairs=set(since))
    counts = engine.catalogue.sources.memory.counts
    visited = {i for u in group for i in counts[[u]].indices.tolist()} | {i for u, i in since if u in group}
    may = {
        i
        for i in EVERYWHERE
        if rows[i].city_id == query.city_id
        and i not in (*query.exclude, *hidden)
        and meets(rows[i], query.filters)
        and not (query.exclude_visited and i in visited)
    }
    live = replace(engine, features=features, safety=safety)
    query = replace(query, user_id=group[0])
    answers = pages(lambda q: asyncio.run(recommend_group(live, q, group, strategy, NOW)), query)
    seen: list[int] = []
    for answer in answers:
        assert len(answer.recommendations) == min(query.top_k, len(may) - len(seen))
        seen += [r.place_id for r in answer.recommendations]
        for r in answer.recommendations:
            assert [m.user_id for m in r.members] == group
            scores = [m.score for m in r.members]
            assert (r.least_misery, r.average) == (min(scores), pytest.approx(sum(scores) / len(scores), abs=1e-6))
            assert r.score == (r.least_misery if strategy == "least_misery" else r.average)
        if not query.diversity and not query.novelty:
            assert [-r.score for r in answer.recommendations] == sorted(-r.score for r in answer.recommendations)
    assert len(seen) == len(set(seen))
    assert set(seen) == may


def test_what_a_place_is_to_a_member_is_what_it_is_to_them_alone(shared):
    engine = replace(shared[0], candidates=N_PLACES)
    group = asyncio.run(recommend_group(engine, PlaceQuery(4, 1, 2, (3,), top_k=100), [4, 9], "average", NOW))
    for at, user_id in enumerate((4, 9)):
        alone = asyncio.run(recommend_places(engine, PlaceQuery(user_id, 1, 2, (3,), top_k=100), NOW))
        said = {r.place_id: (r.score, r.explanations) for r in alone.recommendations}
        for r in group.recommendations:
            member = r.members[at]
            assert member.score == pytest.approx(said[r.place_id][0], abs=1e-5)
            assert member.explanations == [e for e in said[r.place_id][1] if "been there" not in e]


def test_a_group_without_a_city_goes_where_most_of_them_live(shared):
    def ask(*group: int) -> int:
        return asyncio.run(recommend_group(shared[0], PlaceQuery(group[0]), group, "average", NOW)).city_id

    assert [ask(4, 5, 8), ask(4, 5), ask(5, 4), ask(5, 4, 7)] == [2, 1, 2, 1]
    with pytest.raises(UnknownUser, match=f"user {N_USERS - 1} is not in model version"):
        ask(4, N_USERS - 1)


people_ids = st.lists(st.integers(0, N_USERS - 2), max_size=25)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, N_USERS - 2), st.integers(1, 30), people_ids, people_ids, people_ids, st.booleans())
def test_people_are_everybody_who_may_be_shown_and_nobody_else(
    shared, user_id: int, top_k: int, mine: list[int], theirs: list[int], since: list[int], strangers: bool
):
    engine, safeties = shared
    safety = next(safeties)
    mine, theirs = [u for u in mine if u != user_id], [u for u in theirs if u != user_id]
    safety.block(user_id, mine, NOW)
    for other in theirs:
        safety.block(other, [user_id], NOW)
    held = engine.features
    features = MemoryFeatures(held.user_rows, held.place_rows, ties={(user_id, i) for i in since})
    live = replace(engine, features=features, safety=safety, friendships=True)
    friends = {*engine.catalogue.sources.memory.friends[[user_id]].indices.tolist(), *since}
    may = {
        i
        for i in range(N_USERS - 1)
        if i % N_CITIES == user_id % N_CITIES
        and i not in (user_id, *mine, *theirs)
        and not (strangers and i in friends)
    }
    query = PeopleQuery(user_id, top_k=top_k, exclude_friends=strangers)
    answers = pages(lambda q: asyncio.run(recommend_people(live, q, NOW)), query)
    found = [r.user_id for answer in answers for r in answer.recommendations]
    assert len(found) == len(set(found))
    assert set(found) == may
    assert all(len(answer.recommendations) == top_k for answer in answers[:-1])


def test_friends_cannot_be_left_out_where_the_data_know_none(shared):
    with pytest.raises(InvalidField, match="exclude_friends: this data set knows no friendships"):
        asyncio.run(recommend_people(shared[0], PeopleQuery(4, exclude_friends=True), NOW))


@settings(max_examples=60, deadline=None)
@given(
    queries, ids, st.lists(st.integers(0, C_COARSE - 1), max_size=2), st.lists(st.integers(0, C_FINE - 1), max_size=9)
)
def test_newcomers_get_the_same_rules_and_popular_places_that_fit(
    shared, query: PlaceQuery, hidden: list[int], liked: list[int], tags: list[int]
):
    engine, safeties = shared
    safety, rows = next(safeties), engine.features.place_rows
    for place in hidden:
        safety.hide(place, NOW)
    live = replace(engine, safety=safety)
    query = replace(query, user_id=NOBODY, diversity=0.0, novelty=0.0)
    may = {
        i
        for i in EVERYWHERE
        if rows[i].city_id == query.city_id and i not in (*query.exclude, *hidden) and meets(rows[i], query.filters)
    }
    profile = Profile(tuple(liked), tuple(tags))
    answers = pages(lambda q: asyncio.run(recommend_to_anybody(live, q, profile, NOW)), query)
    found = [r for answer in answers for r in answer.recommendations]
    assert {r.place_id for r in found} == may
    assert len(found) == len(may)
    counts = engine.catalogue.sources.memory.counts.toarray() > 0
    visitors = {i: int(counts[:, i].sum()) for i in EVERYWHERE}
    here = [visitors[i] for i in EVERYWHERE if rows[i].city_id == query.city_id]

    def worth(i: int) -> float:
        rank = sum(v < visitors[i] for v in here) / len(here)
        said = [any(rows[i].category_one_hot[c] > 0 for c in liked)] if liked else []
        said += [any(rows[i].fine_tag_vector[t] > 0 for t in tags)] if tags else []
        return (rank + sum(said) / len(said)) / 2 if said else rank

    assert [r.score for r in found] == pytest.approx([worth(r.place_id) for r in found], abs=1e-6)
    assert [(-r.score, r.place_id) for r in found] == sorted((-r.score, r.place_id) for r in found)
    assert all(answer.degraded == (WITHOUT,) for answer in answers)
    for r in found:
        row = rows[r.place_id]
        fits = any(row.category_one_hot[c] > 0 for c in liked) or any(row.fine_tag_vector[t] > 0 for t in tags)
        assert r.sources == (["popular", "profile"] if fits else ["popular"])
        assert r.explanations
        for said in r.explanations:
            if "people have been there" in said:
                assert said == f"{visitors[r.place_id]} people have been there or looked at it."
            elif "few people" in said:
                assert visitors[r.place_id] < 3
            else:
                assert fits


def test_somebody_known_needs_no_profile_and_somebody_unknown_a_city(shared):
    engine, _ = shared
    profile = Profile((0,))
    known = asyncio.run(recommend_to_anybody(engine, PlaceQuery(4), profile, NOW))
    assert known == asyncio.run(recommend_places(engine, PlaceQuery(4), NOW))
    late = asyncio.run(recommend_to_anybody(engine, PlaceQuery(N_USERS - 1, city_id=1), profile, NOW))
    assert (late.degraded, len(late.recommendations)) == ((WITHOUT,), 10)
    with pytest.raises(InvalidField, match="city_id: must be said"):
        asyncio.run(recommend_to_anybody(engine, PlaceQuery(NOBODY), profile, NOW))
    with pytest.raises(InvalidField, match=r"profile.categories.1: must be from 0 to 5"):
        asyncio.run(recommend_to_anybody(engine, PlaceQuery(NOBODY, 1), Profile((0, 6)), NOW))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Filters(categories=(0, C_COARSE)), r"filters.categories.1: must be from 0 to 5, see GET /taxonomy \(got 6\)"),
        (Filters(tags=(C_FINE,)), r"filters.tags.0: must be from 0 to 99"),
        (Filters(neighborhoods=(0, 9)), r"filters.neighborhoods.1: City 1 has no such neighborhood \(got 9\)"),
        (Filters(neighborhoods=("Quarter 2-0",)), "City 1 has no such neighborhood"),
    ],
)
def test_what_the_version_does_not_have_cannot_be_asked_for(shared, wanted: Filters, said: str):
    with pytest.raises(InvalidField, match=said):
        asyncio.run(recommend_places(shared[0], PlaceQuery(4, filters=wanted), NOW))


def test_a_neighborhood_by_its_name_is_the_one_of_that_number(shared):
    def ask(area: int | str) -> PlaceAnswer:
        return asyncio.run(recommend_places(shared[0], PlaceQuery(4, filters=Filters(neighborhoods=(area,))), NOW))

    assert ask("Quarter 1-2") == ask(2)
    assert {r.neighborhood_name for r in ask(2).recommendations} == {"Quarter 1-2"}


def test_a_cursor_belongs_to_its_list(shared):
    engine, _ = shared
    first = asyncio.run(recommend_places(engine, PlaceQuery(4, top_k=3), NOW))
    assert first.next_cursor
    other = replace(PlaceQuery(7), cursor=first.next_cursor)
    for query in (other, PlaceQuery(4, 2, cursor=first.next_cursor)):
        with pytest.raises(InvalidField, match="cursor: is of a list for somebody else, or of another city"):
            asyncio.run(recommend_places(engine, query, NOW))
    for bad in ("x", "AAAA", first.next_cursor[:-2], first.next_cursor + "A", "é", "=" * 8):
        with pytest.raises(InvalidField, match="cursor: "):
            asyncio.run(recommend_places(engine, PlaceQuery(4, cursor=bad), NOW))


def test_a_list_whose_rows_all_break_a_rule_is_empty_and_not_an_unfilled_store(shared):
    engine, _ = shared
    rows = {i: replace(r, price_band=0) for i, r in engine.features.place_rows.items()}
    dear = PlaceQuery(4, filters=Filters(price=(3, 4)))
    live = replace(engine, features=MemoryFeatures(engine.features.user_rows, rows))
    assert asyncio.run(recommend_places(live, dear, NOW)).recommendations == []
    with pytest.raises(NotReady):
        asyncio.run(recommend_places(replace(live, features=MemoryFeatures(live.features.user_rows, {})), dear, NOW))


def test_diversity_and_novelty_do_what_they_say(shared):
    engine, _ = shared
    vectors = asyncio.run(engine.index.vectors("places", list(EVERYWHERE)))
    counts = engine.catalogue.sources.memory.counts.toarray() > 0

    def ask(**how: float) -> list[int]:
        query = PlaceQuery(4, top_k=10, **how)  # type: ignore[arg-type]
        answer = asyncio.run(recommend_places(replace(engine, candidates=60), query, NOW))
        return [r.place_id for r in answer.recommendations]

    def alike(found: list[int]) -> float:
        v = np.stack([vectors[i] for i in found])
        return float((v @ v.T)[np.triu_indices(len(v), 1)].mean())

    plain = ask()
    assert ask(diversity=0.0, novelty=0.0) == plain
    assert alike(ask(diversity=1.0)) < alike(ask(diversity=0.7)) < alike(plain)
    assert sum(counts[:, i].sum() for i in ask(novelty=1.0)) < sum(counts[:, i].sum() for i in plain)
