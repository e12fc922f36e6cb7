"""Where candidate people come from, and what each source says of a user and a peer.

People become friends with friends of friends, and with whom they meet. So the candidates of a user are the union of a
few sources (who is near on a walk among friends, who shares friends, who goes to the same places, who goes where one's
friends go, the nearest vectors), and what each source says is an input of the friend head, which learns what it is
worth.

All of it is a function of who had been where, and who knew whom, as of one moment: fitted once for a snapshot
(training) or a version (serving), then asked for a block of users at a time. Friends of other cities count in a number
of friends, paths among friends stay within the city that is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from recsys.errors import ArtifactError
from recsys.sources.fusion import Fusion
from recsys.sources.rows import Floats, Ints, Row, alike, binary, matrix, moved, packed, row_of, take, times, unpacked

# Of a pair; of the peer; of the user. Cosines, or logarithms of weighted sums and counts.
PEOPLE_SIGNALS: Final = (
    "co_visits", "rare_places", "same_days",
    "adamic_adar", "resource_allocation", "paths_3", "paths_3_even", "walk", "walk_near",
    "friends_places", "places_friends",
    "peer_friends", "peer_visits", "friends_known", "visits",
)  # fmt: skip
PEOPLE_SOURCES: Final = ("walk", "adamic_adar", "co_visits", "friends_places", "vector")

# (probability a step to go back to the user, steps) of a walk and of a near one, which tells who is out of its reach
_WALKS: Final = ((0.15, 12), (0.5, 5))
_BLOCK: Final = 128  # users at once


@dataclass(frozen=True)
class Outings:
    """Who went where on which days, as of a moment; K places on a day, where two or more went.

    Attributes:
        days: CSR (N, M), on how many days.
        there: CSR (N, K), 1 where a user went.
        place: (K,) node number of the place.
    """

    days: csr_array
    there: csr_array
    place: Ints

    @classmethod
    def of(cls, user: Ints, place: Ints, day: Ints, shape: tuple[int, int]) -> "Outings":
        """Build from (V,) visits of N users to M places in any order, repeats among them; `day` is any whole number."""
        first = int(np.min(day, initial=0))
        width = int(np.max(day, initial=0)) - first + 1
        key, at = np.unique(place * width + day - first, return_inverse=True)
        came = binary(matrix(np.ones(len(user)), (user, at), (shape[0], len(key))))
        days = matrix(came.data, (row_of(came), key[came.indices] // width), shape)
        together = np.flatnonzero(np.bincount(came.indices, minlength=len(key)) > 1)
        return cls(days, csr_array(came[:, together]), key[together] // width)


@dataclass(frozen=True)
class _City:
    """One city's people: columns are positions among `members`."""

    members: Ints
    graph: csr_array  # (C, C) friends of the city; symmetric
    step: csr_array  # (C, C) transposed: from the column to the row, over all friends of the column
    seen: csr_array  # (C, M)
    visitors: csr_array  # (M, C)
    came: csr_array  # (K, C)


@dataclass(frozen=True)
class Friendly:
    """What the sources say to B users of all C people of a city; every array of `named` is (B, C) float32.

    Attributes:
        city: its number.
        itself: (B,) position of the user in the city, -1 in another one.
        named: by name of PEOPLE_SIGNALS, those of a pair, as sums, cosines and probabilities.
        user: (B, 2): the signals that are the user's alone.
    """

    city: int
    itself: Ints
    named: Mapping[str, Floats]
    user: Floats


