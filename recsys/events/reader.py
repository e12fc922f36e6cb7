"""The log, read in order from a position: a line at a time, never all of it in memory."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from recsys.errors import DataError
from recsys.events.event import Event

_NEAR: Final = 1 << 16  # bytes that are looked through a line at a time
SEGMENTS: Final = "[0-9]*.jsonl"


def segment(folder: Path, first: int) -> Path:
    """The file that begins with a position."""
    return folder / f"{first:012d}.jsonl"


def last_position(folder: Path) -> int:
    """Position of the last event of a log, 0 for none; only looks: no lock is taken, and no half-written line cut off.

    Raises:
        DataError: the last whole line is no event.
    """
    for path in sorted(folder.glob(SEGMENTS), reverse=True):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _NEAR))
            lines = file.read().split(b"\n")
        whole = [line for line in lines[:-1] if line]
        if whole:
            return Event.read(whole[-1]).seq
    return 0


class Reader:
    """Reads events by position; going on where it stopped costs no search. For one thread at a time.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at: tuple[int, Path, int] | None = None  # position and, in a file, the end of its line

    def after(self, seq: int, upto: int) -> Iterator[Event]:
        """Events in order.

        Args:
            seq: the first is the one after this position.
            upto: the last one, which must be in the log.

        Raises:
            DataError: one is missing or damaged.
        """
        if seq >= upto:
            return
        path, offset = self._find(seq)
        while True:
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    event = Event.read(line)
                    if event.seq != seq + 1:
                        raise DataError(f"{path.name} must go on with event {seq + 1} (got {event.seq})")
                    seq, offset = event.seq, offset + len(line)
                    self._at = seq, path, offset
                    yield event
                    if seq == upto:
                        return
            path, offset = segment(self._folder, seq + 1), 0
            if not path.exists():
                raise DataError(f"the event log ends early: there must be {upto} events (got {seq})")

    def _find(self, seq: int) -> tuple[Path, int]:
        """Where the line after a position begins."""
        if self._at is not None and self._at[0] == seq and self._at[1].exists():
            return self._at[1:]
        files = [path for path in sorted(self._folder.glob(SEGMENTS)) if int(path.stem) <= seq + 1]
        if not files:
            raise DataError(f"event {seq + 1} is not in the log any more (looked in {self._folder})")
        path = files[-1]
        low, high = 0, path.stat().st_size  # the line at `low` is not after the wanted one
        with path.open("rb") as file:
            while high - low > _NEAR:
                file.seek((low + high) // 2)
                file.readline()
                begin = file.tell()
                if begin >= high or _position(file.readline()) > seq + 1:
                    high = (low + high) // 2
                else:
                    low = begin
            file.seek(low)
            for line in file:
                if _position(line) > seq:
                    break
                low += len(line)
        return path, low


def _position(line: bytes) -> int:
    """A line's position; one that is being written comes after all others."""
    return Event.read(line).seq if line.endswith(b"\n") else sys.maxsize
