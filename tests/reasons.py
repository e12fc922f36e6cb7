"""Every sentence of an answer, checked against the tables: by SQL and by hand, with nothing of what wrote it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from recsys.lake import Lake

_OVERLAP, _SHARE = 0.01, 0.15  # docs/api.md: from which an overlap, and a share, is worth a word
NO_REASON = ("Recommended from your activity and that of people like you.", "You have similar activity patterns.")


class Tables:
    """What the sentences must agree with, as of the moment when the version was made."""

    def __init__(self, lake: Lake, until: datetime) -> None:
        self._lake, self._until = lake, until
        self.users = {row["user_id"]: row for row in lake.query("FROM users").to_pylist()}
        self.places = {row["place_id"]: row for row in lake.query("FROM places").to_pylist()}
        self.taxonomy = lake.taxonomy()
        areas = {(p["city_id"], p["neighborhood_id"]) for p in self.places.values()}
        self._areas = {(p["city_id"], p["neighborhood_name"]): p["neighborhood_id"] for p in self.places.values()}
        self._divided = {c for c, _ in areas if sum(c == other for other, _ in areas) > 1}
        ties = lake.query("SELECT user_u, user_v FROM user_user_edges WHERE as_of <= $1", [until]).to_pylist()
        self.ties: dict[int, set[int]] = {}
        for tie in ties:
            self.ties.setdefault(tie["user_u"], set()).add(tie["user_v"])
            self.ties.setdefault(tie["user_v"], set()).add(tie["user_u"])

    def been(self, users: set[int], place_id: int) -> int:
        """How many of some users had an event at a place."""
        found = self._lake.query(
            """SELECT count(DISTINCT user_id) AS n FROM interactions
               WHERE place_id = $1 AND "timestamp" < $2 AND list_contains($3, user_id)""",
            [place_id, self._until, sorted(users)],
        )
        return int(found["n"][0].as_py())

    def true_of_place(self, said: str, user_id: int, place_id: int, *, friendships: bool) -> bool:
        """Whether a sentence about a place is true for a user."""
        user, place = self.users[user_id], self.places[place_id]
        if said in NO_REASON:
            return True
        if found := re.fullmatch(r"Matches your interest in (.+)\.", said):
            tags = np.array(user["fine_pref"]) * np.array(place["fine_tag_vector"])
            return _all_above(found[1], self.taxonomy.tags, tags)
        if found := re.fullmatch(r"You enjoy (.+) spots\.", said):
            at = self.taxonomy.categories.index(found[1])
            return user["cat_pref"][at] > _SHARE and place["category_one_hot"][at] > 0
        if found := re.fullmatch(r"You often go out in (.+), and this place is there\.", said):
            here = user["home_city_id"] == place["city_id"] and place["city_id"] in self._divided
            return (
                here and place["neighborhood_name"] == found[1] and self._goes(user)[place["neighborhood_id"]] > _SHARE
            )
        if found := re.fullmatch(
            r"(\d+) of (your friends|those close to you) (?:has|have) been there or looked at it\.", said
        ):
            n, who = int(found[1]), "your friends" if friendships else "those close to you"
            return found[2] == who and n >= 3 and n == self.been(self.ties.get(user_id, set()), place_id)
        return False

    def true_of_person(self, said: str, user_id: int, peer_id: int) -> bool:
        """Whether a sentence about two people is true."""
        user, peer = self.users[user_id], self.users[peer_id]
        if said in NO_REASON:
            return True
        if found := re.fullmatch(r"You share a vibe: (.+)\.", said):
            vibes = np.array(user["vibe_pref"]) * np.array(peer["vibe_pref"])
            return _all_above(found[1], self.taxonomy.vibes, vibes)
        if found := re.fullmatch(r"You both like (.+)\.", said):
            tags = np.array(user["fine_pref"]) * np.array(peer["fine_pref"])
            return _all_above(found[1], self.taxonomy.tags, tags)
        if found := re.fullmatch(r"You both often go out in (.+)\.", said):
            area = self._areas[user["home_city_id"], found[1]]
            here = user["home_city_id"] == peer["home_city_id"] and user["home_city_id"] in self._divided
            return here and min(self._goes(user)[area], self._goes(peer)[area]) > _SHARE
        return False

    def _goes(self, user: Mapping[str, Any]) -> Mapping[int, float]:
        return defaultdict(float, user["area_freqs"])


def _all_above(said: str, names: Sequence[str], weights: np.ndarray) -> bool:
    """Whether one name, or two joined by "and" (a name may hold one itself), have weights worth a word."""
    at = {name.replace("_", " "): i for i, name in enumerate(names)}
    cuts = [(said[: m.start()], said[m.end() :]) for m in re.finditer(" and ", said)]
    named = [(said,)] if said in at else [cut for cut in cuts if set(cut) <= at.keys()]
    return len(named) == 1 and all(weights[at[name]] > _OVERLAP for name in named[0])
