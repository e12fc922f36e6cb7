"""The users and places of a version by our ids, and what its sources say of them: candidates of one request."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.aggregates import ONLINE_PLACE
from recsys.aggregates.states import Ints
from recsys.artifacts import Artifact
from recsys.constants import FACETS
from recsys.errors import ArtifactError
from recsys.online import UserProfile
from recsys.recommend.facets import Bools, Facets, Wanted
from recsys.sources import PLACE_SOURCES, SOURCES, Fusion, PlaceSources, Said, Stated
from recsys.stages import stage

Floats = npt.NDArray[np.float32]
_NOBODY: Ints = np.empty(0, dtype=np.int64)
_PAIR_KNOWN = ONLINE_PLACE.index("pair_known")


class Homes:
    """The city and the node number of each user of a version.

    Args:
        users: an artifact's `users` table: user_id, index, city_id.
    """

    def __init__(self, users: pa.Table) -> None:
        ids, nodes, cities = (users[name].to_numpy() for name in ("user_id", "index", "city_id"))
        order = np.argsort(ids)
        self._ids, self._nodes, self._cities = ids[order], nodes[order], cities[order]
        self._by_node = ids[np.argsort(nodes)]

    def nodes(self, user_ids: Collection[int]) -> Ints:
        """Node numbers of those of some users that the version knows."""
        asked = np.fromiter(user_ids, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._ids, asked), len(self._ids) - 1)
        found: Ints = self._nodes[at[self._ids[at] == asked]]
        return found

    def ids(self, nodes: Ints) -> list[int]:
        """Ids of users by their node numbers."""
        found: list[int] = self._by_node[nodes].tolist()
        return found

    def of(self, user_id: int) -> int:
        """City of a user that the version knows."""
        return int(self._cities[np.searchsorted(self._ids, user_id)])

    def node(self, user_id: int) -> int:
        """Node number of a user that the version knows."""
        return int(self._nodes[np.searchsorted(self._ids, user_id)])


@dataclass(frozen=True)
class _City:
    """Places by position in the city: ids (C,), vectors (C, D), facets; `order` sorts the ids."""

    ids: Ints
    vectors: Floats
    order: Ints
    facets: Facets


@dataclass(frozen=True)
class Found:
    """C candidate places of one request, in no order.

    Attributes:
        ids: (C,). vectors: (C, D). marks: (C,) a bit a source of PLACE_SOURCES that named the place.
        position: (C,) in the city. said: what the sources say. fusion: the same of all places of the city, as one.
        friends: (C,) how many friends had been there, as of the version, without those kept apart.
        company: the same of all places of the city, by position.
    """

    ids: Ints
    vectors: Floats
    marks: npt.NDArray[np.uint8]
    position: Ints
    said: Said
    fusion: Fusion
    friends: Ints
    company: Ints

    def named(self, at: int, k: int) -> list[str]:
        """The sources that named a candidate; none where it only filled the list up.

        Friends are named only where at least `k` of them had been there: fewer would say what somebody did.
        """
        told = [name for bit, name in enumerate(PLACE_SOURCES) if self.marks[at] >> bit & 1]
        return told if self.friends[at] >= k else [name for name in told if name != "friends"]

    def retrieval(self, position: Ints) -> Floats:
        """(C,) places of the city, by position → how well the sources together like them, in [0, 1)."""
        out: Floats = self.fusion.scores(position[None])[0]
        return out

    def where(self, keep: Bools) -> "Found":
        """Some of them."""
        return replace(
            self,
            ids=self.ids[keep],
            vectors=self.vectors[keep],
            marks=self.marks[keep],
            position=self.position[keep],
            friends=self.friends[keep],
        )


class Catalogue:
    """What a version knows of its places.

    Args:
        sources: as of the version's `until`.
        places: an artifact's `places` table: place_id, index, city_id, embedding, FACETS.
        n_users: how many the version knows.

    Raises:
        ArtifactError: the sources are of other users or places.
    """

    def __init__(self, sources: PlaceSources, places: pa.Table, n_users: int) -> None:
        ids, nodes, cities = (places[name].to_numpy().astype(np.int64) for name in ("place_id", "index", "city_id"))
        known = sources.memory.counts.shape[0], len(sources.memory.city)
        if known != (n_users, len(ids)) or not np.array_equal(sources.memory.city[nodes], cities):
            raise ArtifactError(
                "the sources are of other users or places than the tables: run `recsys train` "
                f"(got {known[0]} users and {known[1]} places; the tables have {n_users} and {len(ids)})"
            )
        self.sources = sources
        row = np.argsort(nodes)
        flat = places["embedding"].combine_chunks().flatten().to_numpy().astype(np.float32, copy=False)
        vectors = flat.reshape(len(ids), -1)
        self._cities: dict[int, _City] = {}
        for city in np.unique(cities).tolist():
            rows = row[sources.members(city)]
            self._cities[city] = _City(ids[rows], vectors[rows], np.argsort(ids[rows]), Facets.of_table(places, rows))

    @classmethod
    def load(cls, artifact: Artifact, places: pa.Table, n_users: int) -> "Catalogue":
        """Read from a model version; `places` is its table, which others read too.

        Raises:
            ArtifactError: the version has no sources or facets, or they do not fit its tables.
        """
        if f"{SOURCES}.safetensors" not in artifact.manifest["files"] or not set(FACETS) <= set(places.column_names):
            raise ArtifactError(f"version {artifact.version} was made by older code: run `recsys train`")
        try:
            return cls(PlaceSources.load(artifact.tensors(SOURCES)), places, n_users)
        except ArtifactError as error:
            raise ArtifactError(f"version {artifact.version}: {error}") from error

    def among(self, city: int, ids: Ints) -> Bools:
        """(C,) of a city's places, by position, which are among some ids."""
        out = np.zeros(len(self._cities[city].ids), dtype=bool)
        at, there = self._at(city, ids)
        out[at[there]] = True
        return out

    def matching(self, city: int, wanted: Wanted) -> Bools:
        """(C,) of a city's places, by position, which meet what is wanted."""
        return self._cities[city].facets.match(wanted)

    def ids(self, city: int, places: Bools) -> list[int]:
        """Ids of some of a city's places, by position."""
        found: list[int] = self._cities[city].ids[places].tolist()
        return found

    @stage("retrieve")
    def find(
        self, node: int, city: int, near: Ints, size: int, *, without: Bools, fresh: bool, apart: Ints = _NOBODY
    ) -> Found:
        """Candidates of a request.

        Args:
            node: the user's number.
            city: of the request; one that the version has.
            near: (n,) ids of the city's places by vector, best first.
            size: how many; fewer where the city has fewer that may come.
            without: (C,) places, by position, that may not come.
            fresh: only places where the user never was, as of the version.
            apart: numbers of users of whom nothing may be told to this one.

        Raises:
            ArtifactError: the index holds a place that the version does not know.
        """
        here = self._cities[city]
        at, there = self._at(city, near)
        if len(strange := near[~there]):
            raise ArtifactError(
                f"the index holds {len(strange)} places of city {city} that the version does not know: run "
                f"`recsys train` and `recsys publish` (got place {strange[0]})"
            )
        said = self.sources.ask(np.array([node]), city)
        if fresh:
            without = without | (said.named["own"][0] > 0)
        fusion = self.sources.fuse(said, at[None])
        position, marks = fusion.best(size, without[None])
        friends = said.named["friends"][0]
        if len(strangers := np.intersect1d(apart, self.friends(node))):
            friends = friends - self.sources.visitors(city, strangers)
        at, marks = position[0], marks[0]
        company = friends.astype(np.int64)
        found = Found(here.ids[at], here.vectors[at], marks, at, said, fusion, company[at], company)
        return found.where(~without[found.position])

    def _at(self, city: int, ids: Ints) -> tuple[Ints, Bools]:
        """Positions of ids in a city, and which of them are there."""
        here = self._cities[city]
        at = here.order[np.minimum(np.searchsorted(here.ids, ids, sorter=here.order), len(here.ids) - 1)]
        return at, here.ids[at] == ids

    def everything(self, city: int) -> tuple[Ints, Floats, Ints]:
        """A city's places by position: ids (C,), vectors (C, D), and how many users had been at each (C,)."""
        here = self._cities[city]
        return here.ids, here.vectors, self.sources.visitors(city)

    def vector(self, place_id: int) -> Floats | None:
        """(D,) of a place; None where the version does not know it."""
        for city, here in self._cities.items():
            at, there = self._at(city, np.array([place_id]))
            if there[0]:
                found: Floats = here.vectors[at[0]]
                return found
        return None

    def nearest(self, city: int, vector: Floats, without: Bools, limit: int) -> Ints:
        """Ids of a city's places by dot product, best first: what the index says, found among all of them."""
        here = self._cities[city]
        found: Ints = here.ids[nearest(here.vectors, vector, np.flatnonzero(~without), limit)]
        return found

    def friends(self, node: int) -> Ints:
        """Numbers of those to whom a user had a tie, as of the version."""
        found: Ints = self.sources.memory.friends[[node]].indices
        return found

    @stage("features")
    def fits(self, user: UserProfile, city: int, position: Ints, slot: int, wanted: Collection[int]) -> Floats:
        """(C,) places of a city, by position → (C, len(PLACE_FITS)), how they fit somebody and a request.

        Args:
            slot: asked for, or SLOT_NOT_SAID. wanted: categories asked for.
        """
        areas = np.array([*user.areas], dtype=np.int64)[None]
        shares = np.array([*user.areas.values()], dtype=np.float32)[None]
        home = np.array([user.home_city_id])
        stated = Stated(user.cat_pref[None], user.fine_pref[None], home, areas, shares)
        categories = np.zeros_like(stated.categories)
        categories[0, list(wanted)] = 1
        out: Floats = self.sources.fits(stated, city, position[None], np.array([slot]), categories)[0]
        return out

    @stage("features")
    def signals(self, found: Found) -> Floats:
        """(C, len(PLACE_SIGNALS)) of the candidates."""
        out: Floats = self.sources.signals(found.said, found.position[None])[0]
        return out


def nearest(vectors: Floats, vector: Floats, among: Ints, limit: int) -> Ints:
    """Positions of the rows of (N, D) that are nearest to a vector by dot product, among some, best first."""
    out: Ints = among[np.argsort(-(vectors[among] @ vector), kind="stable")[:limit]]
    return out


def never_there(online: Floats) -> Bools:
    """(C, D) ONLINE_PLACE → (C,) bool: no event of the user there of late, also none since the version was made."""
    kept: Bools = online[:, _PAIR_KNOWN] == 0
    return kept
