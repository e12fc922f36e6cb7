"""What the API was told, in order: appended and flushed to disk before anybody hears that it was taken.

JSON lines in files that are named after the position of their first event. Several processes may use one log: who
holds its lock first reads what the others added. A line that a killed process left half written was never acknowledged,
and is cut off by whoever comes next.
"""

import contextlib
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Final

from recsys.atomic import flush, locked
from recsys.errors import DataError, EventLogUnavailable
from recsys.events.event import Event
from recsys.events.reader import SEGMENTS, Reader, segment

REMEMBERED: Final = 1_000_000  # events: an id that is sent again within so many counts once
_SEGMENT_BYTES: Final = 64 << 20
_GENERATIONS: Final = 4
_MOMENTS: Final = 100_000
_sync: Final = getattr(os, "fdatasync", os.fsync)  # not everywhere
_LINE: Final = re.compile(
    rb'\{"seq":(\d+),"id":("(?:[^"\\\n]|\\.)*"),"kind":"[a-z]+",'
    rb'"user_id":(\d+),"place_id":(\d+),"at_us":(-?\d+),[^\n]*\}\n'
)


class EventLog:
    """An append-only log.

    Attributes:
        folder: where it is; made when the first lock is taken.
        last: position of the last event that is known to be on disk.
        latest_us: the latest moment among the events remembered; 0 without one.

    Args:
        segment_bytes: a file is continued up to this size.
        remembered: events whose ids are remembered, at least.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = _SEGMENT_BYTES, remembered: int = REMEMBERED) -> None:
        self.folder = folder
        self._segment_bytes, self._remembered = segment_bytes, remembered
        self.last, self.latest_us = 0, 0
        self._forget()

    # ------------------------------------------------------------------------------------------------------------ locks
    @contextlib.contextmanager
    def appending(self, timeout_s: float = 2.0) -> Iterator[None]:
        """Hold the log, up to date with what other processes added.

        Raises:
            EventLogUnavailable: another process holds it for longer than this.
            DataError: a file is damaged.
        """
        with locked(self.folder / ".append.lock", timeout_s, EventLogUnavailable):
            self._catch_up()
            yield

    @contextlib.contextmanager
    def folding(self, timeout_s: float = 60.0) -> Iterator[None]:
        """Hold what the events are folded into: only who does changes states online.

        Raises:
            EventLogUnavailable: another process holds it for longer than this.
        """
        with locked(self.folder / ".fold.lock", timeout_s, EventLogUnavailable):
            yield

    # ----------------------------------------------------------------------------------------------------------- events
    def refresh(self) -> int:
        """Take notice of what is there; the position of the last event."""
        if self.folder.exists():
            with self.appending():
                pass
        return self.last

    def append(self, events: Sequence[Event], timeout_s: float = 2.0) -> list[bool]:
        """Write what is new and flush it to disk.

        An event at the very moment of another one of its user and place is moved by a microsecond: these three are the
        key of the table that it becomes a row of.

        Args:
            events: without positions; the log gives them.
            timeout_s: how long to wait for other processes.

        Returns:
            Of each, whether it is new; False: its id was there already.

        Raises:
            EventLogUnavailable: the log is held, or the disk refused; nothing was taken.
            DataError: a file is damaged.
        """
        with self.appending(timeout_s):
            seq, lines, new, moments, latest = self.last, list[str](), dict[int, None](), list[int](), self.latest_us
            taken = []
            for event in events:
                name = json.dumps(event.id)
                digest = _digest(name.encode())
                taken.append(digest not in new and not any(digest in ids for ids in self._ids))
                if not taken[-1]:
                    continue
                seq, at_us = seq + 1, event.at_us
                while (moment := hash((event.user_id, event.place_id, at_us))) in self._moments:
                    at_us += 1
                self._moments[moment] = None
                moments.append(moment)
                latest = max(latest, at_us)
                new[digest] = None
                lines.append(
                    f'{{"seq":{seq},"id":{name},"kind":"{event.kind}","user_id":{event.user_id},'
                    f'"place_id":{event.place_id},"at_us":{at_us},"received_us":{event.received_us},'
                    f'"dwell_s":{event.dwell_s!r},"time_of_day":{event.time_of_day},'
                    f'"day_of_week":{event.day_of_week}}}\n'
                )
            if lines:
                try:
                    self._write("".join(lines).encode())
                except OSError as error:
                    raise EventLogUnavailable(f"{self.folder} cannot be written (got {error})") from error
                self.last, self.latest_us = seq, latest
                self._remember(new)
        return taken

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events after a position up to the last one that is known, in order; see `refresh`."""
        return Reader(self.folder).after(after, self.last)

    # ----------------------------------------------------------------------------------------------------------- inside
    def _forget(self) -> None:
        self._path: Path | None = None
        self._size = 0
        self._ids: deque[set[int]] = deque([set()])
        self._moments: dict[int, None] = {}
        self.last, self.latest_us = 0, 0

    def _remember(self, digests: dict[int, None]) -> None:
        self._ids[-1].update(digests)
        if len(self._ids[-1]) * _GENERATIONS >= self._remembered:
            self._ids.append(set())
            if len(self._ids) > _GENERATIONS + 1:
                self._ids.popleft()
        if len(self._moments) > 2 * _MOMENTS:
            self._moments = dict.fromkeys(list(self._moments)[-_MOMENTS:])

    def _write(self, block: bytes) -> None:
        path, size = self._path, self._size
        if fresh := path is None or size >= self._segment_bytes:
            path, size = segment(self.folder, self.last + 1), 0
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._path, self._size = path, size
        try:
            if fresh:
                flush(self.folder)
                flush(self.folder.parent)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            _sync(descriptor)
        except OSError:
            try:
                os.ftruncate(descriptor, size)
            except OSError:
                self._forget()  # what of it is on disk, the next one to come will see there
            raise
        finally:
            os.close(descriptor)
        self._size += len(block)

    def _catch_up(self) -> None:
        files = sorted(self.folder.glob(SEGMENTS))
        if self._path is not None and (self._path not in files or self._path.stat().st_size < self._size):
            self._forget()  # another log stands in its place
        if self._path is None:
            far = int(files[-1].stem) - self._remembered if files else 0
            wanted = [a for a, b in pairwise(files) if int(b.stem) > far] + files[-1:]
            self.last = int(wanted[0].stem) - 1 if wanted else 0
        else:
            wanted = files[files.index(self._path) :]
        for path in wanted:
            self._take(path, self._size if path == self._path else 0, newest=path == files[-1])

    def _take(self, path: Path, offset: int, *, newest: bool) -> None:
        """Read lines that are not known yet; what a killed process left at the end of the newest file is cut off."""
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        if not offset and int(path.stem) != self.last + 1:
            raise DataError(f"{self.folder}: {segment(self.folder, self.last + 1).name} must be next (got {path.name})")
        end, ids = 0, dict[int, None]()
        for line in _LINE.finditer(data):
            seq, name, user, place, at_us = line.groups()
            if line.start() != end or int(seq) != self.last + 1:
                break
            end, self.last, self.latest_us = line.end(), self.last + 1, max(self.latest_us, int(at_us))
            ids[_digest(name)] = None
            self._moments[hash((int(user), int(place), int(at_us)))] = None
            if len(ids) * _GENERATIONS >= self._remembered:
                self._remember(ids)
                ids = {}
        self._remember(ids)
        if end < len(data):
            if not newest or _LINE.search(data, end):
                raise DataError(f"{path} is damaged at byte {offset + end} (got {data[end : end + 80]!r})")
            os.truncate(path, offset + end)
        if data:
            flush(path)  # whoever wrote it may have been killed before they did
        self._path, self._size = path, offset + end


def _digest(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")
