"""What one request reads: from the index and the online store within their deadlines, else from what is left.

A part that did not answer is not asked again by the same request, so a request waits for each of them once at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from recsys.aggregates.finish import Floats
from recsys.aggregates.states import Ints
from recsys.errors import FeatureStoreUnavailable, IndexUnavailable, Unavailable, UnknownUser
from recsys.online import Candidates, PlaceRow, UserProfile, UserRow
from recsys.recommend.engine import Engine
from recsys.recommend.fallback import HURRIED, INDEX, LAST_KNOWN, LOAD, NO_FEATURES, PARTIAL, PROFILES
from recsys.recommend.work import in_thread
from recsys.stages import stage

T = TypeVar("T")


class Reads:
    """Of one request. What blocks says so: it runs in a thread.

    Args:
        engine: the live version.
        now: the moment.
        strict: whether to raise where a part does not answer, instead of doing without it.
    """

    def __init__(self, engine: Engine, now: datetime, *, strict: bool = False) -> None:
        self._engine, self._now, self._strict = engine, now, strict
        self._own, self._guards = engine.own, engine.guards
        hurried = HURRIED.get() and not strict
        self._without = {LOAD} if hurried else set[str]()
        self._index_gone, self._online_gone = False, hurried

    @property
    def blind(self) -> bool:
        """Whether candidates have to be ordered by retrieval alone."""
        return NO_FEATURES in self._without

    def close(self, *besides: str) -> tuple[str, ...]:
        """What the answer had to do without, by name, which is counted; `besides`: what else."""
        without = self._without | set(besides)
        if self.blind:
            without.discard(LAST_KNOWN)
        self._guards.degradations.update(without)
        return tuple(sorted(without))

    # ----------------------------------------------------------------------------------------------------------- index
    @stage("user")
    async def embeddings(self, user_ids: Sequence[int]) -> dict[int, Floats]:
        """(D,) vectors of users by id; of those that the version does not know, none."""
        found = await self._indexed(lambda: self._engine.index.vectors("users", user_ids))
        return self._own.embeddings(user_ids) if found is None else found

    @stage("user")
    async def person(self, user_id: int) -> Floats | None:
        """(D,) vector of a person among people; None where the version does not know them."""
        found = await self._indexed(lambda: self._engine.index.vectors("users", [user_id], using="people"))
        return self._engine.community.vector(user_id) if found is None else found.get(user_id)

    async def place(self, place_id: int) -> Floats | None:
        """(D,) vector of a place; None where the version does not know it."""
        found = await self._indexed(lambda: self._engine.index.vectors("places", [place_id]))
        return self._engine.catalogue.vector(place_id) if found is None else found.get(place_id)

    @stage("retrieve")
    async def near(self, search: Callable[[], Awaitable[Ints]], own: Callable[[], Ints]) -> Ints:
        """Ids, best first: what the index finds, else what a search of the version's own vectors does."""
        found = await self._indexed(search)
        return await in_thread(own) if found is None else found

    # ---------------------------------------------------------------------------------------------------- online store
    @stage("features")
    def rank_places(self, user_id: int, ids: Ints) -> Candidates:
        """The user and C candidate places with their pairs. Blocks."""
        read = self._online(lambda: self._engine.features.rank_places(user_id, ids, self._now, partly=True))
        return self._ranked(user_id, ids, read, people=False)

    @stage("features")
    def rank_people(self, user_id: int, ids: Ints) -> Candidates:
        """The user and C candidate people with their ties. Blocks."""
        read = self._online(lambda: self._engine.features.rank_people(user_id, ids, self._now, partly=True))
        return self._ranked(user_id, ids, read, people=True)

    @stage("profiles")
    def user(self, user_id: int) -> UserRow | UserProfile | None:
        """A user with what they did, or without where that cannot be read; None where unknown. Blocks."""
        rows = self._online(lambda: self._engine.features.users([user_id], self._now))
        return self.users([user_id])[0] if rows is None else rows[0]

    @stage("profiles")
    def users(self, ids: Sequence[int]) -> list[UserProfile | None]:
        """Profiles of users by id, None where unknown. Blocks."""
        lost = set[int]()
        rows = self._online(lambda: self._engine.features.profiles(ids, lost))
        if rows is None:
            self._without.add(PROFILES)
            rows, lost = [None] * len(ids), set(ids)
        else:
            self._guards.last.keep_users(rows)
            self._partly(bool(lost))
        last, own = self._guards.last.user, self._own.user
        return [(last(i) or own(i)) if i in lost else row for i, row in zip(ids, rows, strict=True)]

    @stage("profiles")
    def places(self, ids: Sequence[int]) -> list[PlaceRow | None]:
        """Places by id, None where unknown. Blocks."""
        lost = set[int]()
        rows = self._online(lambda: self._engine.features.places(ids, lost))
        if rows is None:
            self._without.add(PROFILES)
            rows, lost = [None] * len(ids), set(ids)
        else:
            self._guards.last.keep_places(rows)
            self._partly(bool(lost))
        last, own = self._guards.last.place, self._own.place
        return [(last(i) or own(i)) if i in lost else row for i, row in zip(ids, rows, strict=True)]

    def ping(self) -> None:
        """Ask the online store for a sign of life. Blocks."""
        self._partly(bool(self._online(self._engine.features.ping)))

    async def unknown(self, user_id: int) -> UnknownUser:
        """The error for someone without a vector: nobody knows them, or they joined after the version was made."""
        if LOAD in self._without:  # an error is to be right
            self._online_gone = False
        (row,) = await in_thread(self.users, [user_id])
        version = self._engine.version
        if row is not None:
            return UnknownUser(f"user {user_id} is not in model version {version}: it was made before they joined")
        where = f" in model version {version}" if self._online_gone or PARTIAL in self._without else ""
        return UnknownUser(f"there is no user {user_id}{where}")

    # ---------------------------------------------------------------------------------------------------------- inside
    async def _indexed(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the index says; None: it does not answer."""
        if self._index_gone:
            return None
        try:
            with self._guards.index.guard():
                try:
                    async with asyncio.timeout(self._guards.index_timeout_s):
                        return await ask()
                except TimeoutError as error:
                    raise IndexUnavailable(f"no answer within {self._guards.index_timeout_s * 1e3:.0f} ms") from error
        except IndexUnavailable:
            if self._strict:
                raise
            self._index_gone = True
            self._without.add(INDEX)
            return None

    def _online(self, ask: Callable[[], T]) -> T | None:
        """What the online store says; None: it does not answer."""
        if self._online_gone:
            return None
        try:
            with self._guards.online.guard():
                return ask()
        except FeatureStoreUnavailable:
            if self._strict:
                raise
            self._online_gone = True
            return None

    def _partly(self, lost: bool) -> None:
        """Some of what was asked for is on a node that does not answer, which is no failure of the others."""
        if not lost:
            return
        if self._strict:
            raise FeatureStoreUnavailable("a node of the online store did not answer: `recsys doctor`")
        self._without.add(PARTIAL)

    def _ranked(self, user_id: int, ids: Ints, read: Candidates | None, *, people: bool) -> Candidates:
        last, now_us = self._guards.last, self._now.timestamp() * 1e6
        if read is not None:
            last.keep_ranked(user_id, ids, read, now_us, people=people)
            lost = read.lost is not None and bool(read.lost.any())
            self._partly(lost or read.user_lost)
            if not lost and not read.user_lost:
                return read
        features, enough, age_s = last.ranked(user_id, ids, now_us, people=people, read=read)
        if not enough:
            self._without.add(NO_FEATURES)
        elif read is None:
            self._without.add(LAST_KNOWN)
        user = read.user if read is not None and not read.user_lost else last.user(user_id) or self._own.user(user_id)
        return Candidates(user, features, age_s if enough else 0.0)


async def answering(engine: Engine, now: datetime) -> dict[str, bool]:
    """Whether the online store and the index answer, by their breakers; either may ask the part once.

    Raises:
        IndexUnavailable: the index has never answered.
    """
    reads = Reads(engine, now, strict=True)

    async def answers(ask: Awaitable[object]) -> bool:
        try:
            await ask
        except Unavailable:
            return False
        return True

    online = await answers(in_thread(reads.ping))
    index = await answers(reads.embeddings([0]))
    if not engine.guards.index.answered:
        raise IndexUnavailable("the index has not answered since the start")
    return {"online_store": online, "index": index}
