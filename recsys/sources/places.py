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
from scipy.sparse import csr_array

from recsys.errors import ArtifactError
from recsys.sources.alike import Alike
from recsys.sources.fits import Stated, Traits
from recsys.sources.fusion import Fusion, top_list
from recsys.sources.items import Kinds, item_models, shares_of
from recsys.sources.latent import LATENT_SIGNALS, WIDTH, Latent
from recsys.sources.rows import Floats, Ints, alike, binary, matrix, packed, row_of, take, times, unpacked

# Of a place relative to its city; of a pair; of a user. Logarithms of counts, shares, or sums of similarities.
PLACE_SIGNALS: Final = (
    "visitors", "visitors_90d", "visitors_28d", "visits_a_visitor",
    "ease", "cosine", "cosine_recent", *LATENT_SIGNALS, "alike", "alike_recent", "friends", "friends_share",
    "category", "category_lift", "tag", "tag_lift",
    "own_count", "own_share", "own_recency",
    "breadth", "friends_known", "silence",
)  # fmt: skip
PLACE_SOURCES: Final = ("popular", "popular_90d", "ease", "similar", "friends", "own", "vector")
SOURCES: Final = "sources"  # the name of the sources' tensors in an artifact
NEAR: Final = 100  # candidates that the vectors name, in training as in serving

_OWN_DAYS: Final = 30.0  # recency is exp(-age / this)
_RECENT_DAYS: Final = 60.0
_ONES: Final = ("area", "price", "slot")  # of Traits, a number a place
_NOTHING: Final[Ints] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Memory:
    """Who had been where, and who knew whom, as of a moment. N users, M places.

    Attributes:
        counts: CSR (N, M), how often.
        ages: CSR (N, M) of the same pattern, days since the last time, above 0.
        friends: CSR (N, N), symmetric, 1 where two know each other.
        city: (M,) of each place.
        traits: of the places.
    """

    counts: csr_array
    ages: csr_array
    friends: csr_array
    city: Ints
    traits: Traits

    @classmethod
    def of(
        cls, pairs: tuple[Ints, Ints], count: Floats, age_days: Floats, ties: tuple[Ints, Ints], city: Ints,
        traits: Traits, n_users: int,
    ) -> "Memory":  # fmt: skip
        """Build from distinct (user, place) pairs and from ties in both directions."""
        shape = (n_users, len(city))
        friends = matrix(np.ones(len(ties[0])), ties, (n_users, n_users))
        ages = matrix(np.maximum(age_days, 1e-3), pairs, shape)
        return cls(matrix(count, pairs, shape), ages, binary(friends), city, traits)


@dataclass(frozen=True)
class _City:
    """One city's part: columns are positions among `members`; `seen` is 1 where there are counts."""

    members: Ints
    counts: csr_array
    seen: csr_array
    ages: csr_array
    similar: csr_array
    ease: csr_array
    latent: Latent
    alike: Alike
    visitors: Ints
    place: Floats
    lists: tuple[Ints, ...]
    kinds: tuple[Kinds, Kinds]


@dataclass(frozen=True)
class Said:
    """What the sources say to B users of all C places of a city; arrays are (B, C) where nothing else is said.

    Attributes:
        city: its number.
        named: by source of PLACE_SOURCES, in its order from "ease" to "own", what it says.
        cosine: similarity to all where one was. age: days since the last visit, 0 without one.
        latent: (B, WIDTH), what visits come to in the few numbers that places have.
        alike: where the users most alike were, and the same fading.
        kinds: (B, K) and (B, T), visits by category and by tag, in all cities.
        user: (B, 4): the signals that are the user's alone, and 1 / friends.
    """

    city: int
    named: Mapping[str, Floats]
    cosine: Floats
    age: Floats
    latent: Floats
    alike: tuple[Floats, Floats]
    kinds: tuple[Floats, Floats]
    user: Floats


