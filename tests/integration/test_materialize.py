"""The job end to end on a server of its own: continued, late rows, live events, a server that dies half-way."""

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import materialize, verify
from jobs.report import Report
from recsys.dataset import world_of
from recsys.errors import ConfigError, FeatureStoreUnavailable, NotReady
from recsys.events import Event, EventLog
from recsys.features import FeatureStore, LiveStates
from recsys.lake import Lake
from recsys.services import running, start, stop
from recsys.settings import Settings
from tests.conftest import ROOT, free_port

DAY = timedelta(days=1)


@pytest.fixture
def settings(world_dir: Path, tmp_path: Path) -> Iterator[Settings]:
    shutil.copytree(world_dir, tmp_path / "data" / "lake")
    url = f"redis://127.0.0.1:{free_port()}/0"
    made = Settings(data_dir=tmp_path / "data", redis_url=url, feature_repo=ROOT / "feature_repo")
    start(url, made.redis)
    yield made
    stop(url, made.redis)


def run(settings: Settings, **options: bool) -> dict:
    report = Report("materialize", settings.reports, Console(quiet=True))
    materialize.run(settings, report, **options)
    return report.figures


def proof(settings: Settings, **options: bool) -> dict:
    report = Report("verify", settings.reports, Console(quiet=True))
    verify.run(settings, report, samples=120, **options)
    return report.figures


def keep(settings: Settings, rows: pa.Table) -> pa.Table:
    """Lay down other interactions; return what was there."""
    path = settings.lake / "interactions.parquet"
    there = pq.read_table(path)
    path.unlink()
    pq.write_table(rows, path)
    return there


def until(table: pa.Table, moment: datetime) -> pa.Table:
    return table.filter(pc.less(table["timestamp"], pa.scalar(moment, table.schema.field("timestamp").type)))


def horizon(settings: Settings) -> tuple[datetime, datetime]:
    with Lake(settings.data_dir) as lake:
        return lake.horizon()


def test_a_day_more_and_a_late_row_are_online_after_the_next_run(settings: Settings):
    """And what is online then is what a run from the beginning brings: the proof agrees on every view."""
    _, end = horizon(settings)
    whole = pq.read_table(settings.lake / "interactions.parquet")
    moments = np.array([m.timestamp() for m in whole["timestamp"].to_pylist()])
    late = int(np.flatnonzero((moments >= (end - 3 * DAY).timestamp()) & (moments < (end - 2 * DAY).timestamp()))[0])
    early = until(whole, end - DAY)
    position = late  # rows are not in order of time: it is found again by its moment
    missing = early.filter(pc.not_equal(early["timestamp"], whole["timestamp"][position]))
    assert len(missing) == len(early) - 1
    keep(settings, missing)
    assert run(settings)["made"].startswith("all")
    keep(settings, whole)
    behind = proof(settings, parity=False)
    assert behind["behind"] == f"rows after {end - 3 * DAY:%Y-%m-%d}"
    assert behind["severity"] == "critical", "a training row does not know the late event"
    figures = run(settings)
    assert figures["made"] == f"rows after {end - 3 * DAY:%Y-%m-%d}"
    found = proof(settings)
    assert found["severity"] == "ok"
    assert found["behind"] is None
    assert {view: one["off"] for view, one in found["parity"].items()} == dict.fromkeys(found["parity"], 0)
    assert run(settings).get("made") is None, "nothing changed"


def test_what_is_off_is_found_and_repaired(settings: Settings):
    run(settings)
    store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
    live, now = LiveStates(store), horizon(settings)[1]
    wanted = live.wanted("place_activity", place_id=np.arange(120))
    (states,) = live.read([wanted])
    spoilt = [np.concatenate([s[:4], s[4:] + 1]) for s in states if s is not None]
    live.write([(wanted, spoilt, np.zeros(120, dtype=np.int64))], end=now, wall=now)
    found = proof(settings, pit=False)
    assert found["severity"] == "critical"
    assert found["parity"]["place_activity"]["off"] > 100
    assert found["parity"]["user_activity"]["off"] == 0
    assert proof(settings, pit=False, repair=True)["severity"] == "ok"
    store.close()


def test_live_events_pass_the_gate_and_what_is_online_stays_the_same(settings: Settings):
    run(settings)
    _, end = horizon(settings)
    with Lake(settings.data_dir) as lake:
        log = EventLog(settings.events / world_of(lake.source()))
    hours = range(30)
    told = [
        {"id": f"e{i}", "kind": "attend" if i % 3 else "save", "user_id": i % 20, "place_id": i % 7,
         "moment": end + i * timedelta(hours=1), "dwell_s": None, "now": end + DAY * 2}
        for i in hours
    ]  # fmt: skip
    begun = [Event.made(**event) for event in told]
    log.append(begun)
    assert run(settings)["events"]["accepted"] == 30
    with Lake(settings.data_dir) as lake:
        assert (
            lake.query('SELECT count(*) AS n FROM interactions WHERE "timestamp" >= $end', {"end": end})["n"][0].as_py()
            == 30
        )
    found = proof(settings, pit=False)
    assert found["severity"] == "ok", found["parity"]
    assert found["mark"]["folded"] == 30
    mark = found["mark"]
    with pytest.raises(ConfigError, match=r"--until .* would take 6 live events from the online store, up to .* 05:00"):
        run(settings, until=end + DAY)
    with pytest.raises(ConfigError, match="would take 30 live events"):
        run(settings, until=end)
    assert proof(settings, pit=False)["mark"] == mark, "nothing was changed"
    log.append(
        [Event.made(id="x", kind="view", user_id=10**9, place_id=3, moment=end, dwell_s=None, now=end + DAY * 2)]
    )
    figures = run(settings)
    assert figures["events"]["rejected"] == 1
    rejected = pq.read_table(settings.quarantine / "events.parquet").to_pylist()
    assert "user_id is among the accepted users" in rejected[0]["reason"]


def test_a_server_that_dies_half_way_is_named_and_the_next_run_completes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    fill, views = LiveStates.fill, []

    def dying(self: LiveStates, view: str, *args: object, **kwargs: object) -> int:
        views.append(view)
        if view == "user_place":
            server = running(settings.redis_url, settings.redis)
            assert server is not None
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            os.waitpid(server.pid, 0)
        return fill(self, view, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveStates, "fill", dying)
    with pytest.raises(FeatureStoreUnavailable, match=r"did not answer: `recsys up`"):
        run(settings)
    monkeypatch.undo()
    start(settings.redis_url, settings.redis)
    figures = run(settings)
    assert "made" not in figures, "the views were whole already"
    assert figures["keys_online"]["user_place"]
    assert proof(settings, pit=False)["severity"] == "ok"


def test_apply_twice_changes_nothing(settings: Settings):
    store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
    first = store.apply(), store.schema()
    registry = settings.data_dir / "registry.db"
    at = registry.stat().st_mtime_ns
    assert (store.apply(), store.schema()) == first
    assert registry.stat().st_mtime_ns >= at
    assert first[0] == {"entities": 4, "views": 7, "services": 8}
    store.close()


def test_before_anything_was_materialized_the_proof_says_so(settings: Settings):
    with pytest.raises(NotReady, match="recsys materialize"):
        proof(settings)
    with Lake(settings.data_dir) as lake, pytest.raises(NotReady, match=r"user_recent is not there yet.*materialize"):
        lake.query("SELECT * FROM user_recent")
