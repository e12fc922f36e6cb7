"""What the console's endpoints share."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow.parquet as pq
from fastapi import Depends, Request

from api.dataset import world_of
from api.state import State
from recsys.artifacts import Artifact
from recsys.directory import Directory
from recsys.errors import JobRefused
from recsys.settings import Settings

ORACLE: Final = "oracle.parquet"


class Desk:
    """One app's. Where things are, and the directory of the data set that serves."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asking = Turns("another query is being answered, and others wait")  # of the lake
        self.operating = Turns("another command that changes what serves is at work", most=1)
        self.answers: dict[str, tuple[Any, Any]] = {}  # to queries, each with what it was read from
        self._directories: dict[str, Directory] = {}
        self._oracles: dict[str, OracleLists] = {}

    def oracle(self, state: State) -> "OracleLists":
        """Of the data set of a version."""
        world = _world(state)
        return self._oracles.setdefault(world, OracleLists(self.settings.reports / ORACLE, world))

    def directory(self, state: State) -> Directory:
        """Names and positions of the data set of a version."""
        world = _world(state)
        return self._directories.setdefault(world, Directory(self.settings.lake, world))


class Turns:
    """One at a time; few may wait, since who waits takes the place of a request that could be answered.

    Args:
        busy: what is said to more.
        most: at work and waiting.
    """

    def __init__(self, busy: str, most: int = 3) -> None:
        self._busy, self._most = busy, most
        self._lock, self._there = asyncio.Lock(), 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for one's turn.

        Raises:
            JobRefused: too many wait already.
        """
        if self._there >= self._most:
            raise JobRefused(self._busy)
        self._there += 1
        try:
            async with self._lock:
                yield
        finally:
            self._there -= 1


class OracleLists:
    """The lists that `recsys evaluate` wrote, read again when they change. Safe for use from several threads.

    Args:
        path: the file; it need not exist.
        world: the data set that is asked about.
    """

    def __init__(self, path: Path, world: str) -> None:
        self._path, self._world = path, world
        self._lock = threading.Lock()
        self._read: tuple[int, Mapping[tuple[int, int | None], list[int]]] = (0, {})

    def lists(self) -> Mapping[tuple[int, int | None], list[int]]:
        """Ids of places, best first, by user and time slot (None: not said); blocks where the file has changed."""
        with self._lock:
            try:
                changed = self._path.stat().st_mtime_ns
                if changed != self._read[0]:
                    table = pq.read_table(self._path)
                    mine = (table.schema.metadata or {}).get(b"world") == self._world.encode()
                    columns = (table[name].to_pylist() for name in ("user_id", "time_slot", "place_ids"))
                    lists = {(u, s): p for u, s, p in zip(*columns, strict=True)} if mine else {}
                    self._read = changed, lists
            except FileNotFoundError:
                return {}
            return self._read[1]


def _world(state: State) -> str:
    artifact = artifact_of(state)
    return "" if artifact is None else world_of(artifact)


def artifact_of(state: State) -> Artifact | None:
    """The artifact of the version that serves; None: its parts were made by hand, or none serves."""
    return next((version.artifact for version in state.versions if version.engine is state.engine), None)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