class PlaceSources:
    """The sources of places as of a moment; see the module.

    Args:
        memory: what was known then.
        fitted: of all cities similar and ease, CSR (M, M), and latent rows, (M, WIDTH), where they were fitted before;
            None: fit them.
    """

    def __init__(self, memory: Memory, fitted: tuple[csr_array, csr_array, Floats] | None = None) -> None:
        self.memory = memory
        self._seen = binary(memory.counts)
        self._kinds = shares_of(memory.traits.categories > 0), shares_of(memory.traits.tags > 0)
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
            city = tensors["city"].numpy().astype(np.int64)
            of_places = categories, tags, latent = [tensors[x].numpy() for x in ("categories", "tags", "latent")]
            ones = [tensors[x].numpy().astype(np.int64) for x in _ONES]
            if any(len(x) != len(city) for x in (*of_places, *ones)) or city.min(initial=0) < 0:
                raise ValueError(f"{[x.shape for x in of_places]} of {len(city)} places, cities from {min(city)}")
            if latent.shape[1:] != (WIDTH,):
                raise ValueError(f"latent {latent.shape}")
            n_users = len(tensors["friends.indptr"]) - 1
            counts = unpacked(tensors, "counts", (n_users, len(city)))
            ages = csr_array((tensors["ages"].numpy(), counts.indices, counts.indptr), shape=counts.shape)
            friends = unpacked(tensors, "friends", (n_users, n_users))
            similar, ease = (unpacked(tensors, name, (len(city), len(city))) for name in ("similar", "ease"))
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"these are no tensors of the sources: {error!r}") from error
        memory = Memory(counts, ages, friends, city, Traits(categories, tags, *ones))
        return cls(memory, (similar, ease, latent))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `load` takes: who had been where, who knew whom, and what takes long to fit.

        Returns:
            CSR matrices as `rows.packed` names their parts: counts, friends, similar, ease; ages (nnz,) float32 in the
            pattern of counts; city, area, price and slot (M,) int32; categories (M, K), tags (M, T) and latent
            (M, WIDTH) float32. A city's lists and popularity follow.
        """
        memory, n = self.memory, len(self.memory.city)
        out = {
            **packed("counts", memory.counts),
            "ages": torch.from_numpy(memory.ages.data),
            **packed("friends", memory.friends),
            "city": torch.from_numpy(memory.city.astype(np.int32)),
            "categories": torch.from_numpy(memory.traits.categories),
            "tags": torch.from_numpy(memory.traits.tags),
            **{name: torch.from_numpy(getattr(memory.traits, name).astype(np.int32)) for name in _ONES},
            "latent": torch.zeros(n, WIDTH),
        }
        for here in self._cities:
            out["latent"][torch.from_numpy(here.members)] = torch.from_numpy(here.latent.rows)
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

    def _city(self, city: int, fitted: tuple[csr_array, csr_array, Floats] | None) -> _City:
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
        seen = binary(counts)
        if fitted is None:
            (similar, ease), latent = item_models(seen, visitors), Latent.fit(seen, visitors)
        else:
            similar, ease = (csr_array(x[members][:, members]) for x in fitted[:2])
            latent = Latent.of(fitted[2][members], visitors)
        peers = Alike.of(seen, alike(ages, _fading(ages.data)), visitors)
        categories, tags = (Kinds.of(csr_array(rows[members]), visitors) for rows in self._kinds)
        return _City(
            members, counts, seen, ages, similar, ease, latent, peers, visitors, place, lists, (categories, tags)
        )  # fmt: skip

    def ask(self, users: Ints, city: int) -> Said:
        """What the sources say to (B,) users, by number, of a city's places."""
        here, everywhere = self._cities[city], take(self._seen, users)
        seen, counts, ages = (take(x, users) for x in (here.seen, here.counts, here.ages))
        breadth = np.diff(seen.indptr)
        last = np.full(len(users), np.inf)
        np.minimum.at(last, row_of(ages), ages.data)
        fading = alike(ages, _fading(ages.data))
        named = {
            "ease": times(seen, here.ease),
            "similar": times(fading, here.similar),
            "friends": times(take(self.memory.friends, users), here.seen),
            "own": counts.toarray(),
        }
        friends = self._friends[users]
        alone = [np.log1p(breadth), friends[:, 0], np.exp(-last / _OWN_DAYS), friends[:, 1]]
        return Said(
            city,
            named,
            times(seen, here.similar) / np.maximum(breadth, 1).astype(np.float32)[:, None],
            ages.toarray(),
            here.latent.ask(seen),
            here.alike.ask(users, seen),
            (times(everywhere, self._kinds[0]), times(everywhere, self._kinds[1])),
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

    def fits(
        self, stated: Stated, city: int, places: Ints, slot: Ints | None = None, wanted: Floats | None = None
    ) -> Floats:
        """(B, n) positions in the city → (B, n, len(PLACE_FITS)), see `Traits.fits`."""
        return self.memory.traits.fits(stated, city, self._cities[city].members[places], slot, wanted)

    def signals(self, said: Said, places: Ints) -> Floats:
        """(B, n) positions in the city → (B, n, len(PLACE_SIGNALS)) float32, in that order."""
        here = self._cities[said.city]
        fits = []
        for kinds, visits in zip(here.kinds, said.kinds, strict=True):
            fit = kinds.fits(visits, places)
            fits += [fit, fit - kinds.usual[places]]
        ease, similar, friends, own = (np.take_along_axis(x, places, axis=1) for x in said.named.values())
        columns = [
            *np.moveaxis(here.place[places], 2, 0),
            ease,
            np.take_along_axis(said.cosine, places, axis=1),
            similar,
            *np.moveaxis(here.latent.signals(said.latent, places), 2, 0),
            *(np.take_along_axis(x, places, axis=1) for x in said.alike),
            np.log1p(friends),
            friends * said.user[:, 3:],
            *fits,
            np.log1p(own),
            own / np.maximum(said.named["own"].sum(axis=1, keepdims=True), 1),
            np.where(own > 0, np.exp(-np.take_along_axis(said.age, places, axis=1) / _OWN_DAYS), 0),
            *(np.broadcast_to(said.user[:, i : i + 1], places.shape) for i in range(3)),
        ]
        return np.stack(columns, axis=2).astype(np.float32)


def _fading(age_days: Floats) -> Floats:
    """How much a visit still counts, the longer ago the less."""
    out: Floats = np.exp(-age_days / _RECENT_DAYS).astype(np.float32)
    return out