class PeopleSources:
    """The sources of people as of a moment; see the module.

    Args:
        friends: CSR (N, N), symmetric, 1 where two know each other.
        outings: who went where.
        home: (N,) the city of each user.
    """

    def __init__(self, friends: csr_array, outings: Outings, home: Ints) -> None:
        self.friends, self.outings, self.home = friends, outings, home
        self._seen = binary(outings.days)
        visitors = np.bincount(self._seen.indices, minlength=self._seen.shape[1])
        active = max(int((np.diff(self._seen.indptr) > 0).sum()), 1)
        rarity = np.log(active / np.maximum(visitors, 1))
        # cosine of binary visits by rarity: a pair's common places count rarity squared, over both lengths
        self._squared: Floats = (rarity**2).astype(np.float32)
        self._norm = _inverse(np.sqrt(self._seen @ (rarity**2)))
        self._rare: Floats = (1 / np.log(np.maximum(visitors, 2))).astype(np.float32)
        came = np.bincount(outings.there.indices, minlength=outings.there.shape[1])
        self._met: Floats = (self._rare[outings.place] / np.maximum(came - 1, 1)).astype(np.float32)
        self._visits: Floats = np.log1p(np.asarray(outings.days.sum(axis=1)).ravel()).astype(np.float32)
        self._degree: Floats = np.diff(friends.indptr).astype(np.float32)
        self._position: Ints = np.zeros(len(home), dtype=np.int64)  # among the people of their city
        self._cities = [self._city(city) for city in range(int(home.max(initial=-1)) + 1)]

    @classmethod
    def load(cls, tensors: Mapping[str, torch.Tensor]) -> "PeopleSources":
        """From what `tensors` made, beside the friends of the places' sources.

        Raises:
            ArtifactError: a tensor is missing, or they do not fit together.
        """
        try:
            home, place = (tensors[f"people.{name}"].numpy().astype(np.int64) for name in ("home", "place"))
            n_users, n_places = len(home), len(tensors["city"])
            friends = unpacked(tensors, "friends", (n_users, n_users))
            days = unpacked(tensors, "people.days", (n_users, n_places))
            there = unpacked(tensors, "people.there", (n_users, len(place)))
            if len(place) and not 0 <= place.min() <= place.max() < n_places:
                raise ValueError(f"outings to places {place.min()} to {place.max()} of {n_places}")
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"these are no tensors of the people's sources: {error!r}") from error
        return cls(friends, Outings(days, there, place), home)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `load` takes beside `friends` and `city` of the places' sources, which stand in the same file.

        Returns:
            people.home (N,) and people.place (K,) int32; people.days and people.there as `rows.packed` has them.
        """
        return {
            "people.home": torch.from_numpy(self.home.astype(np.int32)),
            "people.place": torch.from_numpy(self.outings.place.astype(np.int32)),
            **packed("people.days", self.outings.days),
            **packed("people.there", self.outings.there),
        }

    def without(self, u: Ints, v: Ints) -> "PeopleSources":
        """The same, as if (T,) pairs of friends did not know each other."""
        n, row = len(self.home), row_of(self.friends)
        gone = np.concatenate([u * n + v, v * n + u])
        keep = ~np.isin(row * n + self.friends.indices, gone)
        left = matrix(np.ones(int(keep.sum())), (row[keep], self.friends.indices[keep]), self.friends.shape)
        return PeopleSources(left, self.outings, self.home)

    def members(self, city: int) -> Ints:
        """(C,) node numbers of a city's people: what a position in the city means."""
        return self._cities[city].members

    def _city(self, city: int) -> _City:
        members = np.flatnonzero(self.home == city)
        self._position[members] = np.arange(len(members))
        graph = csr_array(self.friends[members][:, members])
        step = csr_array(graph, copy=True)
        step.data = step.data * _inverse(self._degree[members])[step.indices]
        seen, there = (csr_array(x[members]) for x in (self._seen, self.outings.there))
        return _City(members, graph, step, seen, csr_array(seen.T.tocsr()), csr_array(there.T.tocsr()))

    def ask(self, users: Ints, city: int) -> Friendly:
        """What the sources say to (B,) users of a city's people."""
        here, degree = self._cities[city], self._degree[users]
        friends = take(self.friends, users)
        near = self.home[friends.indices] == city
        known = moved(friends, near, self._position[friends.indices[near]], len(here.members))
        own, per_peer = _inverse(degree), _inverse(self._degree[here.members])
        norm = self._norm[here.members]
        seen, days = take(self._seen, users), take(self.outings.there, users)
        co_visits = times(_weighted(seen, self._squared, self._norm[users]), here.visitors)
        # each friend's profile is of length 1, and theirs the mean
        profile = _weighted(_weighted(known, norm) @ here.seen, self._squared, own)
        # people by rows from here on: products of a sparse matrix with one dense column a user
        column = np.ascontiguousarray(known.toarray().T, dtype=np.float32)
        alike = np.ascontiguousarray((co_visits * norm).T, dtype=np.float32)
        shared = np.log(np.maximum(self._degree[here.members], 2))[:, None].astype(np.float32)
        at = column * own
        walks = [np.zeros_like(at), np.zeros_like(at)]
        for step in range(1, _WALKS[0][1] + 1):
            if step > 1:
                at = here.step @ at
            for total, (restart, steps) in zip(walks, _WALKS, strict=True):
                if step <= steps:
                    total += restart * (1 - restart) ** step * at
            if step == 2:
                two = at
            if step == 3:
                three = at
        even = three * np.sqrt(degree) * np.sqrt(per_peer)[:, None]
        columns = {
            "adamic_adar": here.graph @ (column / shared),
            "resource_allocation": two * degree,
            "paths_3": here.graph @ (here.graph @ column),
            "paths_3_even": even,
            "walk": walks[0],
            "walk_near": walks[1],
            "places_friends": (here.graph @ alike) * per_peer[:, None],
        }
        rows = {
            "co_visits": alike.T,
            "rare_places": times(_weighted(seen, self._rare), here.visitors),
            "same_days": times(_weighted(days, self._met), here.came),
            "friends_places": times(profile, here.visitors) * norm,
        }
        said = rows | {name: values.T for name, values in columns.items()}
        named = {name: np.ascontiguousarray(said[name], dtype=np.float32) for name in PEOPLE_SIGNALS[: len(said)]}
        mine = self.home[users] == city
        user = np.stack([np.log1p(degree), self._visits[users]], axis=1)
        return Friendly(city, np.where(mine, self._position[users], -1), named, user)

    def candidates(
        self, said: Friendly, size: int, near: Ints | None = None, *, without: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """Candidates of B users, never oneself.

        Args:
            said: see `ask`.
            size: how many; fewer where the city has fewer people.
            near: (B, n) positions by vector, best first.
            without: (B, C) bool, people who come last, after all others.

        Returns:
            (B, size) positions in no order, and a bit a source of PEOPLE_SOURCES that named the peer.
        """
        return self.fuse(said, near).best(size, without)

    def fuse(self, said: Friendly, near: Ints | None = None) -> Fusion:
        """The sources brought together by reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)."""
        degree = np.log1p(self._degree[self._cities[said.city].members]).astype(np.float32)
        fusion, home = Fusion(len(said.user), 1e-4 * degree), np.flatnonzero(said.itself >= 0)
        for bit, name in enumerate(PEOPLE_SOURCES[:-1]):
            fusion.valued(bit, said.named[name])
        if near is not None:
            fusion.listed(PEOPLE_SOURCES.index("vector"), near)
        fusion.bar(home, said.itself[home])
        return fusion

    def signals(self, said: Friendly, peers: Ints) -> Floats:
        """(B, n) positions in the city → (B, n, len(PEOPLE_SIGNALS)) float32, in that order."""
        members = self._cities[said.city].members[peers]
        of = {name: np.take_along_axis(values, peers, axis=1) for name, values in said.named.items()}
        for name in ("rare_places", "same_days", "paths_3"):
            of[name] = np.log1p(of[name])
        for name, least in (("paths_3_even", 1e-3), ("walk", 1e-6), ("walk_near", 1e-6)):
            of[name] = np.log(of[name] + least)
        alone = [np.broadcast_to(said.user[:, i : i + 1], peers.shape) for i in range(2)]
        columns = [*of.values(), np.log1p(self._degree[members]), self._visits[members], *alone]
        return np.stack(columns, axis=2).astype(np.float32)

    def pairs(self, users: Ints, peers: Ints) -> Floats:
        """(L,) and (L,) node numbers → (L, len(PEOPLE_SIGNALS)) float32, the signals of each pair."""
        out = np.zeros((len(users), len(PEOPLE_SIGNALS)), dtype=np.float32)
        for city in np.unique(self.home[peers]).tolist():
            here = np.flatnonzero(self.home[peers] == city)
            here = here[np.argsort(users[here], kind="stable")]
            everyone, first, count = np.unique(users[here], return_index=True, return_counts=True)
            for start in range(0, len(everyone), _BLOCK):
                at = slice(start, start + _BLOCK)
                filled = np.arange(int(count[at].max())) < count[at][:, None]
                mine = here[first[at][0] : first[at][-1] + count[at][-1]]
                table = np.zeros(filled.shape, dtype=np.int64)
                table[filled] = self._position[peers[mine]]
                out[mine] = self.signals(self.ask(everyone[at], city), table)[filled]
        return out


def _inverse(values: npt.NDArray[np.floating]) -> Floats:
    """1 over each, 0 over 0."""
    out: Floats = np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0).astype(np.float32)
    return out


def _weighted(rows: csr_array | Row, by_column: Floats, by_row: Floats | None = None) -> Any:
    """Rows times a number a column, and one a row."""
    data = rows.data * by_column[rows.indices]
    if by_row is not None:
        data = data * by_row[row_of(rows)]
    return alike(rows, data)
