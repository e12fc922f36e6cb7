"""Make a world and write it: five parquet files and `source.json`."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing, write_json
from recsys.constants import POSITIVE_RATING
from recsys.errors import ConfigError
from recsys.schemas import INTERACTIONS
from recsys.world import interactions, seed_interactions
from recsys.world.config import WorldConfig
from recsys.world.friends import group_pairs, make_groups, make_outings, similar
from recsys.world.interactions import Events, Outings
from recsys.world.places import Ints, Places, make_places, places_table
from recsys.world.scoring import make_cities
from recsys.world.social import FRIENDS_FROM, co_attendance, make_edges, make_labels
from recsys.world.streams import BLOCK, blocks
from recsys.world.users import Users, make_users, users_table

Progress = Callable[[str, int, int], None]

ROW_GROUP: Final = 131_072


@contextmanager
def _writing(path: Path, schema: pa.Schema) -> Iterator["_Writer"]:
    with replacing(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as parquet:
        writer = _Writer(parquet, schema)
        yield writer
        writer.flush()


class _Writer:
    """Row groups of one size, whatever the size of what comes in: the bytes do not depend on the chunks."""

    def __init__(self, parquet: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._parquet = parquet
        self._waiting = schema.empty_table()

    def write(self, table: pa.Table) -> None:
        """Take rows in; whole row groups go out."""
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= ROW_GROUP:
            self._parquet.write_table(self._waiting.slice(0, ROW_GROUP).combine_chunks(), ROW_GROUP)
            self._waiting = self._waiting.slice(ROW_GROUP)

    def flush(self) -> None:
        """Write the rest."""
        if self._waiting.num_rows:
            self._parquet.write_table(self._waiting.combine_chunks(), ROW_GROUP)


def _write(path: Path, table: pa.Table) -> None:
    with _writing(path, table.schema) as writer:
        writer.write(table)


def _events_table(events: Events) -> pa.Table:
    time_of_day, day_of_week = interactions.buckets(events.moment)
    columns = (
        events.user, events.place, events.dwell, events.likes, events.saves, events.shares, events.attended,
        events.rating, events.moment, time_of_day.astype(np.int32), day_of_week.astype(np.int32),
    )  # fmt: skip
    schema = INTERACTIONS.arrow
    return pa.Table.from_arrays([pa.array(c).cast(f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


class _Tally:
    """What is counted while interactions stream by, and the attendances that later stages need."""

    def __init__(self, places: Places, users: Users) -> None:
        self._city_of_place, self._city_of_user = places.city, users.city
        self.visits = np.zeros(len(places), dtype=np.int64)
        self.rows = self.positives = self.repeats = self.away = 0
        self._attended: list[tuple[Ints, Ints, Ints]] = []

    def add(self, events: Events) -> None:
        """Count a block, in which a user's events are complete."""
        self.rows += len(events)
        self.visits += np.bincount(events.place, minlength=len(self.visits))
        self.positives += int((events.rating >= POSITIVE_RATING).sum())
        self.repeats += len(events) - len(np.unique(events.user * len(self.visits) + events.place))
        self.away += int((self._city_of_place[events.place] != self._city_of_user[events.user]).sum())
        came = events.attended
        self._attended.append((events.user[came], events.place[came], events.moment[came]))

    @property
    def attended(self) -> tuple[Ints, Ints, Ints]:
        """User, place and moment of every attendance."""
        user, place, moment = (np.concatenate(a) for a in zip(*self._attended, strict=True))
        return user, place, moment

    def figures(self) -> dict[str, Any]:
        """Shares of the interactions."""
        rows = max(self.rows, 1)
        ordered = np.sort(self.visits)
        ranks = np.arange(1, len(ordered) + 1)
        gini = (2 * (ranks * ordered).sum() / (len(ordered) * rows)) - (len(ordered) + 1) / len(ordered)
        return {
            "interactions": self.rows,
            "gini_over_places": round(float(gini), 4),
            "positives_share": round(self.positives / rows, 4),
            "attended_share": round(len(self.attended[0]) / rows, 4),
            "repeat_share": round(self.repeats / rows, 4),
            "away_share": round(self.away / rows, 4),
        }


