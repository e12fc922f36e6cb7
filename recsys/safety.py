"""What must never be shown, kept on disk: who is kept apart from whom, and which places are hidden.

One file of JSON lines, appended to and flushed before anybody hears that it was taken, in the manner of the event log
(`recsys.events.log`): several processes may use it, each reads what the others added when the file has changed. A line
that a killed process left half written was never acknowledged, and is cut off by whoever writes next. What is known
stays known while the file cannot be found: safety closes.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from recsys.atomic import flush, locked
from recsys.errors import DataError, SafetyUnavailable

Ints = npt.NDArray[np.int64]
_FILE: Final = "safety.jsonl"
_LOCK_S: Final = 2.0


@dataclass(frozen=True)
class _Entry:
    """One decision: user `id` blocks user `other`, or place `id` is hidden; `on` False takes it back."""

    rule: Literal["block", "hide"]
    id: int
    other: int | None
    on: bool


class Safety:
    """The blocks and the hidden places of one data set. Safe for use from several threads.

    Args:
        folder: where the file is; made with the first decision.

    Raises:
        DataError: the file is damaged.
        SafetyUnavailable: the file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._mutex = threading.RLock()
        self._seen: tuple[int, int] | None = None
        self._offset, self._flushed, self._seq = 0, 0, 0
        self._blocks: dict[int, dict[int, None]] = {}
        self._apart: dict[int, set[int]] = {}
        self._hidden: set[int] = set()
        self._hidden_ids: Ints = np.empty(0, dtype=np.int64)
        self.refresh()

    # --------------------------------------------------------------------------------------------------------- reading
    def refresh(self) -> None:
        """Take notice of what other processes decided; a glance at the file where they decided nothing.

        Raises:
            DataError: the file is damaged.
            SafetyUnavailable: the file is there and cannot be read.
        """
        try:
            stat = self._path.stat()
            if (seen := (stat.st_size, stat.st_mtime_ns)) == self._seen:
                return
            if stat.st_size > self._offset:
                self._take()
            self._seen = seen
        except FileNotFoundError:
            return
        except OSError as error:
            raise SafetyUnavailable(f"{self._path} cannot be read (got {error})") from error

    def apart(self, user_id: int) -> frozenset[int]:
        """Who may not be shown to a user: whom they blocked, and who blocked them."""
        with self._mutex:
            return frozenset(self._apart.get(user_id, ()))

    def blocks(self, user_id: int) -> list[int]:
        """Whom a user blocked, in that order."""
        with self._mutex:
            return list(self._blocks.get(user_id, ()))

    def hidden(self) -> Ints:
        """(H,) ids of places that nobody may be shown, ascending."""
        return self._hidden_ids

    def is_hidden(self, place_ids: Ints) -> npt.NDArray[np.bool_]:
        """(P,) which of some places nobody may be shown."""
        hidden = self._hidden_ids
        if not len(hidden):
            return np.zeros(len(place_ids), dtype=bool)
        out: npt.NDArray[np.bool_] = (
            hidden[np.minimum(np.searchsorted(hidden, place_ids), len(hidden) - 1)] == place_ids
        )
        return out

    # --------------------------------------------------------------------------------------------------------- writing
    def block(self, user_id: int, others: Sequence[int], now: datetime, *, on: bool = True) -> None:
        """Keep a user apart from others, both ways, or (`on` False) take the user's own blocks back.

        On disk when this returns; what is so already is not written again.

        Raises:
            SafetyUnavailable: the file is held by another process, or the disk refused: ask again. What reached the
                file holds all the same, since others may have read it.
            DataError: the file is damaged, or was cut off.
        """
        self._decide([_Entry("block", user_id, other, on) for other in dict.fromkeys(others)], now)

    def hide(self, place_id: int, now: datetime, *, on: bool = True) -> None:
        """Hide a place from everybody, or (`on` False) show it again; see `block`."""
        self._decide([_Entry("hide", place_id, None, on)], now)

    # ---------------------------------------------------------------------------------------------------------- inside
    def _decide(self, entries: Sequence[_Entry], now: datetime) -> None:
        with locked(self._path.parent / ".safety.lock", _LOCK_S, SafetyUnavailable):
            try:
                self._catch_up()
                with self._mutex:  # not while the disk works: requests read under it
                    new = [entry for entry in entries if self._holds(entry) != entry.on]
                if new:
                    self._append(new, now)
                    self._take()
                    self._flushed = self._offset
            except OSError as error:
                raise SafetyUnavailable(f"{self._path} cannot be written (got {error})") from error

    def _holds(self, entry: _Entry) -> bool:
        if entry.rule == "hide":
            return entry.id in self._hidden
        return entry.other in self._blocks.get(entry.id, ())

    def _catch_up(self) -> None:
        """Under the lock: all that others wrote, on disk, without what a killed process left of a line."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < self._offset:
            raise DataError(f"{self._path} was cut off: put it back (got {size} bytes of {self._offset})")
        if size > self._offset:
            self._take()
        if self._offset > self._flushed:
            flush(self._path)  # whoever wrote it may have been killed before they did
            self._flushed = self._offset
        if size > self._offset:
            os.truncate(self._path, self._offset)

    def _append(self, entries: Sequence[_Entry], now: datetime) -> None:
        lines = [
            json.dumps({"seq": self._seq + i, "at": now.isoformat(), **vars(entry)}) + "\n"
            for i, entry in enumerate(entries, start=1)
        ]
        fresh = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if fresh:
                for folder in (self._path.parent, self._path.parent.parent, self._path.parent.parent.parent):
                    flush(folder)
            rest = memoryview("".join(lines).encode())
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _take(self) -> None:
        """Read whole lines that are not known yet."""
        with self._mutex, self._path.open("rb") as file:
            file.seek(self._offset)
            self._learn(file.read())

    def _learn(self, data: bytes) -> None:
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            try:
                said = json.loads(line)
                entry = _Entry(said["rule"], int(said["id"]), said["other"], bool(said["on"]))
                good = said["seq"] == self._seq + 1 and entry.rule in ("block", "hide")
            except (ValueError, KeyError, TypeError):
                good = False
            if not good:
                raise DataError(f"{self._path} is damaged at byte {self._offset} (got {line[:80]!r})")
            self._apply(entry)
            self._seq, self._offset = self._seq + 1, self._offset + len(line)
        self._hidden_ids = np.array(sorted(self._hidden), dtype=np.int64)

    def _apply(self, entry: _Entry) -> None:
        if entry.other is None:
            (self._hidden.add if entry.on else self._hidden.discard)(entry.id)
            return
        mine = self._blocks.setdefault(entry.id, {})
        if entry.on:
            mine[entry.other] = None
        else:
            mine.pop(entry.other, None)
        apart = entry.on or entry.id in self._blocks.get(entry.other, ())
        for one, another in ((entry.id, entry.other), (entry.other, entry.id)):
            (self._apart.setdefault(one, set()).add if apart else self._apart.get(one, set()).discard)(another)
