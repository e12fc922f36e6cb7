"""What answering takes: one model version's parts, held together so that an answer never mixes two."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

import numpy.typing as npt
import pyarrow as pa

from recsys.aggregates.states import Ints
from recsys.errors import InvalidField, NotReady, UnknownCity, UnknownPlace, UnknownUser
from recsys.index import IndexReader
from recsys.models.ranker import Ranker
from recsys.online import Candidates, PlaceRow, UserProfile, UserRow
from recsys.recommend.catalogue import Catalogue, Homes
from recsys.recommend.community import Community
from recsys.recommend.fallback import Guards, Own
from recsys.recommend.identity import SourceIds
from recsys.safety import Safety
from recsys.taxonomy import CITY, Taxonomy

TOP_K_MAX: Final = 100
Row = TypeVar("Row", PlaceRow, UserProfile)


class Features(Protocol):
    """The online reads of `recsys.features.FeatureStore`; they block, so they run in a thread."""

    def users(self, ids: Sequence[int], now: datetime) -> list[UserRow | None]:
        """Users by id with what they did, None where unknown."""

    def profiles(self, ids: Sequence[int], lost: set[int] | None = None) -> list[UserProfile | None]:
        """Profiles of users by id, None where unknown; `lost` takes those that a part of the store has not given."""

    def places(self, ids: Sequence[int], lost: set[int] | None = None) -> list[PlaceRow | None]:
        """Places by id, None where unknown; `lost` likewise."""

    def rank_places(
        self, user_id: int, place_ids: npt.NDArray[Any], now: datetime, *, partly: bool = False
    ) -> Candidates:
        """The user and C candidate places with their pairs; `partly`: a part of the store may be away."""

    def rank_people(
        self, user_id: int, peer_ids: npt.NDArray[Any], now: datetime, *, partly: bool = False
    ) -> Candidates:
        """The user and C candidate people with their ties, likewise."""

    def schema(self) -> dict[str, dict[str, str]]:
        """Features and their types by registered view."""

    def cached(self) -> tuple[int, int]:
        """Candidates whose features were at hand, and those whose were read, since the start."""

    def ping(self) -> list[str]:
        """Parts of the store that do not answer; FeatureStoreUnavailable where none does."""

    def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True)
class Gazetteer:
    """Names of cities, of neighborhoods by (city, neighborhood), and of what vectors index by."""

    cities: Mapping[int, str]
    neighborhoods: Mapping[tuple[int, int], str]
    taxonomy: Taxonomy = CITY

    @cached_property
    def divided(self) -> frozenset[int]:
        """Cities of more than one neighborhood: in the others, to be there says nothing."""
        return frozenset(c for c, n in Counter(c for c, _ in self.neighborhoods).items() if n > 1)

    @classmethod
    def of(cls, places: pa.Table, taxonomy: Taxonomy = CITY) -> "Gazetteer":
        """Collect the names from an artifact's `places` table and its taxonomy."""
        columns = ("city_id", "city_name", "neighborhood_id", "neighborhood_name")
        named = places.select(list(columns)).group_by(list(columns)).aggregate([]).to_pylist()
        named.sort(key=lambda row: (row["city_id"], row["neighborhood_id"]))
        return cls(
            {row["city_id"]: row["city_name"] for row in named},
            {(row["city_id"], row["neighborhood_id"]): row["neighborhood_name"] for row in named},
            taxonomy,
        )


@dataclass(frozen=True)
class Engine:
    """One live version.

    Attributes:
        version: `model_version` of every answer.
        index: searches this version.
        candidates: how many places or people retrieval hands to ranking.
        homes: the city and the node number of each user of this version.
        catalogue: its places, and what its sources say of them. community: the same of its users.
        safety: who may not be shown to whom, and which places to nobody; no version's, but the data set's.
        k_anonymity: what friends did is told only where at least so many did.
        friendships: whether the data know who is friends with whom; else ties are people alike.
        own: what the version says by itself. guards: what keeps answering while a part does not.
        users, places: the ids that the sources know.
    """

    version: str
    gazetteer: Gazetteer
    ranker: Ranker
    index: IndexReader
    features: Features
    candidates: int
    homes: Homes
    catalogue: Catalogue
    community: Community
    safety: Safety
    own: Own
    guards: Guards = field(default_factory=Guards)
    k_anonymity: int = 3
    friendships: bool = False
    users: SourceIds = field(default_factory=lambda: SourceIds("user", None, UnknownUser))
    places: SourceIds = field(default_factory=lambda: SourceIds("place", None, UnknownPlace))

    @property
    def degradations(self) -> Counter[str]:
        """Answers by what they had to do without; see `recsys.recommend.fallback.DEGRADATIONS`."""
        return self.guards.degradations

    def city(self, asked: int | None, user_id: int) -> int:
        """The city of a request: the asked one, else the user's own.

        Raises:
            UnknownCity: there is no such city in this version.
        """
        city = self.homes.of(user_id) if asked is None else asked
        if city not in self.gazetteer.cities:
            raise UnknownCity(f"there is no city {city} in this data set (got {len(self.gazetteer.cities)} cities)")
        return city

    def check(self, field: str, positions: Sequence[int], names: Sequence[str]) -> None:
        """Refuse positions that this version's taxonomy does not have.

        Raises:
            InvalidField: names the field, the allowed range and what was given.
        """
        for at, position in enumerate(positions):
            if position >= len(names):
                allowed = f"must be from 0 to {len(names) - 1}, see GET /taxonomy"
                raise InvalidField(f"{field}.{at}", f"{allowed} (got {position})")

    def friends(self, user_id: int) -> list[int]:
        """Ids of a user's friends, as of this version.

        Raises:
            InvalidField: the data know no friendships.
        """
        if not self.friendships:
            raise InvalidField("exclude_friends", "this data set knows no friendships: its ties are people alike")
        return self.homes.ids(self.catalogue.friends(self.homes.node(user_id)))


def known_user(row: UserProfile | None, user_id: int) -> UserProfile:
    """The user that ranking read.

    Raises:
        UnknownUser: the version knows them, the online store does not.
    """
    if row is None:
        raise UnknownUser(f"there is no user {user_id} in the online store: run `recsys materialize`")
    return row


def known(
    read: Callable[[list[int]], list[Row | None]],
    admit: Callable[[list[Row]], Sequence[bool]],
    ids: Ints,
    order: Ints,
    top_k: int,
) -> list[tuple[int, Row]]:
    """The best candidates that the online store knows; one read, or two where some of the best are missing. Blocks.

    The index and the store are filled by two jobs, so one may hold what the other does not. The list is then filled
    up from the next best, rather than silently short.

    Args:
        read: rows by id, None for what the store does not know.
        admit: the last filter: which rows may be answered.
        ids: (C,) candidate ids.
        order: (C,) positions into `ids`, best first.
        top_k: at most this many.

    Returns:
        Position into `ids` and row, best first.

    Raises:
        NotReady: there are candidates, and the store knows none of them.
    """
    found: list[tuple[int, Row]] = []
    strange = True
    for part in (order[:top_k], order[top_k:]):
        if len(part) and len(found) < top_k:
            rows = read(ids[part].tolist())
            there = [(int(at), row) for at, row in zip(part, rows, strict=True) if row is not None]
            strange &= not there
            found += [pair for pair, good in zip(there, admit([row for _, row in there]), strict=True) if good]
    if len(order) and strange:
        raise NotReady(f"the online store knows none of the {len(order)} candidates: run `recsys materialize`")
    return found[:top_k]
