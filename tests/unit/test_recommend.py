"""One request, start to finish, against a plain way to the same answer: real index, real heads, features in memory."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.artifacts import save_artifact
from recsys.constants import SLOT_NOT_SAID
from recsys.errors import ArtifactError, NotReady, UnknownCity, UnknownPlace, UnknownUser
from recsys.recommend.catalogue import Catalogue, Homes
from recsys.recommend.community import Community
from recsys.recommend.engine import Engine
from recsys.recommend.fallback import Guards
from recsys.recommend.people import PeopleAnswer, PeopleQuery, recommend_people
from recsys.recommend.places import PlaceAnswer, recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.sources import NEAR, PEOPLE_SOURCES, PLACE_SOURCES, SOURCES
from tests.parts import N_CITIES, N_PLACES, N_USERS, NOW, MemoryFeatures, make_engine, places_table, unit

LAST = N_USERS - 1  # in the feature store, but not in the index


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = make_engine(tmp_path_factory.mktemp("index"))
    yield made
    asyncio.run(made.index.close())


@pytest.fixture
def engine(shared: Engine) -> Engine:
    """With features of its own, so that a test may break them."""
    held = shared.features
    assert isinstance(held, MemoryFeatures)
    features = MemoryFeatures(dict(held.user_rows), dict(held.place_rows))
    return replace(shared, features=features, guards=Guards())


def places(engine: Engine, query: PlaceQuery) -> PlaceAnswer:
    return asyncio.run(recommend_places(engine, query, NOW))


def people(engine: Engine, query: PeopleQuery) -> PeopleAnswer:
    return asyncio.run(recommend_people(engine, query, NOW))


def vectors(engine: Engine, collection: str, ids: list[int], using: str = "embedding") -> dict[int, np.ndarray]:
    return asyncio.run(engine.index.vectors(collection, ids, using=using))  # type: ignore[arg-type]


def test_places_are_the_best_scored_of_the_candidates_of_the_city(engine: Engine):
    """Brute force: all dot products in the city, the sources asked directly, each scored by itself, sorted."""
    user_id, city = 4, 2
    sources = engine.catalogue.sources
    members = sources.members(city).tolist()
    said = sources.ask(np.array([user_id]), city)
    user = vectors(engine, "users", [user_id])[user_id]
    of_city = vectors(engine, "places", [i for i in range(N_PLACES) if i % N_CITIES == city])
    near = sorted(range(len(members)), key=lambda at: -float(user @ of_city[members[at]]))[:NEAR]
    candidates, marks = (a[0] for a in sources.candidates(said, engine.candidates, np.array([near])))
    named = {members[at]: m for at, m in zip(candidates, marks, strict=True)}
    assert len(named) == engine.candidates < len(members)

    def inputs(i: int) -> np.ndarray:
        online = engine.features.rank_places(user_id, np.array([i]), NOW).features
        at = np.array([members.index(i)])
        fits = engine.catalogue.fits(engine.features.user_rows[user_id], city, at, 3, (0, 2))
        return np.concatenate([online, fits, sources.signals(said, at[None])[0]], axis=1)

    score = {
        i: engine.ranker.score_places(
            user, of_city[i][None], inputs(i), city_id=city, slot=3, categories=(0, 2)
        ).item()
        for i in named
    }  # fmt: skip
    expected = sorted(score, key=lambda i: (-score[i], i))[:10]
    found = places(engine, PlaceQuery(user_id, city, 3, (0, 2), 10)).recommendations
    assert [r.place_id for r in found] == expected
    assert [r.score for r in found] == pytest.approx([score[i] for i in expected], abs=1e-5)
    bits = [sum(1 << PLACE_SOURCES.index(name) for name in r.sources) for r in found]
    hidden = 1 << PLACE_SOURCES.index("friends")  # everybody knows two: fewer than may be told of
    assert any(marks & hidden for marks in named.values())
    assert bits == [int(named[i]) & ~hidden for i in expected]


def test_where_one_was_is_named_by_ones_own_history_and_left_out_on_request(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    own = {i for i in engine.catalogue.sources.memory.counts[[4]].indices.tolist() if i % N_CITIES == 1}
    assert own
    found = places(engine, PlaceQuery(4, top_k=100)).recommendations
    assert {r.place_id for r in found if "own" in r.sources} == own
    fresh = {r.place_id for r in places(engine, PlaceQuery(4, top_k=100, exclude_visited=True)).recommendations}
    assert fresh == {r.place_id for r in found} - own
    since = min(fresh)  # an event that came after the version was made
    engine.features.pairs.add((4, since))
    again = {r.place_id for r in places(engine, PlaceQuery(4, top_k=100, exclude_visited=True)).recommendations}
    assert again == fresh - {since}
    engine.features.pairs.update((4, i) for i in range(N_PLACES))
    assert places(engine, PlaceQuery(4, exclude_visited=True)).recommendations == []


@pytest.mark.parametrize("k", [1, 2, 3])
def test_what_friends_did_is_told_only_where_enough_did(engine: Engine, k: int):
    """Recounted from who had been where: in reasons and in sources, with and without a block between friends."""
    memory = engine.catalogue.sources.memory
    been = [set(memory.counts[[u]].indices.tolist()) for u in range(LAST)]
    circle = [memory.friends[[u]].indices.tolist() for u in range(LAST)]
    both = [
        any(i % N_CITIES == u % N_CITIES for i in set.intersection(*(been[f] for f in circle[u]))) for u in range(LAST)
    ]
    user_id = both.index(True)  # whose friends were both at one place
    friends = circle[user_id]
    wishless = {i: replace(r, fine_tag_vector=r.fine_tag_vector * 0) for i, r in engine.features.place_rows.items()}
    engine = replace(
        engine, k_anonymity=k, friendships=k == 1, features=MemoryFeatures(engine.features.user_rows, wishless)
    )
    seen = 0
    for blocked in (None, friends[0]):
        if blocked is not None:
            engine.safety.block(blocked, [user_id], NOW)
        count = {i: sum(i in been[f] for f in friends if f != blocked) for i in range(N_PLACES)}
        for r in places(engine, PlaceQuery(user_id, top_k=100)).recommendations:
            n, told = count[r.place_id], [e for e in r.explanations if "been there" in e]
            who, verb = "your friends" if k == 1 else "those close to you", "has" if n == 1 else "have"
            assert told == ([f"{n} of {who} {verb} been there or looked at it."] if n >= k else [])
            assert "friends" not in r.sources or n >= k
            seen += len(told)
    engine.safety.block(friends[0], [user_id], NOW, on=False)
    assert (seen > 0) == (k <= 2)


def test_ids_and_node_numbers_are_not_the_same_thing(engine: Engine):
    """Ids in another order than the nodes, tables in a third: the same places are found under their own ids."""
    plain, n = engine.catalogue, N_PLACES
    ids = 1_000 - np.arange(n)
    vectors = unit(np.random.default_rng(9), n)
    assert isinstance(engine.features, MemoryFeatures)
    table = places_table(engine.features.place_rows, vectors).set_column(0, "place_id", pa.array(ids))
    mixed = Catalogue(plain.sources, table.take(np.random.default_rng(1).permutation(n)), LAST)
    near = np.array([1_000 - 4, 1_000 - 1])  # of city 1
    every = np.zeros(len(plain.sources.members(1)), dtype=bool)
    found = mixed.find(7, 1, near, 30, without=every, fresh=False)
    expected = plain.find(7, 1, np.array([4, 1]), 30, without=every, fresh=False)
    np.testing.assert_array_equal(found.ids, 1_000 - expected.ids)
    np.testing.assert_array_equal(found.vectors, vectors[expected.ids])
    np.testing.assert_array_equal(mixed.signals(found), plain.signals(expected))
    with pytest.raises(ArtifactError, match=r"does not know.*got place 5"):
        mixed.find(7, 1, np.array([999, 5]), 30, without=every, fresh=False)
    homes = Homes(pa.table({"user_id": [9, 2, 5], "index": [0, 1, 2], "city_id": [7, 8, 6]}))
    assert [(homes.of(i), homes.node(i)) for i in (2, 5, 9)] == [(8, 1), (6, 2), (7, 0)]
    with pytest.raises(ArtifactError, match="other users or places"):
        Catalogue(plain.sources, table, LAST + 1)


def test_a_version_without_sources_was_made_by_older_code(engine: Engine, tmp_path: Path):
    artifact = save_artifact(tmp_path, "v1", {}, tables={}, tensors={})
    with pytest.raises(ArtifactError, match=r"version v1 was made by older code: run `recsys train`"):
        Catalogue.load(artifact, pa.table({}), 0)
    of_places = engine.catalogue.sources.tensors()
    artifact = save_artifact(tmp_path, "v2", {}, tables={}, tensors={SOURCES: of_places})
    with pytest.raises(ArtifactError, match=r"version v2 was made by older code: run `recsys train`"):
        Community.load(artifact, pa.table({}))


def test_people_are_the_best_combined_of_the_candidates_of_the_city(engine: Engine):
    """Brute force: the sources asked directly, everybody scored by themselves, sorted."""
    user_id, target, tags = 5, 17, (7, 8)
    city = user_id % N_CITIES
    ids = [i for i in range(LAST) if i % N_CITIES == city]
    of_city = vectors(engine, "users", ids, using="people")
    user = of_city.pop(user_id)
    place = vectors(engine, "places", [target])[target]
    sources = engine.community.sources
    members = sources.members(city).tolist()
    said = sources.ask(np.array([user_id]), city)
    near = [members.index(i) for i in sorted(of_city, key=lambda i: -float(user @ of_city[i]))[:NEAR]]
    position, marks = (a[0] for a in sources.candidates(said, engine.candidates, np.array([near])))
    named = {members[at]: mark for at, mark in zip(position, marks, strict=True)}
    assert named.keys() == of_city.keys()  # a small city: everybody
    combined = {}
    for i, vector in of_city.items():
        online = engine.features.rank_people(user_id, np.array([i]), NOW).features
        signals = sources.signals(said, np.array([[members.index(i)]]))[0]
        inputs = np.concatenate([online, signals], axis=1)
        compat, attend = engine.ranker.score_people(
            user, vector[None], inputs, city_id=city, slot=SLOT_NOT_SAID, place=place, tags=tags
        )
        combined[i] = 0.7 * compat.item() + 0.3 * attend.item()
    expected = sorted(combined, key=lambda i: (-combined[i], i))
    found = people(engine, PeopleQuery(user_id, target_place_id=target, activity_tags=tags, top_k=100)).recommendations
    assert [r.user_id for r in found] == expected
    assert [r.combined_score for r in found] == pytest.approx([combined[i] for i in expected], abs=1e-5)
    bits = [sum(1 << PEOPLE_SOURCES.index(name) for name in r.sources) for r in found]
    assert bits == [named[i] for i in expected]
    few = people(replace(engine, candidates=4), PeopleQuery(user_id, top_k=3)).recommendations
    assert len(few) == 3
    assert all(r.sources for r in few)


def test_friends_and_those_of_friends_are_candidates_by_the_walk(engine: Engine):
    friends = engine.community.sources.friends
    home = np.arange(LAST) % N_CITIES
    for user_id in (4, 9):
        found = people(engine, PeopleQuery(user_id, city_id=int(home[user_id]), top_k=100)).recommendations
        walks = {r.user_id for r in found if "walk" in r.sources}
        here = home == home[user_id]
        direct = set(np.flatnonzero((friends[[user_id]].toarray()[0] > 0) & here).tolist())
        assert direct <= walks


def test_users_under_other_ids_than_their_nodes_are_found_under_their_own(engine: Engine):
    plain = engine.community
    ids = 1_000 - np.arange(LAST)
    vectors = unit(np.random.default_rng(9), LAST)
    table = pa.table(
        {"user_id": ids, "index": range(LAST), "city_id": np.arange(LAST) % N_CITIES, "people": list(vectors)}
    )
    mixed = Community(plain.sources, table.take(np.random.default_rng(1).permutation(LAST)))
    barred = np.array([4, 10])  # node numbers
    found = mixed.find(7, 1, np.array([1_000 - 4, 1_000 - 1]), 10, without=barred)
    expected = plain.find(7, 1, np.array([4, 1]), 10, without=barred)
    assert len(expected.ids) == 10
    assert not {4, 7, 10} & set(expected.ids.tolist())
    np.testing.assert_array_equal(found.ids, 1_000 - expected.ids)
    np.testing.assert_array_equal(found.vectors, vectors[expected.ids])
    np.testing.assert_array_equal(mixed.signals(found), plain.signals(expected))
    for near, strange in (([999, 5], 5), ([1_000], 1_000)):  # nobody, and somebody of another city
        with pytest.raises(ArtifactError, match=f"does not know.*got user {strange}"):
            mixed.find(7, 1, np.array(near), 10, without=barred)
    with pytest.raises(ArtifactError, match="other users than the table"):
        Community(plain.sources, table.slice(1))


def test_a_request_costs_two_reads_whatever_the_number_of_candidates(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    places(engine, PlaceQuery(4))
    assert engine.features.calls == ["rank_places", "places"]
    engine.features.calls.clear()
    people(engine, PeopleQuery(4))
    assert engine.features.calls == ["rank_people", "profiles"]


def test_what_the_store_does_not_know_is_replaced_by_the_next_best(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    query = PlaceQuery(4, top_k=5)
    longer = [r.place_id for r in places(engine, PlaceQuery(4, top_k=7)).recommendations]
    for missing in (longer[0], longer[3]):
        del engine.features.place_rows[missing]
    assert [r.place_id for r in places(engine, query).recommendations] == [longer[i] for i in (1, 2, 4, 5, 6)]

    longer = [r.user_id for r in people(engine, PeopleQuery(4, top_k=6)).recommendations]
    del engine.features.user_rows[longer[1]]
    answer = people(engine, PeopleQuery(4, top_k=5)).recommendations
    assert [r.user_id for r in answer] == [longer[i] for i in (0, 2, 3, 4, 5)]


def test_what_has_moved_to_another_city_since_is_not_answered(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    first = places(engine, PlaceQuery(4)).recommendations[0].place_id
    engine.features.place_rows[first] = replace(engine.features.place_rows[first], city_id=0)
    assert first not in {r.place_id for r in places(engine, PlaceQuery(4, top_k=100)).recommendations}
    peer = people(engine, PeopleQuery(4)).recommendations[0].user_id
    engine.features.user_rows[peer] = replace(engine.features.user_rows[peer], home_city_id=0)
    assert peer not in {r.user_id for r in people(engine, PeopleQuery(4, top_k=100)).recommendations}


def test_an_online_store_that_was_never_filled_is_not_an_empty_answer(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    engine.features.place_rows.clear()
    with pytest.raises(NotReady, match="recsys materialize"):
        places(engine, PlaceQuery(4))


def test_fewer_than_asked_come_only_where_fewer_exist(engine: Engine):
    everyone = people(engine, PeopleQuery(3, top_k=100)).recommendations
    assert {r.user_id for r in everyone} == {i for i in range(LAST) if i % N_CITIES == 0 and i != 3}
    in_city = [i for i in range(N_PLACES) if i % N_CITIES == 1]
    assert len(in_city) > engine.candidates
    assert {r.place_id for r in places(engine, PlaceQuery(4, top_k=100)).recommendations} == set(in_city)


@pytest.mark.parametrize(
    ("ask", "query", "error"),
    [
        (places, PlaceQuery(10**6), UnknownUser),
        (places, PlaceQuery(LAST), UnknownUser),
        (places, PlaceQuery(1, city_id=N_CITIES), UnknownCity),
        (people, PeopleQuery(10**6), UnknownUser),
        (people, PeopleQuery(LAST), UnknownUser),
        (people, PeopleQuery(1, target_place_id=N_PLACES), UnknownPlace),
    ],
)
def test_ids_from_nowhere(engine: Engine, ask, query, error):
    with pytest.raises(error, match=r"there is no|is not in model version test-1"):
        ask(engine, query)


def test_a_dead_store_is_done_without_and_named(engine: Engine):
    assert isinstance(engine.features, MemoryFeatures)
    engine.features.down = True
    for ask, query in ((places, PlaceQuery(1)), (people, PeopleQuery(1))):
        answer = ask(engine, query)
        assert len(answer.recommendations) == 10
        assert answer.degraded == ("online_features", "online_profiles")
