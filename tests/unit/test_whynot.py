"""What is said of why and why not is what the answer did: outcomes, ranks, rules and parts, each found another way."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from recsys.aggregates import ONLINE_PLACE
from recsys.constants import SLOT_NOT_SAID
from recsys.errors import InvalidField, UnknownPlace, UnknownUser
from recsys.recommend.engine import Engine
from recsys.recommend.filters import Filters
from recsys.recommend.parts import PEOPLE_PARTS, PLACE_PARTS
from recsys.recommend.people import PeopleQuery, recommend_people
from recsys.recommend.places import recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.recommend.whynot import Explanation, explain_person, explain_place
from recsys.safety import Safety
from recsys.sources import ASKED, PEOPLE_SOURCES, PLACE_SOURCES
from tests.parts import N_CITIES, N_PLACES, N_USERS, NOW, MemoryFeatures, make_engine

HERE = [i for i in range(N_PLACES) if i % N_CITIES == 1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = make_engine(tmp_path_factory.mktemp("index"))
    yield replace(made, candidates=20)
    asyncio.run(made.index.close())


@pytest.fixture
def engine(shared: Engine, tmp_path) -> Engine:
    held = shared.features
    assert isinstance(held, MemoryFeatures)
    features = MemoryFeatures(dict(held.user_rows), dict(held.place_rows))
    return replace(shared, features=features, safety=Safety(tmp_path / "safety" / "w"))


def why(engine: Engine, query: PlaceQuery, place_id: int) -> Explanation:
    return asyncio.run(explain_place(engine, query, place_id, NOW))


@pytest.mark.parametrize("query", [PlaceQuery(4), PlaceQuery(4, top_k=5, diversity=0.7), PlaceQuery(4, novelty=0.5)])
def test_outcome_and_rank_of_every_place_are_those_of_the_list(engine: Engine, query: PlaceQuery):
    listed = [r.place_id for r in asyncio.run(recommend_places(engine, query, NOW)).recommendations]
    scores = {r.place_id: r.score for r in asyncio.run(recommend_places(engine, query, NOW)).recommendations}
    said = {i: why(engine, query, i) for i in HERE}
    ranks = {e.rank: i for i, e in said.items() if e.rank is not None}
    assert sorted(ranks) == list(range(1, 21)), "each candidate has a rank of its own"
    assert [ranks[r] for r in range(1, query.top_k + 1)] == listed
    for i, e in said.items():
        assert (e.city_id, e.candidates, e.broken) == (1, 20, [])
        expected = "recommended" if i in listed else "ranked_below" if e.rank else "not_retrieved"
        assert e.outcome == expected
        assert (e.score is None) == (e.rank is None) == (not e.parts)
        if i in scores:
            assert e.score == pytest.approx(scores[i], abs=1e-6)


def test_ranks_in_the_sources_are_recounted(engine: Engine):
    """With enough friends told of, and without."""
    memory = engine.catalogue.sources.memory
    been = memory.counts.toarray() > 0
    friends = memory.friends[[4]].indices
    vectors = asyncio.run(engine.index.vectors("places", HERE))
    user = asyncio.run(engine.index.vectors("users", [4]))[4]
    visitors = {i: int(been[:, i].sum()) for i in HERE}
    among_friends = {i: int(been[friends, i].sum()) for i in HERE}
    for k in (1, 3):
        for i in HERE:
            e = why(replace(engine, k_anonymity=k), PlaceQuery(4), i)
            assert [s.source for s in e.retrieval] == list(PLACE_SOURCES)
            standing = {s.source: (s.rank, s.of) for s in e.retrieval}
            assert standing["popular"] == (1 + sum(v > visitors[i] for v in visitors.values()), len(HERE))
            near = {j: float(vectors[j] @ user) for j in HERE}
            assert standing["vector"] == (1 + sum(v > near[i] for v in near.values()), len(HERE))
            assert (standing["own"][0] is not None) == been[4, i]
            assert standing["own"][1] == int(been[4, HERE].sum())
            if among_friends[i] >= k:
                rank = 1 + sum(v > among_friends[i] for v in among_friends.values())
                assert standing["friends"] == (rank, sum(v > 0 for v in among_friends.values()))
            else:
                assert standing["friends"] == (None, 0)
            assert ("friends" in e.parts) == (bool(e.parts) and among_friends[i] >= k)


def test_every_rule_that_drops_a_place_is_named(engine: Engine):
    row = engine.features.place_rows
    place = HERE[0]
    price, area, slot = row[place].price_band, row[place].neighborhood_id, row[place].typical_time_slot
    (category,) = np.flatnonzero(row[place].category_one_hot > 0).tolist()
    lacking = int(np.flatnonzero(row[place].fine_tag_vector == 0)[0])
    engine.features.pairs.add((4, HERE[1]))
    cases = {
        "exclude_place_ids": PlaceQuery(4, exclude=(place,)),
        "city_id": PlaceQuery(4, city_id=2),
        "filters.price": PlaceQuery(4, filters=Filters(price=((price + 1) % 5, (price + 1) % 5))),
        "filters.categories": PlaceQuery(4, filters=Filters(categories=((category + 1) % 6,))),
        "filters.tags": PlaceQuery(4, filters=Filters(tags=(lacking,))),
        "filters.neighborhoods": PlaceQuery(4, filters=Filters(neighborhoods=((area + 1) % 4,))),
        "filters.open_slot": PlaceQuery(4, filters=Filters(open_slot=(slot + 1) % 6)),
    }
    for rule, query in cases.items():
        e = why(engine, query, place)
        assert (e.outcome, [b.rule for b in e.broken], e.rank, e.parts) == ("dropped", [rule], None, {}), rule
    (own, *_) = [i for i in engine.catalogue.sources.memory.counts[[4]].indices.tolist() if i in HERE]
    for visited in (own, HERE[1]):  # before the version was made, and since
        e = why(engine, PlaceQuery(4, exclude_visited=True), visited)
        assert [b.rule for b in e.broken] == ["exclude_visited"]
    page = asyncio.run(recommend_places(engine, PlaceQuery(4, top_k=2), NOW))
    e = why(engine, PlaceQuery(4, cursor=page.next_cursor), page.recommendations[0].place_id)
    assert [b.rule for b in e.broken] == ["cursor"]
    engine.safety.hide(place, NOW)
    e = why(engine, PlaceQuery(4, exclude=(place,)), place)
    assert [b.rule for b in e.broken] == ["hidden", "exclude_place_ids"]
    del engine.features.place_rows[HERE[2]]
    assert [b.rule for b in why(engine, PlaceQuery(4), HERE[2]).broken] == ["online_store"]
    row[HERE[3]] = replace(row[HERE[3]], price_band=(row[HERE[3]].price_band + 1) % 5)  # since the version was made
    now = row[HERE[3]].price_band
    assert [b.rule for b in why(engine, PlaceQuery(4, filters=Filters(price=(now, now))), HERE[3]).broken] == [
        "filters.price"
    ]


def test_a_part_is_what_the_score_loses_without_it(engine: Engine):
    """One candidate, one part at a time, scored by hand."""
    engine, query = (
        replace(engine, candidates=N_PLACES, k_anonymity=1),
        PlaceQuery(4, time_slot=2, desired_categories=(1,)),
    )
    sources = engine.catalogue.sources
    said = sources.ask(np.array([4]), 1)
    members = sources.members(1)
    signals = sources.signals(said, np.arange(len(members))[None])[0]
    fits = engine.catalogue.fits(engine.features.user_rows[4], 1, np.arange(len(members)), 2, (1,))
    inputs = np.concatenate([engine.features.rank_places(4, members, NOW).features, fits, signals], axis=1)
    found = asyncio.run(engine.index.vectors("places", members.tolist()))
    vectors = np.stack([found[i] for i in members])
    user = asyncio.run(engine.index.vectors("users", [4]))[4]

    def log_odds(vector: np.ndarray, x: np.ndarray, slot: int = 2, categories: tuple = (1,)) -> float:
        p = engine.ranker.score_places(user, vector[None], x[None], city_id=1, slot=slot, categories=categories).item()
        return float(np.log(p / (1 - p)))

    mean = vectors.mean(axis=0)
    answer = asyncio.run(recommend_places(engine, replace(query, parts=True), NOW))
    for r in answer.recommendations:
        at = members.tolist().index(r.place_id)
        full = log_odds(vectors[at], inputs[at])
        expected = {"vector": full - log_odds(mean / np.linalg.norm(mean), inputs[at])}
        for name, columns in PLACE_PARTS.items():
            x = inputs[at].copy()
            x[columns] = inputs[:, columns].mean(axis=0)
            expected[name] = full - log_odds(vectors[at], x)
        unasked = inputs[at].copy()
        unasked[len(ONLINE_PLACE) + ASKED.start : len(ONLINE_PLACE) + ASKED.stop] = 0
        expected["context"] = full - log_odds(vectors[at], unasked, SLOT_NOT_SAID, ())
        if r.score_parts is not None and "friends" not in r.score_parts:
            del expected["friends"]
        assert r.score_parts == pytest.approx(expected, abs=2e-3)
        assert why(engine, query, r.place_id).parts == r.score_parts
    columns = np.concatenate(list(PLACE_PARTS.values()))
    assert len(set(columns.tolist())) == len(columns) == inputs.shape[1] - 5, (
        "all but what is the user's or the request's alone"
    )
    assert max(abs(v) for r in answer.recommendations for v in (r.score_parts or {}).values()) > 0.01


def test_people_are_traced_too(engine: Engine):
    engine = replace(engine, friendships=True)
    query = PeopleQuery(4, target_place_id=7, top_k=5)

    def person(user_id: int, query: PeopleQuery = query) -> Explanation:
        return asyncio.run(explain_person(engine, query, user_id, NOW))

    listed = asyncio.run(recommend_people(engine, replace(query, top_k=100), NOW)).recommendations
    assert len(listed) == 19
    for rank, r in enumerate(listed, start=1):
        e = person(r.user_id)
        assert (e.rank, e.candidates) == (rank, 19)
        assert e.outcome == ("recommended" if rank <= 5 else "ranked_below")
        assert e.score == pytest.approx(r.combined_score, abs=1e-6)
        assert set(e.parts) == {"vector", "context", *PEOPLE_PARTS}
    community, node = engine.community, engine.homes.node(4)
    said, members = community.sources.ask(np.array([node]), 1), community.sources.members(1)
    for r in listed:
        standings = {s.source: s for s in person(r.user_id).retrieval}
        assert list(standings) == list(PEOPLE_SOURCES)
        at = int(np.flatnonzero(engine.homes.ids(members) == np.array(r.user_id))[0])
        for name, values in said.named.items():
            if name in standings:
                others = np.delete(values[0], [int(said.itself[0]), at])
                rank = 1 + int((others > values[0][at]).sum()) if values[0][at] > 0 else None
                assert standings[name].rank == rank
    near = sorted(person(r.user_id).retrieval[-1].rank or 0 for r in listed)
    assert near == list(range(1, 20))
    assert [b.rule for b in person(5).broken] == ["city_id"]
    first, second = listed[0].user_id, listed[1].user_id
    engine.features.ties.add((4, second))
    strangers = replace(query, exclude_friends=True)
    assert [b.rule for b in person(second, strangers).broken] == ["exclude_friends"]
    engine.safety.block(first, [4], NOW)
    e = person(first)
    assert (e.outcome, [b.rule for b in e.broken], e.rank) == ("dropped", ["block"], None)
    assert e.words("City 1", 5)[0] == "Kept out: one of the two has blocked the other."
    with pytest.raises(InvalidField, match="person_id: must be somebody else"):
        person(4)
    with pytest.raises(UnknownUser):
        person(N_USERS - 1)
    with pytest.raises(UnknownPlace):
        why(engine, PlaceQuery(4), N_PLACES)


def test_words_say_the_numbers(engine: Engine):
    best = asyncio.run(recommend_places(engine, PlaceQuery(4), NOW)).recommendations[0]
    e = why(engine, PlaceQuery(4), best.place_id)
    words = e.words("City 1", 10)
    assert words[0] == f"Number 1 of 20 candidates, with a score of {best.score:.3f}: in the first 10."
    ranks = [f"Source {s.source}: number {s.rank} of {s.of} in City 1." for s in e.retrieval if s.rank is not None]
    assert words[1 : 1 + len(ranks)] == ranks
    moved = words[1 + len(ranks) :]
    assert len(moved) == sum(abs(v) >= 0.1 for v in e.parts.values())
    absent = next(e for i in HERE if (e := why(engine, PlaceQuery(4), i)).outcome == "not_retrieved")
    assert absent.words("City 1", 10)[0] == "No candidate: the sources named 20 others before it."
