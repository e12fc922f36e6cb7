"""Where candidate places come from, and what each source says of a user and a place.

A vector alone loses to popularity in a small city, and popularity to one's own history where people return. So the
candidates of a user are the union of a few sources (popular so far, popular of late, what goes with where one was,
where friends were, where one was oneself, the nearest vectors), and what each source says is an input of the place
head, which learns what it is worth.

All of it is a function of who had been where, and who knew whom, as of one moment: fitted once for a snapshot
(training) or a version (serving), then asked for a block of users at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, diags_array

from recsys.errors import ArtifactError
from recsys.sources.fusion import Fusion, top_list
from recsys.sources.rows import Floats, Ints, binary, matrix, packed, row_of, strongest, unpacked

# Of a place relative to its city; of a pair; of a user. Logarithms of counts, shares, or sums of similarities.
PLACE_SIGNALS: Final = (
    "visitors", "visitors_90d", "visitors_28d", "visits_a_visitor",
    "ease", "cosine", "cosine_recent", "friends", "friends_share", "category", "category_lift",
    "own_count", "own_share", "own_recency",
    "breadth", "friends_known", "silence",
)  # fmt: skip
PLACE_SOURCES: Final = ("popular", "popular_90d", "ease", "similar", "friends", "own", "vector")
SOURCES: Final = "sources"  # the name of the sources' tensors in an artifact
NEAR: Final = 100  # candidates that the vectors name, in training as in serving

_NEIGHBOURS: Final = 200  # of a place, by each similarity
_PENALTY: Final = 500.0  # of EASE
_EASE_LIMIT: Final = 12_000  # side of the matrix to invert: 0.6 GB in float32, and two more beside it
_OWN_DAYS: Final = 30.0  # recency is exp(-age / this)
_RECENT_DAYS: Final = 60.0
_NOTHING: Final[Ints] = np.empty(0, dtype=np.int64)
_SMOOTH: Final = 5.0  # visits at the city's shares that a user's categories are mixed with


@dataclass(frozen=True)
class Memory:
    """Who had been where, and who knew whom, as of a moment. N users, M places.

    Attributes:
        counts: CSR (N, M), how often.
        ages: CSR (N, M) of the same pattern, days since the last time, above 0.
        friends: CSR (N, N), symmetric, 1 where two know each other.
        city: (M,) of each place.
        categories: (M, K) multi-hot.
    """

    counts: csr_array
    ages: csr_array
    friends: csr_array
    city: Ints
    categories: Floats

    @classmethod
    def of(
        cls, pairs: tuple[Ints, Ints], count: Floats, age_days: Floats, ties: tuple[Ints, Ints], city: Ints,
        categories: Floats, n_users: int,
    ) -> "Memory":  # fmt: skip
        """Build from distinct (user, place) pairs and from ties in both directions."""
        shape = (n_users, len(city))
        friends = matrix(np.ones(len(ties[0])), ties, (n_users, n_users))
        ages = matrix(np.maximum(age_days, 1e-3), pairs, shape)
        return cls(matrix(count, pairs, shape), ages, binary(friends), city, categories)


@dataclass(frozen=True)
class _City:
    """One city's part: columns are positions among `members`; `seen` is 1 where there are counts."""

    members: Ints
    counts: csr_array
    seen: csr_array
    ages: csr_array
    similar: csr_array
    ease: csr_array
    visitors: Ints
    place: Floats
    lists: tuple[Ints, ...]
    shares: Floats
    usual: Floats


@dataclass(frozen=True)
class Said:
    """What the sources say to B users of all C places of a city; every array but the last two is (B, C).

    Attributes:
        city: its number.
        named: by source of PLACE_SOURCES, in its order from "ease" to "own", what it says.
        cosine: similarity to all where one was. age: days since the last visit, 0 without one.
        taste: (B, K) visits by category, in all cities.
        user: (B, 4): the signals that are the user's alone, and 1 / friends.
    """

    city: int
    named: Mapping[str, Floats]
    cosine: Floats
    age: Floats
    taste: Floats
    user: Floats


