"""What was shown to whom, by which version: rows on disk that join with what people did later.

A row is an item of an answer, and of a group's answer one of each member. Answers wait in memory for a thread that
writes them every few seconds: a full queue drops and counts, it never makes an answer wait. A file holds what one
process showed, is written anew with every batch until it is full, and is whole at any moment (`recsys.atomic`).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing

Kind = Literal["place", "person", "group"]
Arm = Literal["live", "split", "outside", "shadow"]

SCHEMA: Final = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False),  # by the clock that events are dated with
        pa.field("kind", pa.string(), nullable=False),
        pa.field("user_id", pa.int64()),  # null: somebody without an id
        pa.field("item_id", pa.int64(), nullable=False),  # a place; of kind person, a user
        pa.field("position", pa.int32(), nullable=False),  # from 1
        pa.field("score", pa.float32(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("city_id", pa.int64(), nullable=False),
        pa.field("degraded", pa.list_(pa.string()), nullable=False),
    ]
)
MOST_WAITING: Final = 200_000  # rows
_EVERY_S: Final = 5.0
_ROWS: Final = 100_000  # of a file


@dataclass(frozen=True, slots=True)
class Impression:
    """One answer.

    Attributes:
        users: whom it was for; None: somebody without an id. Several: a group.
        items: ids and scores, best first.
        arm: `live`; of those who take part in a split `live` or `split`, the others are `outside`; `shadow`: nobody
            saw it.
    """

    request_id: str
    at: datetime
    kind: Kind
    users: tuple[int | None, ...]
    items: tuple[tuple[int, float], ...]
    model_version: str
    arm: Arm
    city_id: int
    degraded: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many rows it makes."""
        return len(self.users) * len(self.items)


class Impressions:
    """Takes answers of one process and writes them. `offer` is for any thread; the rest for whoever made it.

    Attributes:
        dropped: answers that were not taken since too many waited, or that the disk refused.
        written: rows on disk.

    Args:
        folder: of the data set; made with the first file.
        writer: names this process's files; nobody else may use it, ever.
        keep: files that were last written before this are removed.
        wall: the moment by the server's clock.
        every_s: how long an answer waits to be written.
        most_waiting: rows.
        rows: of a file, about.
        on_trouble: called with what keeps answers from being written, when that changes, and with None afterwards.
    """

    def __init__(
        self, folder: Path, writer: str, *, keep: timedelta, wall: Callable[[], datetime], every_s: float = _EVERY_S,
        most_waiting: int = MOST_WAITING, rows: int = _ROWS,
        on_trouble: Callable[[OSError | None], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._folder, self._writer, self._keep, self._wall = folder, writer, keep, wall
        self._every_s, self._most_waiting, self._rows, self._on_trouble = every_s, most_waiting, rows, on_trouble
        self.dropped = self.written = 0
        self._lock = threading.Lock()
        self._queue: list[Impression] = []
        self._waiting = 0  # rows
        self._file: list[pa.Table] = []  # what the file that grows holds
        self._number = 0
        self._trouble = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        self._thread.start()

    def offer(self, impression: Impression) -> bool:
        """Take an answer, unless too many wait; never waits itself."""
        with self._lock:
            if self._stop.is_set() or self._waiting + len(impression) > self._most_waiting:
                self.dropped += 1
                return False
            self._queue.append(impression)
            self._waiting += len(impression)
        return True

    def close(self) -> None:
        """Take no more; returns when all that was taken is on disk."""
        with self._lock:
            self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._expire()
        while not self._stop.wait(self._every_s):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            batch, self._queue, self._waiting = self._queue, [], 0
        table = to_table(batch)
        if not len(table):
            return
        try:
            with replacing(self._folder / f"{self._writer}-{self._number:06d}.parquet") as aside:
                pq.write_table(pa.concat_tables([*self._file, table]), aside, compression="zstd")
        except OSError as error:  # the disk is full, or gone: the next ones are tried again
            with self._lock:
                self.dropped += len(batch)
            self._said(error)
            return
        self._said(None)
        self.written += len(table)
        self._file.append(table)
        if sum(map(len, self._file)) >= self._rows:
            self._file = []
            self._number += 1
            self._expire()

    def _expire(self) -> None:
        oldest = (self._wall() - self._keep).timestamp()
        for path in self._folder.glob("[!.]*.parquet"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:  # another worker was quicker
                continue

    def _said(self, error: OSError | None) -> None:
        if (error is not None) != self._trouble:
            self._trouble = error is not None
            self._on_trouble(error)


def to_table(impressions: Sequence[Impression]) -> pa.Table:
    """Answers → a row an item and user, in order."""
    rows = [
        (said, user, position, item, score)
        for said in impressions
        for user in said.users
        for position, (item, score) in enumerate(said.items, start=1)
    ]
    columns: dict[str, list[Any]] = {
        "request_id": [said.request_id for said, *_ in rows],
        "at": [said.at for said, *_ in rows],
        "kind": [said.kind for said, *_ in rows],
        "user_id": [user for _, user, *_ in rows],
        "item_id": [item for *_, item, _ in rows],
        "position": [position for _, _, position, *_ in rows],
        "score": [score for *_, score in rows],
        "model_version": [said.model_version for said, *_ in rows],
        "arm": [said.arm for said, *_ in rows],
        "city_id": [said.city_id for said, *_ in rows],
        "degraded": [list(said.degraded) for said, *_ in rows],
    }
    return pa.table(columns, schema=SCHEMA)
