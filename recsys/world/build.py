"""Make a world and write it: five parquet files and `source.json`."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing, write_json
from recsys.errors import ConfigError
from recsys.schemas import INTERACTIONS
from recsys.taxonomy import FILE
from recsys.world import interactions, seed_interactions
from recsys.world.config import WorldConfig
from recsys.world.figures import judge, picture
from recsys.world.friends import group_pairs, make_groups, make_outings, similar
from recsys.world.interactions import Events, Outings
from recsys.world.places import Places, make_places, places_table
from recsys.world.scoring import City, make_cities
from recsys.world.social import FRIENDS_FROM, co_attendance, make_edges, make_labels
from recsys.world.streams import BLOCK, blocks
from recsys.world.tally import Tally
from recsys.world.truth import Truth, write_truth
from recsys.world.users import Users, make_users, users_table

Progress = Callable[[str, int, int], None]

ROW_GROUP: Final = 131_072


@contextmanager
def _writing(path: Path, schema: pa.Schema) -> Iterator["_Writer"]:
    # Measures, moments and ids hardly repeat: no dictionaries. What is packed like this leaves little to compress: zstd
    # takes twice as long as snappy for a twentieth less.
    encodings = {f.name: "BYTE_STREAM_SPLIT" for f in schema if pa.types.is_floating(f.type)}
    packed = (f.name for f in schema if pa.types.is_timestamp(f.type) or pa.types.is_int64(f.type))
    encodings |= dict.fromkeys(packed, "DELTA_BINARY_PACKED")
    options = {"use_dictionary": [name for name in schema.names if name not in encodings], "column_encoding": encodings}
    with replacing(path) as aside, pq.ParquetWriter(aside, schema, compression="snappy", **options) as parquet:
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


def _stream_events(
    config: WorldConfig, users: Users, places: Places, outings: Outings, chunk_users: int, workers: int
) -> Iterator[tuple[int, list[Events]]]:
    """Chunks of interactions in order, `workers` of them made ahead: (users done, events of each block)."""
    cities = make_cities(config, places)
    everywhere = City.of(config, places, config.cities, np.arange(len(places)))

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


@dataclass(frozen=True)
class Made:
    """What came about: figures (counts and shares) and a picture for a page to draw; JSON values only."""

    figures: Mapping[str, Any]
    picture: Mapping[str, Any]


def generate(
    config: WorldConfig,
    out: Path,
    progress: Progress | None = None,
    *,
    chunk_users: int = 2 * BLOCK,
    workers: int = 2,
) -> Made:
    """Make a world and write `<table>.parquet` for the five tables, the truth and `source.json` into a folder.

    Args:
        config: which world.
        out: folder; `source.json` goes first and comes back last, so that what it describes is there.
        progress: called with (what, done, of) as the work goes on.
        chunk_users: users whose interactions a worker makes at a time, a multiple of 256. Changes nothing but memory.
        workers: threads. Changes nothing but the time taken.

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
    (out / FILE).unlink(missing_ok=True)  # the world's names are the default ones

    places, users = make_places(config), make_users(config)
    _write(out / "places.parquet", places_table(config, places))
    _write(out / "users.parquet", users_table(config, users))
    say("places and users", len(users), len(users))

    alike = similar(config, users, workers)
    groups = make_groups(config, users, alike)
    outings = make_outings(config, users, places, make_cities(config, places), groups)
    say("friends", len(users), len(users))

    tally = Tally(config, places, users)
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
    write_truth(out, config, labels)
    write_json(source, config.source())

    truth = Truth(config, places, users)
    positives = int(labels.compat.sum())
    figures = {
        "users": len(users),
        "places": len(places),
        **tally.figures(),
        **judge(truth, tally),
        "social_edges": len(edges.u),
        "groups": len(groups),
        "edges_met_once_share": round(float((edges.met >= 1).mean()), 4) if len(edges.u) else 0.0,
        "edges_met_twice_share": round(float((edges.met >= FRIENDS_FROM).mean()), 4) if len(edges.u) else 0.0,
        "friend_labels": len(labels.u),
        "compat_share": round(positives / max(len(labels.u), 1), 4),
        "attend_share_of_compat": round(int(labels.attend.sum()) / max(positives, 1), 4),
    }
    say("figures", 1, 1)
    return Made(figures, picture(truth, tally, edges, figures))