def _stream_events(
    config: WorldConfig, users: Users, places: Places, outings: Outings, chunk_users: int, workers: int
) -> Iterator[tuple[int, list[Events]]]:
    """Chunks of interactions in order, `workers` of them made ahead: (users done, events of each block)."""
    cities = make_cities(config, places)
    everywhere = make_cities(config, replace(places, city=np.zeros_like(places.city)))[0]

    def make(start: int, stop: int) -> list[Events]:
        events = []
        for low in range(start, stop, BLOCK):
            block, high = low // BLOCK, min(low + BLOCK, stop)
            if config.preset == "seed":
                made = seed_interactions.block_events(config, users, cities, everywhere, block, low, high)
            else:
                made = interactions.block_events(config, users, places, cities, outings, block, low, high)
            events.append(made)
        return events

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, Future[list[Events]]]] = deque()
        for start, stop in blocks(len(users), chunk_users):
            ahead.append((stop, pool.submit(make, start, stop)))
            if len(ahead) > workers:
                done, future = ahead.popleft()
                yield done, future.result()
        while ahead:
            done, future = ahead.popleft()
            yield done, future.result()


def generate(
    config: WorldConfig,
    out: Path,
    progress: Progress | None = None,
    *,
    chunk_users: int = 2 * BLOCK,
    workers: int = 2,
) -> dict[str, Any]:
    """Make a world and write `<table>.parquet` for the five tables and `source.json` into a folder.

    Args:
        config: which world.
        out: folder; `source.json` goes first and comes back last, so that what it describes is there.
        progress: called with (what, done, of) as the work goes on.
        chunk_users: users whose interactions a worker makes at a time, a multiple of 256. Changes nothing but memory.
        workers: threads. Changes nothing but the time taken.

    Returns:
        Figures: counts and shares, JSON values only.

    Raises:
        ConfigError: `chunk_users` or `workers` is out of its range.
    """
    if chunk_users < BLOCK or chunk_users % BLOCK:
        raise ConfigError(f"chunk_users must be a positive multiple of {BLOCK} (got {chunk_users})")
    if workers < 1:
        raise ConfigError(f"workers must be >= 1 (got {workers})")

    def say(what: str, done: int, of: int) -> None:
        if progress:
            progress(what, done, of)

    source = out / "source.json"
    source.unlink(missing_ok=True)

    places, users = make_places(config), make_users(config)
    _write(out / "places.parquet", places_table(config, places))
    _write(out / "users.parquet", users_table(config, users))
    say("places and users", len(users), len(users))

    alike = similar(config, users)
    groups = make_groups(config, users, alike)
    outings = make_outings(config, users, places, make_cities(config, places), groups)
    say("friends", len(users), len(users))

    tally = _Tally(places, users)
    with _writing(out / "interactions.parquet", INTERACTIONS.arrow) as writer:
        for done, made in _stream_events(config, users, places, outings, chunk_users, workers):
            for events in made:
                tally.add(events)
                writer.write(_events_table(events))
            say("interactions", done, len(users))

    met = co_attendance(*tally.attended, len(users))
    edges = make_edges(config, users, alike, group_pairs(groups), met)
    labels = make_labels(config, users, edges, met)
    _write(out / "user_user_edges.parquet", edges.table(users))
    _write(out / "friend_labels.parquet", labels.table())
    say("social", len(users), len(users))
    write_json(source, config.source())

    positives = int(labels.compat.sum())
    return {
        "users": len(users),
        "places": len(places),
        **tally.figures(),
        "social_edges": len(edges.u),
        "groups": len(groups),
        "edges_met_once_share": round(float((edges.met >= 1).mean()), 4) if len(edges.u) else 0.0,
        "edges_met_twice_share": round(float((edges.met >= FRIENDS_FROM).mean()), 4) if len(edges.u) else 0.0,
        "friend_labels": len(labels.u),
        "compat_share": round(positives / max(len(labels.u), 1), 4),
        "attend_share_of_compat": round(int(labels.attend.sum()) / max(positives, 1), 4),
    }
