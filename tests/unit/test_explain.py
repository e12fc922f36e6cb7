"""Reasons are true in the data, for any two of them."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.constants import COARSE_CATEGORIES, FINE_TAGS, VIBE_TAGS
from recsys.recommend.engine import Gazetteer
from recsys.recommend.explain import MOST, why_person, why_place
from tests.parts import place_row, user_row

NAMES = Gazetteer({0: "A", 1: "B", 2: "C"}, {(c, a): f"Quarter {c}-{a}" for c in range(3) for a in range(4)})
seeds = st.integers(0, 2**32 - 1)


def said(sentence: str, before: str, after: str = ".") -> list[str]:
    return sentence.removeprefix(before).removesuffix(after).split(" and ")


@given(seeds, st.integers(0, 5), st.integers(0, 5))
def test_every_reason_for_a_place_holds_in_the_data(seed: int, user_id: int, place_id: int):
    rng = np.random.default_rng(seed)
    user, place = user_row(rng, user_id), place_row(rng, place_id)
    reasons = why_place(user, place, NAMES)
    assert 1 <= len(reasons) <= MOST
    for reason in reasons:
        if reason.startswith("Matches your interest in "):
            for tag in said(reason, "Matches your interest in "):
                i = FINE_TAGS.index(tag.replace(" ", "_"))
                assert user.fine_pref[i] * place.fine_tag_vector[i] > 0.01
        elif reason.startswith("You enjoy "):
            i = COARSE_CATEGORIES.index(reason.removeprefix("You enjoy ").removesuffix(" spots."))
            assert user.cat_pref[i] > 0.15
            assert place.category_one_hot[i] > 0
        elif reason.startswith("You often go out in "):
            assert user.home_city_id == place.city_id
            assert place.neighborhood_id in user.areas
            assert f"Quarter {place.city_id}-{place.neighborhood_id}" in reason
        else:
            assert reasons == [reason], "the fallback stands alone"


@given(seeds, st.integers(0, 5), st.integers(6, 11))
def test_every_reason_for_a_person_holds_in_the_data(seed: int, user_id: int, peer_id: int):
    rng = np.random.default_rng(seed)
    user, peer = user_row(rng, user_id), user_row(rng, peer_id)
    reasons = why_person(user, peer, NAMES)
    assert 1 <= len(reasons) <= MOST
    for reason in reasons:
        if reason.startswith("You share a vibe: "):
            for vibe in said(reason, "You share a vibe: "):
                i = VIBE_TAGS.index(vibe.replace(" ", "_"))
                assert user.vibe_pref[i] * peer.vibe_pref[i] > 0.01
        elif reason.startswith("You both like "):
            for tag in said(reason, "You both like "):
                i = FINE_TAGS.index(tag.replace(" ", "_"))
                assert user.fine_pref[i] * peer.fine_pref[i] > 0.01
        elif reason.startswith("You both often go out in "):
            assert user.home_city_id == peer.home_city_id
            (name,) = said(reason, "You both often go out in ")
            city, area = (int(x) for x in name.removeprefix("Quarter ").split("-"))
            assert city == user.home_city_id
            assert area in user.areas
            assert area in peer.areas
        else:
            assert reasons == [reason]


def test_the_same_neighborhood_number_in_another_city_is_no_reason():
    rng = np.random.default_rng(0)
    user = replace(user_row(rng, 0), areas={1: 1.0})
    here = replace(place_row(rng, 3), city_id=0, neighborhood_id=1)
    assert any("Quarter 0-1" in r for r in why_place(user, here, NAMES))
    assert not any("often go out" in r for r in why_place(user, replace(here, city_id=1), NAMES))
    peer = replace(user_row(rng, 1), areas={1: 1.0})
    assert not any("often go out" in r for r in why_person(user, peer, NAMES))


def test_strongest_overlaps_come_first_in_words():
    rng = np.random.default_rng(0)
    taste = np.zeros(100, np.float32)
    taste[[3, 13, 14]] = [0.5, 0.3, 0.2]
    user, place = replace(user_row(rng, 0), fine_pref=taste), replace(place_row(rng, 3), fine_tag_vector=taste)
    assert why_place(user, place, NAMES)[0] == "Matches your interest in live music and theater."
