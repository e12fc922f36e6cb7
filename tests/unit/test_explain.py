"""Reasons are true in the data, and said whenever they are: exactly what a plain loop over the seed's rules says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.constants import COARSE_CATEGORIES, FINE_TAGS, VIBE_TAGS
from recsys.online import PlaceRow, UserRow
from recsys.recommend.engine import Gazetteer
from recsys.recommend.explain import why_person, why_place
from recsys.taxonomy import Taxonomy
from tests.parts import place_row, user_row

NAMES = Gazetteer({0: "A", 1: "B", 2: "C"}, {(c, a): f"Quarter {c}-{a}" for c in range(3) for a in range(4)})
seeds = st.integers(0, 2**32 - 1)
weights = st.dictionaries(st.integers(0, 4), st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.5, 1.0]), max_size=4)


def common(a: np.ndarray, b: np.ndarray, names: Sequence[str]) -> str:
    """The two strongest overlaps above 0.01, in words, one pair of numbers at a time."""
    products = sorted(((-float(np.float32(x) * np.float32(y)), i) for i, (x, y) in enumerate(zip(a, b, strict=True))))
    return " and ".join(names[i].replace("_", " ") for p, i in products[:2] if -p > 0.01)


def expected_place(user: UserRow, place: PlaceRow) -> list[str]:
    reasons = []
    if tags := common(user.fine_pref, place.fine_tag_vector, FINE_TAGS):
        reasons.append(f"Matches your interest in {tags}.")
    (category,) = (i for i, flag in enumerate(place.category_one_hot) if flag)
    if user.cat_pref[category] > 0.15:
        reasons.append(f"You enjoy {COARSE_CATEGORIES[category]} spots.")
    name = NAMES.neighborhoods.get((place.city_id, place.neighborhood_id))
    if place.city_id == user.home_city_id and name and user.areas.get(place.neighborhood_id, 0) > 0.15:
        reasons.append(f"You often go out in {name}, and this place is there.")
    return reasons or ["Recommended from your activity and that of people like you."]


def expected_person(user: UserRow, peer: UserRow) -> list[str]:
    reasons = []
    if vibes := common(user.vibe_pref, peer.vibe_pref, VIBE_TAGS):
        reasons.append(f"You share a vibe: {vibes}.")
    if tags := common(user.fine_pref, peer.fine_pref, FINE_TAGS):
        reasons.append(f"You both like {tags}.")
    best = None
    for area in range(4):  # the smallest number wins a draw; area 4 has no name
        mine, theirs = user.areas.get(area, 0), peer.areas.get(area, 0)
        if mine > 0.15 and theirs > 0.15 and (best is None or mine * theirs > best[0]):
            best = (mine * theirs, area)
    if best and user.home_city_id == peer.home_city_id:
        reasons.append(f"You both often go out in Quarter {user.home_city_id}-{best[1]}.")
    return reasons or ["You have similar activity patterns."]


@given(seeds, st.integers(0, 5), st.integers(0, 5), weights)
def test_reasons_for_a_place_are_those_of_a_plain_loop(seed: int, user_id: int, place_id: int, areas: dict):
    rng = np.random.default_rng(seed)
    user, place = replace(user_row(rng, user_id), areas=areas), place_row(rng, place_id)
    assert why_place(user, place, NAMES) == expected_place(user, place)


@given(seeds, st.integers(0, 5), st.integers(6, 11), weights, weights)
def test_reasons_for_a_person_are_those_of_a_plain_loop(
    seed: int, user_id: int, peer_id: int, mine: dict, theirs: dict
):
    rng = np.random.default_rng(seed)
    user, peer = replace(user_row(rng, user_id), areas=mine), replace(user_row(rng, peer_id), areas=theirs)
    assert why_person(user, peer, NAMES) == expected_person(user, peer)


def test_the_same_neighborhood_number_in_another_city_is_no_reason():
    rng = np.random.default_rng(0)
    user = replace(user_row(rng, 0), areas={1: 1.0})
    here = replace(place_row(rng, 3), city_id=0, neighborhood_id=1)
    assert "You often go out in Quarter 0-1, and this place is there." in why_place(user, here, NAMES)
    assert not any("often go out" in r for r in why_place(user, replace(here, city_id=1), NAMES))
    near, far = (replace(user_row(rng, i), areas={1: 1.0}) for i in (3, 1))
    assert "You both often go out in Quarter 0-1." in why_person(user, near, NAMES)
    assert not any("often go out" in r for r in why_person(user, far, NAMES))


@pytest.mark.parametrize(("share", "said"), [(0.0, False), (0.05, False), (0.15, False), (0.16, True)])
def test_often_needs_more_than_a_rare_visit(share: float, said: bool):
    rng = np.random.default_rng(0)
    user = replace(user_row(rng, 0), areas={1: share, 2: 1 - share})
    place = replace(place_row(rng, 3), city_id=0, neighborhood_id=1)
    assert any("often go out" in r for r in why_place(user, place, NAMES)) == said


def test_strongest_overlaps_come_first_in_words():
    rng = np.random.default_rng(0)
    taste = np.zeros(100, np.float32)
    taste[[3, 13, 14]] = [0.5, 0.3, 0.2]
    user, place = replace(user_row(rng, 0), fine_pref=taste), replace(place_row(rng, 3), fine_tag_vector=taste)
    assert why_place(user, place, NAMES)[0] == "Matches your interest in live music and theater."


def test_nothing_in_common_is_said_honestly():
    rng = np.random.default_rng(0)
    nothing = np.zeros(100, np.float32)
    user = replace(user_row(rng, 0), fine_pref=nothing, vibe_pref=np.zeros(30, np.float32), areas={})
    peer = user_row(rng, 3)
    assert why_person(user, peer, NAMES) == ["You have similar activity patterns."]
    place = replace(place_row(rng, 3), category_one_hot=np.eye(6, dtype=np.float32)[int(np.argmin(user.cat_pref))])
    assert why_place(user, place, NAMES) == ["Recommended from your activity and that of people like you."]


def test_what_everyone_shares_and_what_says_nothing_is_no_reason():
    taxonomy = Taxonomy(("other", "bar"), ("pub", "unknown"), (1, 0), ("any",))
    names = Gazetteer({0: "A"}, {(0, 0): "A"}, taxonomy)
    vector = {"cat_pref": np.array([0.9, 0.1]), "fine_pref": np.array([0.05, 0.95]), "vibe_pref": np.array([1.0])}
    rng = np.random.default_rng(0)
    user = replace(user_row(rng, 0), **vector, home_city_id=0, areas={0: 1.0})
    kind = {"category_one_hot": np.array([1.0, 0.0]), "fine_tag_vector": np.array([0.0, 1.0])}
    place = replace(place_row(rng, 0), **kind, city_id=0, neighborhood_id=0)
    assert why_place(user, place, names) == ["Recommended from your activity and that of people like you."]
    assert why_person(user, user, names) == ["You have similar activity patterns."]
    known = replace(place, category_one_hot=np.array([0.0, 1.0]), fine_tag_vector=np.array([1.0, 0.0]))
    bar = replace(user, cat_pref=np.array([0.1, 0.9]))
    assert why_place(bar, known, names) == ["Matches your interest in pub.", "You enjoy bar spots."]
