"""The gate against last time and against thresholds, what it says of it to a scheduler, and judged feature views."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from expectations import VIEW_SUITES, Bounds, drift
from jobs import materialize, quality, validate
from jobs.cli import app
from jobs.report import Report
from recsys.aggregates import VIEWS
from recsys.errors import GateFailed
from recsys.features import FeatureStore, LiveStates
from recsys.lake import Lake
from recsys.quality import check
from recsys.schemas import INTERACTIONS, TABLES
from recsys.settings import ROOT, Settings
from recsys.world import WorldConfig, generate
from tests.conftest import Filled

Change = Callable[[pa.Table], pa.Table]
CRITICAL_DRIFT = r"distribution moved by at most 0\.4 does not hold \(got .*`recsys validate --accept-drift`"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    generate(WorldConfig(users=400, places=300), out, workers=1)
    return out


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Path:
    """A data folder in which that world was accepted."""
    land(world, tmp_path)
    gate(tmp_path)
    return tmp_path


def land(world: Path, data_dir: Path, **changes: Change) -> None:
    (data_dir / "landing").mkdir(exist_ok=True)
    for name in TABLES:
        change = changes.get(name, lambda t: t)
        pq.write_table(change(pq.read_table(world / f"{name}.parquet")), data_dir / "landing" / f"{name}.parquet")
    (data_dir / "landing/source.json").write_bytes((world / "source.json").read_bytes())


def gate(data_dir: Path, *, accept_drift: bool = False, now: datetime | None = None) -> dict[str, Any]:
    settings = Settings(data_dir=data_dir, now=now)
    report = Report("validate", settings.reports, Console(quiet=True))
    validate.run(settings, report, accept_drift=accept_drift)
    return report.figures


def said(data_dir: Path) -> dict[str, Any]:
    settings = Settings(data_dir=data_dir)
    report = Report("quality", settings.reports, Console(quiet=True))
    quality.run(settings, report)
    return report.figures


def lake(data_dir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (data_dir / "lake").iterdir()}


def replaced(name: str, values: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        new = values(table[name].to_numpy(zero_copy_only=False).copy())
        return table.set_column(at, table.schema.field(at), pa.array(new, table.schema.field(at).type))

    return change


def spoiled(share: float) -> Change:
    """Dwell times of the first rows become negative."""

    def values(old: np.ndarray) -> np.ndarray:
        old[: int(len(old) * share) + 1] = -1
        return old

    return replaced("dwell_time", values)


def test_good_data_are_ok_and_the_exit_code_says_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(data)
    assert found["severity"] == "ok"
    assert set(found["suites"]) == set(TABLES)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(data))
    ran = CliRunner().invoke(app, ["quality", "--json"])
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["suites"]["users"]["rejected"] == 0


def test_some_bad_rows_warn_and_many_stop_the_batch(data: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(data))
    land(world, data, interactions=spoiled(0.02))
    gate(data)
    assert said(data)["suites"]["interactions"]["severity"] == "warning"
    assert CliRunner().invoke(app, ["quality", "--json"]).exit_code == 3
    before = lake(data)
    land(world, data, interactions=spoiled(0.3))
    with pytest.raises(
        GateFailed, match=r"interactions: 30\.\d% of its rows were rejected, above 20% \(most often: dwell"
    ):
        gate(data)
    assert lake(data) == before
    ran = CliRunner().invoke(app, ["quality", "--json"])
    assert ran.exit_code == 4
    assert "above 20%" in json.loads(ran.stdout)["refused"]


def test_few_bad_rows_are_no_news(data: Path, world: Path) -> None:
    land(world, data, interactions=spoiled(0.001))
    gate(data)
    found = said(data)["suites"]["interactions"]
    assert found["rejected"] > 0
    assert found["severity"] == "ok"


def test_odd_rows_are_kept_and_shown(data: Path, world: Path) -> None:
    later = replaced("as_of", lambda old: np.full(len(old), np.datetime64("2024-02-01T00:00:00")))
    land(world, data, places=later)
    figures = gate(data)
    assert figures["interactions"]["rejected"] == 0
    found = said(data)["suites"]["interactions"]
    assert found["broken"]["timestamp is not before place_id was known"] > 100
    assert found["severity"] == "warning"


def test_an_event_that_has_not_happened_yet_is_rejected(world: Path, tmp_path: Path) -> None:
    land(world, tmp_path)
    moments = pq.read_table(tmp_path / "landing/interactions.parquet")["timestamp"].to_pylist()
    now = sorted(moments)[-10] - timedelta(minutes=5)
    figures = gate(tmp_path, now=now)
    assert figures["interactions"]["reasons"] == {"timestamp is not in the future": 9}
    with Lake(tmp_path) as opened:
        latest = opened.query('SELECT max("timestamp") AS t FROM interactions').to_pylist()[0]["t"]
    assert latest <= now + timedelta(minutes=5)


class TestAgainstLastTime:
    def test_the_same_batch_is_not_judged_again(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def judge(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("judged again")

        before, page = lake(data), (data / "reports/quality/index.html").read_bytes()
        monkeypatch.setattr(validate, "check", judge)
        figures = gate(data)
        assert figures["unchanged"]
        assert figures["users"]["accepted"] == 400
        assert (lake(data), (data / "reports/quality/index.html").read_bytes()) == (before, page)

    def test_a_refused_batch_is_forgotten_once_the_good_one_is_back(self, data: Path, world: Path) -> None:
        land(world, data, interactions=spoiled(0.5))
        with pytest.raises(GateFailed):
            gate(data)
        land(world, data)
        assert "unchanged" not in gate(data)
        assert said(data)["severity"] == "ok"
        assert gate(data)["unchanged"]

    def test_lost_rows_stop_it_unless_somebody_says_they_are_right(self, data: Path, world: Path) -> None:
        before = lake(data)
        land(world, data, friend_labels=lambda t: t.slice(0, len(t) // 3))
        match = r"friend_labels differ from the batch before: there are at least half as many rows .*\(rows\) 0\.33"
        with pytest.raises(GateFailed, match=match):
            gate(data)
        assert lake(data) == before
        gate(data, accept_drift=True)
        assert said(data)["severity"] == "warning"
        assert pq.read_metadata(data / "lake/friend_labels.parquet").num_rows < 400_000
        page = (data / "reports/quality/index.html").read_text()
        assert re.search(r"-[\d,]+ rows", page)

    @pytest.mark.parametrize(
        ("table", "column", "values", "severity"),
        [
            ("interactions", "dwell_time", lambda v: v * 1.3, "warning"),
            ("interactions", "dwell_time", lambda v: v * 0 + 77, "critical"),
            ("places", "price_band", lambda v: v * 0, "critical"),
            ("interactions", "dwell_time", lambda v: v * 1.01, "ok"),
        ],
    )
    def test_a_distribution_that_moves_is_noticed(
        self, data: Path, world: Path, table: str, column: str, values: Any, severity: str
    ) -> None:
        land(world, data, **{table: replaced(column, values)})
        if severity == "critical":
            with pytest.raises(GateFailed, match=rf"{table} differ from the batch before: {CRITICAL_DRIFT}"):
                gate(data)
        else:
            gate(data)
            assert said(data)["severity"] == severity

    def test_late_events_are_counted(self, world: Path, tmp_path: Path) -> None:
        land(world, tmp_path, interactions=lambda t: t.filter(pc.not_equal(pc.bit_wise_and(t["user_id"], 15), 3)))
        gate(tmp_path)
        land(world, tmp_path)
        gate(tmp_path)
        assert said(tmp_path)["suites"]["interactions"]["broken"] == {"at most a hundredth came late": 1}

    def test_another_data_set_is_not_compared(self, data: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        generate(WorldConfig(users=120, places=100, seed=7), other, workers=1)
        land(other, data)
        gate(data)
        assert said(data)["compared_with"] is None


class TestMeasures:
    """The drift query against distances worked out in numpy."""

    @staticmethod
    def measured(tmp_path: Path, now: pa.Table, before: pa.Table) -> dict[str, dict[str, Any]]:
        paths = {"landing": tmp_path / "now.parquet", "before": tmp_path / "before.parquet"}
        for path, table in zip(paths.values(), (now, before), strict=True):
            pq.write_table(table, path)
        with Lake(tmp_path) as opened:
            frames = opened.derive(drift.measures_sql(INTERACTIONS), paths)
            return {row["column"]: row for frame in frames for row in frame.to_pylist()}

    def test_scalars(self, world: Path, tmp_path: Path) -> None:
        before = pq.read_table(world / "interactions.parquet").slice(0, 3000)
        now = before.slice(500, 2000).filter(pc.greater(before.slice(500, 2000)["dwell_time"], 200))
        found = self.measured(tmp_path, now, before)
        a, b = (np.sort(t["dwell_time"].to_numpy()) for t in (now, before))
        at = np.concatenate([a, b])
        gap = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)
        chance = 1.63 * np.sqrt(1 / len(a) + 1 / len(b))
        assert np.abs(gap).max() > 2 * chance
        assert found["dwell_time"]["distance"] == pytest.approx(np.abs(gap).max() - chance, abs=1e-6)
        assert found["(rows)"]["rows"] == len(a) / len(b)
        assert found["(rows)"]["late"] == 0
        assert found["user_id"]["distance"] is None

    def test_empty_cells(self, world: Path, tmp_path: Path) -> None:
        before = pq.read_table(world / "interactions.parquet").slice(0, 1000)
        empty = before["dwell_time"].to_numpy().copy()
        empty[:250] = np.nan
        now = before.set_column(2, before.schema.field(2).with_nullable(True), pa.array(empty))
        assert self.measured(tmp_path, now, before)["dwell_time"]["nulls"] == pytest.approx(0.25)

    def test_vectors_by_position(self, world: Path, tmp_path: Path) -> None:
        before = pq.read_table(world / "users.parquet")
        rolled = np.roll(np.stack(before["cat_pref"].to_numpy()), 1, axis=1)
        at = before.column_names.index("cat_pref")
        now = before.set_column(at, before.schema.field(at), pa.array(list(rolled), before.schema.field(at).type))
        paths = {"landing": tmp_path / "now.parquet", "before": tmp_path / "before.parquet"}
        pq.write_table(now, paths["landing"])
        pq.write_table(before, paths["before"])
        old = np.stack(before["cat_pref"].to_numpy()).mean(axis=0)
        expected = np.abs(np.roll(old, 1) - old).sum() / 2 - 1.63 * np.sqrt(2 / len(before))
        with Lake(tmp_path) as opened:
            for same in (True, False):
                sql = drift.measures_sql(TABLES["users"], same_taxonomy=same)
                rows = {r["column"]: r for f in opened.derive(sql, paths) for r in f.to_pylist()}
                found = rows["cat_pref"]["distance"]
                assert found == pytest.approx(max(expected, 0), abs=1e-5) if same else found is None


def test_data_docs_are_there_and_ask_nobody(data: Path) -> None:
    docs = {p.stem: p.read_text() for p in (data / "reports/quality/docs").iterdir()}
    assert set(docs) == set(TABLES)
    for name, html in docs.items():
        assert re.findall(r"https?://", html) == [], name
        assert "<script" not in html
        assert 'href="../index.html"' in html
        assert "Expectation Validation Result" in html
    index = (data / "reports/quality/index.html").read_text()
    for target in re.findall(r'href="(docs/[^"]+)"', index):
        assert (data / "reports/quality" / target).exists()


START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 25, tzinfo=UTC)
DAY_US = 86_400_000_000
FIRST = int(START.timestamp() * 1e6)
DAY_0 = FIRST // DAY_US
ACTIVE = [0.0, FIRST + 5.0, DAY_0, DAY_0 - 3, *[1.0] * 8, DAY_0, *[2.0] * 8]
PAIR = [0.0, 2.0, FIRST + 5.0, *[0.5] * 12]
VIEW_ROWS: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "user_activity": (
        {"user_id": 3, "state": ACTIVE, "event_timestamp": START + timedelta(days=2)},
        [
            ("state is 3 values and up to 29 x 9", {"state": ACTIVE[:-1]}),
            ("state has no element below 0", {"state": [*ACTIVE[:-1], -1.0]}),
            ("state has no missing, NaN or infinite element", {"state": [*ACTIVE[:-1], float("nan")]}),
            ("days ascend", {"state": [*ACTIVE[:3], *ACTIVE[12:], *ACTIVE[3:12]]}),
            ("the last event is before event_timestamp", {"state": [0.0, FIRST + 2.0 * DAY_US, *ACTIVE[2:]]}),
            ("user_id is among the accepted users", {"user_id": 4000}),
            ("event_timestamp is a midnight", {"event_timestamp": START + timedelta(days=2, hours=3)}),
        ],
    ),
    "user_place": (
        {"user_id": 3, "place_id": 5, "state": PAIR, "so_far": PAIR, "event_timestamp": START + timedelta(days=2)},
        [
            ("state has 15 elements", {"state": PAIR[:-1]}),
            ("the last event is before event_timestamp", {"state": [0.0, 2.0, FIRST + 2.0 * DAY_US, *PAIR[3:]]}),
            ("there is at least one interaction", {"state": [0.0, 0.0, *PAIR[2:]]}),
        ],
    ),
}


@pytest.mark.parametrize("view", VIEW_ROWS)
def test_a_broken_row_of_a_feature_view_is_critical(data: Path, view: str) -> None:
    good, cases = VIEW_ROWS[view]
    rows = [good | {"user_id": 100 + i} for i in range(3)]
    rows += [good | {"user_id": 10 + i} | changes for i, (_, changes) in enumerate(cases)]
    rows.append(rows[0])
    pq.write_table(pa.Table.from_pylist(rows), data / "view.parquet")
    suite = VIEW_SUITES[view](Bounds(start=START, end=END))
    with Lake(data) as opened:
        verdict = check(opened.derive(suite.sql, {"landing": data / "view.parquet"}), suite)
    found = dict(zip(*verdict.rejected.to_pydict().values(), strict=True))
    assert [found[3 + i].split(" (got ")[0] for i in range(len(cases))] == [rule for rule, _ in cases]
    assert "appears once" in found[len(rows) - 1]
    assert verdict.severity == "critical"
    assert not set(found) & {0, 1, 2}


def test_a_feature_view_that_breaks_a_rule_changes_nothing(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged before the online store and training can read it; what was there stays there."""
    shutil.copytree(filled.data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("redis*"))
    settings = Settings(data_dir=tmp_path / "data", redis_url=filled.redis_url, feature_repo=ROOT / "feature_repo")
    store = FeatureStore(ROOT / "feature_repo", data_dir=settings.data_dir, redis_url=filled.redis_url)
    live = LiveStates(store)
    before = {p: p.read_bytes() for p in settings.features.glob("*/*.parquet")}, live.keys(), live.mark()
    future = VIEWS["user_place"].replace('max("timestamp")', 'max("timestamp") + INTERVAL 2 DAY')
    assert future != VIEWS["user_place"]
    monkeypatch.setattr(materialize, "views", lambda source: {**VIEWS, "user_place": future})
    report = Report("materialize", settings.reports, Console(quiet=True))
    match = "user_place: the last event is before event_timestamp does not hold of [0-9,]+ rows"
    with pytest.raises(GateFailed, match=match):
        materialize.run(settings, report)
    assert before == ({p: p.read_bytes() for p in settings.features.glob("*/*.parquet")}, live.keys(), live.mark())
    store.close()
