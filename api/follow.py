"""Follows the index's pointer: what is published begins to answer, what is rolled back answers again, no restart."""

import asyncio
import contextlib
import time
from typing import Final, Self
from uuid import uuid4

import structlog

from api.dataset import Dataset, wall, world_of
from api.fleet import Fleet
from api.state import State
from api.traffic import Split
from api.version import Version, load
from recsys.artifacts import Artifact
from recsys.errors import ConfigError, DataError, IndexUnavailable, NotReady, RecsysError, Unavailable
from recsys.index import VectorIndex, open_index
from recsys.settings import Settings

PREVIOUS: Final = "model:previous_version"
_POLL_S: Final = 0.2  # of a file
_POLL_SERVER_S: Final = 0.5  # of an alias
_RETRY_S: Final = 10.0  # what could not be loaded may have been mended; twice as long each time
_LONGEST_RETRY_S: Final = 300.0
_LOG = structlog.get_logger("api")


class Follower:
    """Loads versions and hands them to a fleet.

    Attributes:
        fleet: what answers.

    Args:
        settings: where things are.
        index: whose pointer is followed; closed at the end.
        since_ns: when the service started, by `time.monotonic_ns`: workers agree on their clock by it.
    """

    def __init__(self, settings: Settings, index: VectorIndex, since_ns: int) -> None:
        self._settings, self._index, self._since_ns = settings, index, since_ns
        self._split = None if settings.split is None else Split.parse(settings.split)
        self._shadow = settings.shadow
        self._asked = {"RECSYS_SPLIT": self._split.version} if self._split is not None else {}
        self._asked |= {"RECSYS_SHADOW": self._shadow} if self._shadow is not None else {}
        self._pointer: tuple[str | None, str | None] = (None, None)
        self._troubles: dict[str, str] = {}  # of a version, why it cannot be loaded
        self._looked: str | None = None  # what is wrong with the pointer itself
        self._retry_s, self._retry_at = _RETRY_S, time.monotonic() + _RETRY_S
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.fleet = Fleet(State(None, wall))

    @classmethod
    async def open(cls, settings: Settings, *, since_ns: int | None = None) -> Self:
        """Load what the pointer says; nothing, where nothing is published.

        Raises:
            ConfigError: RECSYS_SPLIT or RECSYS_SHADOW is malformed, or names a version that the index does not hold
                or that is of another data set.
            NotReady, ArtifactError, DataError, Unavailable: neither the live version nor the one before can be loaded;
                see `api.version.load`.
        """
        index = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
        follower: Self | None = None
        try:
            follower = cls(settings, index, time.monotonic_ns() if since_ns is None else since_ns)
            await follower._begin()
        except BaseException:
            await (index if follower is None else follower).close()
            raise
        return follower

    def start(self) -> None:
        """Follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Follow no more, and close everything; what is being loaded is loaded first, or it would stay open."""
        self._closing.set()
        if self._task is not None:
            await self._task
        try:
            await self.fleet.close()
        finally:
            await self._index.close()

    # ---------------------------------------------------------------------------------------------------------- inside
    async def _begin(self) -> None:
        await self._index.refresh()
        self._pointer = self._index.live, self._index.previous
        for setting, name in self._asked.items():
            if name not in self._pointer:
                held = " and ".join(v for v in self._pointer if v is not None) or "none"
                raise ConfigError(f"{setting} must name the live version or the one before it: {held} (got {name})")
        live = self._pointer[0]
        if live is None:
            _LOG.warning("nothing is published yet: run `recsys publish`")
            return
        serving: Version | None = None
        errors: list[Exception] = []
        for name in filter(None, self._pointer):
            try:
                serving = await self._load(name)
                break
            except Exception as error:  # noqa: BLE001 - said and, where no version can be loaded, raised
                errors.append(error)
                self._trouble(name, error)
        if serving is None:
            raise errors[0]
        await self._serve(serving)
        if self._asked:
            await self._complete()
        for setting, name in self._asked.items():
            if name in self._troubles:
                raise ConfigError(f"{setting}: {self._troubles[name]}")

    async def _follow(self) -> None:
        await self._complete()
        poll_s = _POLL_S if self._settings.qdrant_url is None else _POLL_SERVER_S
        while not await self._closes(poll_s):
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the version that serves goes on
                _LOG.error("the pointer is not followed", exc_info=error)

    async def _closes(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), within_s)
        return self._closing.is_set()

    async def _look(self) -> None:
        try:
            await self._index.refresh()
            if self._index.live is None and self._serving is not None:  # what was live cannot be nothing again
                raise IndexUnavailable("the index holds nothing any more: it was moved, or removed")
        except (Unavailable, DataError) as error:
            if self._looked is None:
                self._looked = str(error)
                _LOG.warning("the index does not say which version is live", detail=self._looked)
            return
        self._looked = None
        pointer = self._index.live, self._index.previous
        if pointer == self._pointer and not (self._troubles and time.monotonic() >= self._retry_at):
            return
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        if pointer != self._pointer:
            self._troubles.clear()
            self._retry_s = _RETRY_S
        self._pointer, self._retry_at = pointer, time.monotonic() + self._retry_s
        live, previous = pointer
        if live is not None:
            version = self.fleet.version(live) or await self._try(live)
            if version is None:  # what serves goes on, and says so
                version = self._serving
            if version is None and previous is not None:
                version = await self._try(previous)
            if version is not None:
                await self._serve(version)
            else:
                self.fleet.swap(State(None, wall, troubles=tuple(self._troubles.values())), ())
        await self._complete()

    @property
    def _serving(self) -> Version | None:
        return next(iter(self.fleet.current.versions), None)

    async def _complete(self) -> None:
        """Load the version before, those of a split and of a shadow, and let them take part."""
        serving, wanted = self._serving, dict.fromkeys(filter(None, (*self._asked.values(), *self._pointer)))
        if serving is None:
            return
        loaded = []
        for name in wanted:
            if name not in self._pointer:
                self._trouble(name, NotReady("the index does not hold it any more"))
            elif name != serving.name and (version := self.fleet.version(name) or await self._try(name)) is not None:
                loaded.append(version)
                if name in self._asked.values() and version.data is not serving.data:
                    self._trouble(name, NotReady(f"it is of another data set than {serving.name}, which serves"))
        await self._serve(serving, loaded)

    async def _serve(self, serving: Version, loaded: list[Version] | None = None) -> None:
        """Swap.

        Args:
            serving: the version that answers.
            loaded: the others; None: those that are there, so that a rollback waits for nothing.
        """
        data, before = serving.data, self._serving
        if data.events is None:
            await data.start()
        if loaded is None:
            there = map(self.fleet.version, dict.fromkeys(filter(None, (*self._asked.values(), *self._pointer))))
            loaded = [version for version in there if version is not None and version is not serving]
        data.follow(serving.artifact)
        sound = {version.name: version for version in loaded if version.name not in self._troubles}
        split = None if self._split is None else sound.get(self._split.version)
        shadow = None if self._shadow is None else sound.get(self._shadow)
        behind = serving.name != self._pointer[0]
        matters = {self._pointer[0], *self._asked.values()}  # not the version before
        state = State(
            serving.engine,
            data.clock,
            warm_user=serving.warm_user,
            events=data.events,
            known_users=serving.known_users,
            known_places=serving.known_places,
            split=None if split is None or self._split is None else self._split.to(split.engine),
            shadow=None if shadow is None else shadow.engine,
            impressions=data.impressions,
            degraded=(PREVIOUS,) if behind else (),
            troubles=tuple(said for name, said in self._troubles.items() if name in matters),
            versions=[serving, *dict.fromkeys(v for v in (split, shadow) if v is not None)],
        )
        self.fleet.swap(state, loaded)
        if before is not serving:
            _LOG.info("serving", model_version=serving.name)

    async def _try(self, name: str) -> Version | None:
        """A version; None where it cannot be loaded, and why is said."""
        try:
            return await self._load(name)
        except Exception as error:  # noqa: BLE001 - a version that cannot be loaded does not touch the one that serves
            self._trouble(name, error)
            return None

    async def _load(self, name: str) -> Version:
        version = await load(self._settings, self._index, name, self._dataset)
        self._troubles.pop(name, None)
        return version

    def _dataset(self, artifact: Artifact) -> Dataset:
        known = self.fleet.dataset(world_of(artifact))
        return known or Dataset(self._settings, artifact, uuid4().hex[:12], self._since_ns)

    def _trouble(self, name: str, error: Exception) -> None:
        said = str(error) if isinstance(error, RecsysError) else f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != (line := f"version {name} cannot be loaded: {said}"):
            _LOG.error("a version cannot be loaded", model_version=name, error=type(error).__name__, detail=said)
        self._troubles[name] = line