class PlaceSources:
    """The sources of places as of a moment; see the module.

    Args:
        memory: what was known then.
        fitted: similar and ease, CSR (M, M), of all cities, where they were fitted before; None: fit them.
    """

    def __init__(self, memory: Memory, fitted: tuple[csr_array, csr_array] | None = None) -> None:
        self.memory = memory
        self._seen = binary(memory.counts)
        kinds = memory.categories / np.maximum(memory.categories.sum(axis=1, keepdims=True), 1e-6)
        self._kinds: Floats = kinds.astype(np.float32)
        degree = np.diff(memory.friends.indptr)
        self._friends: Floats = np.stack([np.log1p(degree), 1.0 / np.maximum(degree, 1)], axis=1).astype(np.float32)
        self._cities = [self._city(city, fitted) for city in range(int(memory.city.max(initial=-1)) + 1)]

    @classmethod
    def load(cls, tensors: Mapping[str, torch.Tensor]) -> "PlaceSources":
        """From what `tensors` made; nothing that takes long is fitted again.

        Raises:
            ArtifactError: a tensor is missing, or they do not fit together.
        """
        try:
            city, categories = tensors["city"].numpy().astype(np.int64), tensors["categories"].numpy()
            if categories.shape[:1] != city.shape or city.min(initial=0) < 0:
                raise ValueError(
                    f"categories {categories.shape} of {len(city)} places, cities from {city.min(initial=0)}"
                )
            n_users = len(tensors["friends.indptr"]) - 1
            counts = unpacked(tensors, "counts", (n_users, len(city)))
            ages = csr_array((tensors["ages"].numpy(), counts.indices, counts.indptr), shape=counts.shape)
            friends = unpacked(tensors, "friends", (n_users, n_users))
            similar, ease = (unpacked(tensors, name, (len(city), len(city))) for name in ("similar", "ease"))
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"these are no tensors of the sources: {error!r}") from error
        return cls(Memory(counts, ages, friends, city, categories), (similar, ease))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `load` takes: who had been where, who knew whom, and what takes long to fit.

        Returns:
            CSR matrices as `rows.packed` names their parts: counts, friends, similar, ease; ages (nnz,) float32 in the
            pattern of counts; city (M,) int32; categories (M, K) float32. A city's lists and popularity follow.
        """
        memory, n = self.memory, len(self.memory.city)
        out = {
            **packed("counts", memory.counts),
            "ages": torch.from_numpy(memory.ages.data),
            **packed("friends", memory.friends),
            "city": torch.from_numpy(memory.city.astype(np.int32)),
            "categories": torch.from_numpy(memory.categories.astype(np.float32)),
        }
        for name in ("similar", "ease"):
            parts = [(getattr(here, name), here.members) for here in self._cities]
            row = [members[row_of(x)] for x, members in parts]
            column = [members[x.indices] for x, members in parts]
            at = (np.concatenate([*row, _NOTHING]), np.concatenate([*column, _NOTHING]))
            out |= packed(name, matrix(np.concatenate([*(x.data for x, _ in parts), _NOTHING]), at, (n, n)))
        return out

    def members(self, city: int) -> Ints:
        """(C,) node numbers of a city's places: what a position in the city means."""
        return self._cities[city].members

    def visitors(self, city: int, users: Ints | None = None) -> Ints:
        """(C,) how many users, or how many of some, had been at each place of a city."""
        here = self._cities[city]
        if users is None:
            return here.visitors
        out: Ints = np.bincount(here.seen[users].indices, minlength=len(here.members))
        return out

    def _city(self, city: int, fitted: tuple[csr_array, csr_array] | None) -> _City:
        members = np.flatnonzero(self.memory.city == city)
        counts, ages = (csr_array(x[:, members]) for x in (self.memory.counts, self.memory.ages))
        visitors, late, now = (
            np.bincount(ages.indices[ages.data <= days], minlength=len(members)) for days in (np.inf, 90.0, 28.0)
        )
        # over the city's mean: means the same in a small city and in a large one
        relative = [np.log((1 + x) / (1 + x.sum() / max(len(x), 1))) for x in (visitors, late, now)]
        events = np.bincount(counts.indices, weights=counts.data, minlength=len(members))
        place = np.stack([*relative, np.log1p(events / np.maximum(visitors, 1))], axis=1).astype(np.float32)
        lists = tuple(top_list(x) for x in (visitors, late))
        kinds = self._kinds[members]
        weight = (kinds * visitors[:, None]).sum(axis=0) + 1e-6
        shares = (weight / weight.sum()).astype(np.float32)
        seen = binary(counts)
        if fitted is None:
            similar, ease = _item_models(seen, visitors)
        else:
            similar, ease = (csr_array(x[members][:, members]) for x in fitted)
        usual = np.log(kinds @ shares + 1e-4)
        return _City(members, counts, seen, ages, similar, ease, visitors, place, lists, shares, usual)

    def ask(self, users: Ints, city: int, counts: csr_array | None = None, ages: csr_array | None = None) -> Said:
        """What the sources say to (B,) users of a city's places.

        Args:
            users: node numbers.
            city: its number.
            counts, ages: CSR (B, M), where they were by now; None: as remembered.
        """
        here, taste = self._cities[city], self._seen[users] if counts is None else binary(counts)
        counts = here.counts[users] if counts is None else csr_array(counts[:, here.members])
        ages = here.ages[users] if ages is None else csr_array(ages[:, here.members])
        seen, breadth = binary(counts), np.diff(counts.indptr)
        fading = np.exp(-ages.data / _RECENT_DAYS).astype(np.float32)
        last = np.full(len(users), np.inf)
        np.minimum.at(last, row_of(ages), ages.data)
        named = {
            "ease": seen @ here.ease,
            "similar": csr_array((fading, ages.indices, ages.indptr), shape=ages.shape) @ here.similar,
            "friends": self.memory.friends[users] @ here.seen,
            "own": counts,
        }
        friends = self._friends[users]
        alone = [np.log1p(breadth), friends[:, 0], np.exp(-last / _OWN_DAYS), friends[:, 1]]
        return Said(
            city,
            {name: values.toarray().astype(np.float32, copy=False) for name, values in named.items()},
            (seen @ here.similar).toarray() / np.maximum(breadth, 1).astype(np.float32)[:, None],
            ages.toarray(),
            taste @ self._kinds,
            np.stack(alone, axis=1).astype(np.float32),
        )

    def candidates(
        self, said: Said, size: int, near: Ints | None = None, *, without: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """Candidates of B users.

        Args:
            said: see `ask`.
            size: how many; fewer where the city has fewer places.
            near: (B, n) positions by vector, best first.
            without: (B, C) bool, places that come last, after all others.

        Returns:
            (B, size) positions in no order, and a bit a source of PLACE_SOURCES that named the place.
        """
        return self.fuse(said, near).best(size, without)

    def fuse(self, said: Said, near: Ints | None = None) -> Fusion:
        """The sources brought together by reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)."""
        here = self._cities[said.city]
        fusion = Fusion(len(said.user), 1e-3 * here.place[:, 0])  # what no source names comes by popularity
        for bit, at in enumerate(here.lists):
            fusion.listed(bit, at[None])
        for bit, (name, values) in enumerate(said.named.items(), start=len(here.lists)):
            fusion.valued(bit, values, always=name == "own")
        if near is not None:
            fusion.listed(PLACE_SOURCES.index("vector"), near)
        return fusion

    def strengths(self, said: Said) -> dict[str, Floats]:
        """What each source but the vectors says to the first of the users: (C,), the more the better, by source."""
        popular = self._cities[said.city].place
        return {"popular": popular[:, 0], "popular_90d": popular[:, 1], **{n: v[0] for n, v in said.named.items()}}

    def signals(self, said: Said, places: Ints) -> Floats:
        """(B, n) positions in the city → (B, n, len(PLACE_SIGNALS)) float32, in that order."""
        here = self._cities[said.city]
        taste = (said.taste + _SMOOTH * here.shares) / (said.taste.sum(axis=1, keepdims=True) + _SMOOTH)
        kinds = self._kinds[here.members]
        fits = np.log(np.take_along_axis(taste @ kinds.T, places, axis=1) + 1e-4)
        ease, similar, friends, own = (np.take_along_axis(x, places, axis=1) for x in said.named.values())
        columns = [
            *np.moveaxis(here.place[places], 2, 0),
            ease,
            np.take_along_axis(said.cosine, places, axis=1),
            similar,
            np.log1p(friends),
            friends * said.user[:, 3:],
            fits,
            fits - here.usual[places],
            np.log1p(own),
            own / np.maximum(said.named["own"].sum(axis=1, keepdims=True), 1),
            np.where(own > 0, np.exp(-np.take_along_axis(said.age, places, axis=1) / _OWN_DAYS), 0),
            *(np.broadcast_to(said.user[:, i : i + 1], places.shape) for i in range(3)),
        ]
        return np.stack(columns, axis=2).astype(np.float32)


def _item_models(seen: csr_array, visitors: Ints) -> tuple[csr_array, csr_array]:
    """Cosine of the visitors of two places, and EASE's weights: of each place the largest. (C, C) each."""
    n = len(visitors)
    there = np.flatnonzero(visitors > 0)
    if len(there) < 2:
        return csr_array((n, n), dtype=np.float32), csr_array((n, n), dtype=np.float32)
    x = csr_array(seen[:, there])
    x = csr_array(x[np.diff(x.indptr) > 0])
    cosine = csr_array(x @ diags_array((1.0 / np.sqrt(visitors[there])).astype(np.float32)))
    similar = strongest(csr_array(cosine.T @ cosine), _NEIGHBOURS)
    ease = strongest(_ease(x), _NEIGHBOURS) if min(x.shape) <= _EASE_LIMIT else csr_array(similar.shape)
    return tuple(matrix(m.data, (there[row_of(m)], there[m.indices]), (n, n)) for m in (similar, ease))


def _ease(x: csr_array) -> Floats:
    """EASE's weights (Steck, WWW 2019), (M, M) float32 with zero diagonal, of binary visits (U, M).

    From the users' side where they are fewer: P = (I - XᵀKX) / λ with K = (XXᵀ + λI)⁻¹.
    """
    by_user = x.shape[0] < x.shape[1]
    gram = torch.from_numpy((x @ x.T if by_user else x.T @ x).toarray())
    gram.diagonal().add_(_PENALTY)
    # positive definite: by Cholesky factors in a third of the time of a general inverse, and rounded less
    inverse: Floats = torch.cholesky_inverse(torch.linalg.cholesky(gram)).numpy()
    if by_user:
        # products of few visits with a dense matrix: a twentieth of the time of dense ones
        transposed = csr_array(x.T)
        inverse = transposed @ np.ascontiguousarray((transposed @ inverse).T) / -_PENALTY
        inverse[np.diag_indices_from(inverse)] += 1 / _PENALTY
    weights: Floats = inverse / -inverse.diagonal()[None]
    np.fill_diagonal(weights, 0)
    return weights
