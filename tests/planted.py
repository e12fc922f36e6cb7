"""A small world with planted tastes, as snapshots: what a user does depends on tags, neighbourhood and popularity."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import torch

from recsys.aggregates import ONLINE_PAIR, ONLINE_USER, PLACE_ACTIVITY
from recsys.constants import POSITIVE_RATING, SLOT_BY_DAY_AND_TIME, TAG_CATEGORY
from recsys.graph import (
    Companions,
    Edges,
    FriendLabels,
    NewTies,
    Nodes,
    Past,
    PlaceLabels,
    Snapshot,
    Visits,
    build_graph,
)
from recsys.taxonomy import CITY

START = datetime(2024, 1, 1, tzinfo=UTC)


def _one_hot(index: np.ndarray, width: int) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[index]


@dataclass
class Planted:
    """Users, places and weekly visits; `snapshot` cuts it."""

    n_users: int = 240
    n_places: int = 240
    n_cities: int = 2
    n_neighborhoods: int = 5
    weeks: int = 6
    visits: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.Generator(np.random.Philox(self.seed))
        n, m = self.n_users, self.n_places
        self.user_city, self.place_city = rng.integers(0, self.n_cities, n), rng.integers(0, self.n_cities, m)
        self.user_home = rng.integers(0, self.n_neighborhoods, n)
        self.place_home = rng.integers(0, self.n_neighborhoods, m)
        categories = np.array(TAG_CATEGORY)
        self.place_category = rng.integers(0, 6, m)
        tags = np.stack([rng.choice(np.flatnonzero(categories == c), 3, replace=False) for c in self.place_category])
        self.place_tags = np.zeros((m, 100), dtype=np.float32)
        self.place_tags[np.arange(m)[:, None], tags] = 1 / 3
        self.cat_pref = rng.dirichlet(np.full(6, 0.3), n).astype(np.float32)
        fine = self.cat_pref[:, categories] * rng.gamma(0.5, size=(n, 100))
        self.fine_pref = (fine / fine.sum(axis=1, keepdims=True)).astype(np.float32)
        self.vibe = rng.dirichlet(np.ones(30), n).astype(np.float32)
        self.popular = rng.normal(0, 0.7, m)
        self.price, self.slot = rng.integers(0, 5, m), rng.integers(0, 6, m)
        taste = 4.0 * self.cat_pref @ _one_hot(self.place_category, 6).T + 12.0 * self.fine_pref @ self.place_tags.T
        near = 1.0 * (self.user_home[:, None] == self.place_home[None])
        utility = taste + near + self.popular[None]
        utility[self.user_city[:, None] != self.place_city[None]] = -np.inf
        rows = []
        for week in range(self.weeks):
            for first in range(0, n, 512):
                u = utility[first : first + 512]
                drawn = np.argpartition(-(u + rng.gumbel(size=u.shape)), self.visits, axis=1)[:, : self.visits]
                user = np.repeat(np.arange(first, first + len(u)), self.visits)
                rows.append(np.stack([user, drawn.ravel(), np.full(len(user), week)]))
        self.user, self.place, self.week = np.concatenate(rows, axis=1)
        there = np.isfinite(utility[self.user, self.place])
        self.user, self.place, self.week = self.user[there], self.place[there], self.week[there]
        liking = taste[self.user, self.place] + rng.normal(0, 1, len(self.user))
        self.rating = np.clip(2.0 + liking, 1, 5).astype(np.float32)
        self.day = self.week * 7 + rng.integers(0, 7, len(self.user))
        self._friends(rng)

    def _friends(self, rng: np.random.Generator) -> None:
        n = self.n_users
        u, v = rng.integers(0, n, (2, 40 * n))
        keep = (u < v) & (self.user_city[u] == self.user_city[v])
        key = np.unique(u[keep] * n + v[keep])
        u, v = key // n, key % n
        unit = self.cat_pref / np.linalg.norm(self.cat_pref, axis=1, keepdims=True)
        overlap = (unit[u] * unit[v]).sum(axis=1)
        clear = (overlap >= 0.6) | (overlap < 0.3)
        self.label_u, self.label_v = u[clear], v[clear]
        self.compat = (overlap[clear] >= 0.6).astype(np.float32)
        self.attend = self.compat * (rng.random(len(self.compat)) < overlap[clear])
        self.label_week = rng.integers(0, self.weeks, len(self.compat))
        tied = rng.random(len(u)) < 0.15
        self.tie_u, self.tie_v, self.tie_overlap = u[tied], v[tied], overlap[tied].astype(np.float32)

    def snapshot(self, week: int, weeks: int = 1) -> Snapshot:
        """Graph as of the start of a week, labels in the weeks after."""
        n, m = self.n_users, self.n_places
        past, future = self.week < week, (self.week >= week) & (self.week < week + weeks)
        key, inverse, count = np.unique(self.user[past] * m + self.place[past], return_inverse=True, return_counts=True)
        attr = np.zeros((len(key), 12), dtype=np.float32)
        attr[:, 0] = np.bincount(inverse, self.rating[past], minlength=len(key)) / np.maximum(count, 1) / 5
        attr[:, 10] = 1.0
        last = np.zeros(len(key))
        np.maximum.at(last, inverse, self.day[past])
        age = week * 7 - last
        place_count = np.bincount(self.place[past], minlength=m)
        positives = np.bincount(self.place[past & (self.rating >= POSITIVE_RATING)], minlength=m)
        views = np.log1p(place_count / 28) / 5
        stats = np.zeros((m, len(PLACE_ACTIVITY) + 1), dtype=np.float32)
        stats[:, 0], stats[:, 6], stats[:, -1] = views, np.log1p(positives) / 7, 1.0
        areas = np.full((n, 5), -1)
        areas[:, 0] = self.user_home
        weights = np.zeros((n, 5), dtype=np.float32)
        weights[:, 0] = 1.0
        users = Nodes(
            np.arange(n),
            {
                "home_city_id": self.user_city, "home_neighborhood_id": self.user_home, "cat_pref": self.cat_pref,
                "fine_pref": self.fine_pref, "vibe_pref": self.vibe, "area_freqs": weights,
                "behavior": np.full((n, 5), 0.3, dtype=np.float32),
            },
            areas,
        )  # fmt: skip
        places = Nodes(
            np.arange(m) + 1000,
            {
                "city_id": self.place_city, "neighborhood_id": self.place_home,
                "category_one_hot": _one_hot(self.place_category, 6), "fine_tag_vector": self.place_tags,
                "price_band": self.price, "typical_time_slot": self.slot, "popularity": stats[:, :4],
            },
        )  # fmt: skip
        tie_attr = np.stack(
            [self.tie_overlap, np.zeros_like(self.tie_overlap), np.zeros_like(self.tie_overlap)], axis=1
        )
        data = build_graph(
            users,
            places,
            Edges(key // m, key % m, attr, {"count": count, "age_days": age}),
            Edges(self.tie_u, self.tie_v, tie_attr, {}),
            CITY.widths,
        )
        known = np.ones((len(key), 1), dtype=np.float32)
        online = np.concatenate([attr, np.log1p(count)[:, None] / 4, np.exp(-age / 7)[:, None], known], axis=1)
        assert online.shape[1] == len(ONLINE_PAIR)
        slot = np.array(SLOT_BY_DAY_AND_TIME)[0, self.slot[self.place[future]] % 4]
        asked = (self.label_week >= week) & (self.label_week < week + weeks)
        together = _together(self.user[future], self.place[future], self.day[future])
        return Snapshot(
            as_of=START + timedelta(weeks=week),
            until=START + timedelta(weeks=week + weeks),
            widths=CITY.widths,
            data=data,
            user_online=torch.full((n, len(ONLINE_USER)), 0.5),
            place_online=torch.from_numpy(stats),
            pair_keys=torch.from_numpy(key),
            pair_online=torch.from_numpy(online.astype(np.float32)),
            tie_keys=torch.from_numpy(self.tie_u * n + self.tie_v),
            tie_online=torch.from_numpy(np.concatenate([tie_attr, np.ones((len(tie_attr), 1))], axis=1)).float(),
            past=Past(torch.from_numpy(key), torch.from_numpy(count).float(), torch.from_numpy(age).float()),
            visits=Visits(*(torch.from_numpy(a[past]) for a in (self.user, self.place, self.day))),
            labels=PlaceLabels(
                torch.from_numpy(self.user[future]), torch.from_numpy(self.place[future]),
                torch.from_numpy(self.rating[future]), torch.from_numpy(slot),
            ),
            friends=FriendLabels(
                torch.from_numpy(self.label_u[asked]), torch.from_numpy(self.label_v[asked]),
                torch.from_numpy(self.compat[asked]), torch.from_numpy(self.attend[asked]).float(),
                torch.full((int(asked.sum()),), 2),
            ),
            new_ties=NewTies(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
            companions=Companions(*(torch.from_numpy(a) for a in together), torch.zeros(len(together[0])).long()),
        )  # fmt: skip


def _together(user: np.ndarray, place: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.lexsort((user, day, place))
    user, place, day = user[order], place[order], day[order]
    next_to = (place[1:] == place[:-1]) & (day[1:] == day[:-1]) & (user[1:] > user[:-1])
    return user[:-1][next_to], user[1:][next_to], place[:-1][next_to]
