"""The gate, from landed files to lake, quarantine and page; small tables made by hand, the real job."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import validate
from jobs.report import Report
from recsys.errors import DataError, GateFailed, NotReady
from recsys.lake import Lake
from recsys.schemas import TABLES
from recsys.settings import ROOT, Settings
from tests.contract.test_expectations import ROWS, Row, table, weights

N = {"users": 20, "places": 16, "interactions": 60, "user_user_edges": 30, "friend_labels": 30}
SOURCE = {"synthetic": True, "preset": "<b>city", "start": "2024-01-01T00:00:00Z", "end": "2024-03-25T00:00:00Z"}
HOSTILE = "<script>alert('x')</script>\"'&"
LONG_AGO = datetime(1970, 1, 1, 9, tzinfo=UTC)

# table → row of the file → what is wrong with it
DIRT: dict[str, dict[int, Row]] = {
    "users": {19: {"fine_pref": [0.5, 0.5], "name": HOSTILE}, 18: {"cat_pref": weights(6, 0.9)}},
    "places": {15: {"fine_tag_vector": weights(100, float("nan"))}, 14: {"city_name": "", "name": HOSTILE}},
    "interactions": {
        3: {"place_id": 424_242},
        7: {"timestamp": LONG_AGO},
        8: {"dwell_time": -5.0, "num_likes": -1},
        9: {"user_id": 19},
        11: {"place_id": None},
    },
    "user_user_edges": {29: {"interest_overlap_score": float("nan")}, 2: {"user_u": 9, "user_v": 9}},
    "friend_labels": {29: {"label_compat": 7}},
}
REASONS: dict[str, dict[int, str]] = {
    "users": {
        18: "cat_pref sums to 1 within 1e-05 (got 0.9)",
        19: "fine_pref has 100 elements (got 2)",
    },
    "places": {
        14: "city_name is not blank (got '')",
        15: "fine_tag_vector has no missing, NaN or infinite element (got 1)",
    },
    "interactions": {
        3: "place_id is among the accepted places (got 424242)",
        7: "timestamp lies in [2024-01-01T00:00:00+00:00, 2024-03-25T00:00:00+00:00) (got 1970-01-01T09:00:00+00:00)",
        8: "dwell_time is from 0 to 86400 (got -5); num_likes is at least 0 (got -1)",
        9: "user_id is among the accepted users (got 19)",
        11: "place_id is there (got nothing)",
    },
    "user_user_edges": {
        2: "user_u is less than user_v (got 9, 9)",
        29: "interest_overlap_score is a number (got nan)",
    },
    "friend_labels": {29: "label_compat is from 0 to 1 (got 7)"},
}


def land(data_dir: Path, dirt: dict[str, dict[int, Row]], source: dict[str, Any] | None = None) -> dict[str, list[Row]]:
    """Write the five tables; returns their rows."""
    landing = data_dir / "landing"
    landing.mkdir(parents=True, exist_ok=True)
    rows = {name: [make(i) | dirt.get(name, {}).get(i, {}) for i in range(N[name])] for name, make in ROWS.items()}
    for name in TABLES:
        pq.write_table(table(name, rows[name]), landing / f"{name}.parquet")
    (landing / "source.json").write_text(json.dumps(source or SOURCE))
    return rows


def run(data_dir: Path) -> Report:
    settings = Settings(data_dir=data_dir, threads=1)
    report = Report("validate", settings.reports, Console(quiet=True))
    validate.run(settings, report)
    return report


def everything(data_dir: Path) -> dict[str, bytes]:
    """What the gate wrote."""
    parts = (p for part in ("lake", "quarantine", "reports") for p in (data_dir / part).rglob("*"))
    return {str(p.relative_to(data_dir)): p.read_bytes() for p in parts if p.is_file()}


@dataclass
class Run:
    data_dir: Path
    rows: dict[str, list[Row]]
    figures: dict[str, Any]


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data_dir = tmp_path_factory.mktemp("dirty")
    rows = land(data_dir, DIRT)
    return Run(data_dir, rows, run(data_dir).figures)


@pytest.fixture
def accepted(dirty: Run, tmp_path: Path) -> Path:
    """A data folder of its own in which the gate has run once."""
    for name, content in everything(dirty.data_dir).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    land(tmp_path, DIRT)
    return tmp_path


@pytest.mark.parametrize("name", TABLES)
def test_rejected_rows_are_quarantined_by_name_and_the_rest_goes_through(dirty: Run, name: str) -> None:
    with Lake(dirty.data_dir) as lake:
        good, bad = lake.query(f"FROM {name}"), lake.query(f"FROM quarantine_{name}")
    assert bad["reason"].to_pylist() == [reason for _, reason in sorted(REASONS[name].items())]
    # NaN is not equal to itself, so rows are compared as text
    same = table(name, dirty.rows[name]).to_pylist()
    assert [str(r) for r in good.to_pylist()] == [str(r) for i, r in enumerate(same) if i not in REASONS[name]]
    assert [str(r) for r in bad.drop(["reason"]).to_pylist()] == [str(same[i]) for i in sorted(REASONS[name])]


@pytest.mark.parametrize("name", TABLES)
def test_the_lake_has_exactly_the_schema(dirty: Run, name: str) -> None:
    schema = pq.read_schema(dirty.data_dir / f"lake/{name}.parquet")
    assert schema.equals(TABLES[name].arrow, check_metadata=False)
    assert [f.nullable for f in schema] == [c.nullable for c in TABLES[name].columns.values()]


def test_the_report_has_the_figures(dirty: Run) -> None:
    for name in TABLES:
        figures = dirty.figures[name]
        assert figures["rows"] == N[name]
        assert figures["rejected"] == len(REASONS[name])
        assert figures["accepted"] == N[name] - len(REASONS[name])
    assert dirty.figures["interactions"]["reasons"]["dwell_time is from 0 to 86400"] == 1
    assert sum(dirty.figures["interactions"]["reasons"].values()) == 6
    json.dumps(dirty.figures)


def test_the_source_comes_along(dirty: Run) -> None:
    with Lake(dirty.data_dir) as lake:
        assert lake.source() == SOURCE


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_says_everything_and_runs_nothing(dirty: Run) -> None:
    html = (dirty.data_dir / "reports/quality/index.html").read_text()
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert tags <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "h1", "h2", "h3", "p", "section", "div",
        "table", "thead", "tbody", "tr", "th", "td", "a", "b", "code", "details", "summary", "span",
    }  # fmt: skip
    attributes = {name for _, given in page.tags for name in given}
    assert attributes <= {"lang", "charset", "name", "content", "id", "class", "style", "href"}
    assert re.findall(r"https?://|@import|url\(", html) == []
    assert "prefers-color-scheme:dark" in html
    for reason in (r for reasons in REASONS.values() for r in reasons.values()):
        assert reason in page.said
    assert HOSTILE in page.said
    assert "preset <b>city" in page.said
    assert "Retrieval is within one city" in page.said
    assert "18 of 20 rows accepted, 2 rejected." in page.said


def test_running_twice_changes_nothing(accepted: Path) -> None:
    before = everything(accepted)
    run(accepted)
    after = everything(accepted)
    assert after.keys() == before.keys()
    assert after == before


def test_repaired_data_empties_the_quarantine(accepted: Path) -> None:
    land(accepted, {})
    figures = run(accepted).figures
    assert [figures[name]["rejected"] for name in TABLES] == [0] * 5
    assert list((accepted / "quarantine").iterdir()) == []
    assert "0 rejected" in (accepted / "reports/quality/index.html").read_text()


def test_a_table_without_a_good_row_stops_the_gate(accepted: Path) -> None:
    before = everything(accepted)
    land(accepted, {"interactions": {i: {"timestamp": LONG_AGO} for i in range(N["interactions"])}})
    with pytest.raises(GateFailed, match=r"interactions: no row was accepted \(got 60 rows; .*timestamp lies in"):
        run(accepted)
    after = everything(accepted)
    page = Page(after["reports/quality/index.html"].decode())
    assert {k: v for k, v in after.items() if "reports" not in k} == {
        k: v for k, v in before.items() if "reports" not in k
    }
    assert "Refused." in page.said
    assert not (accepted / ".validating").exists()


def test_ties_and_labels_may_be_empty_but_not_people(tmp_path: Path) -> None:
    land(tmp_path, {})
    pq.write_table(table("friend_labels", []), tmp_path / "landing/friend_labels.parquet")
    pq.write_table(table("user_user_edges", []), tmp_path / "landing/user_user_edges.parquet")
    (tmp_path / "landing/source.json").unlink()
    assert run(tmp_path).figures["friend_labels"]["accepted"] == 0
    assert pq.read_metadata(tmp_path / "lake/friend_labels.parquet").num_rows == 0
    pq.write_table(table("users", []), tmp_path / "landing/users.parquet")
    with pytest.raises(GateFailed, match=r"users: no row was accepted .*the file is empty"):
        run(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from jobs import validate
from jobs.report import Report
from recsys.settings import Settings

settings = Settings(data_dir=Path(sys.argv[1]))
split, calls = validate.split, []

def killed(*args):
    calls.append(args)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return split(*args)

validate.split = killed
validate.run(settings, Report("validate", settings.reports))
"""


def test_killed_half_way_the_last_accepted_state_is_whole(accepted: Path) -> None:
    before = everything(accepted)
    land(accepted, {})
    command = [sys.executable, "-c", KILLED, str(accepted)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert everything(accepted) == before
    assert (accepted / ".validating/lake/places.parquet").exists()  # it was half-way indeed
    run(accepted)
    assert pq.read_metadata(accepted / "lake/users.parquet").num_rows == N["users"]
    assert sorted(p.name for p in accepted.iterdir()) == ["lake", "landing", "quarantine", "reports"]


class TestFilesThatAreNotWhatTheyShould:
    """Columns and types are the producer's business: the job stops and names them, before any row is judged."""

    @staticmethod
    def replace(data_dir: Path, name: str, change: Any) -> None:
        path = data_dir / "landing" / f"{name}.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda t: t.drop(["price_band"]),
                r"places\.parquet: column price_band is missing: expected int32 \(got \[",
            ),
            (
                lambda t: t.set_column(0, "place_id", t["place_id"].cast(pa.string())),
                r"places\.parquet: column place_id must be int64 \(got string\)",
            ),
            (
                lambda t: t.set_column(len(t.column_names) - 1, "as_of", t["as_of"].cast(pa.timestamp("ns", tz="UTC"))),
                r"column as_of must be timestamp\[us, tz=UTC\] \(got timestamp\[ns, tz=UTC\]\)",
            ),
            (lambda t: t.append_column("phone", pa.nulls(len(t))), "column phone is not in the contract of places"),
        ],
    )
    def test_columns(self, tmp_path: Path, change: Any, message: str) -> None:
        land(tmp_path, {})
        self.replace(tmp_path, "places", change)
        with pytest.raises(DataError, match=message):
            run(tmp_path)
        assert not (tmp_path / "lake").exists()

    def test_columns_in_another_order_are_fine(self, accepted: Path) -> None:
        before = everything(accepted)
        for name in TABLES:
            self.replace(accepted, name, lambda t: t.select(sorted(t.column_names, reverse=True)))
        run(accepted)
        after = everything(accepted)
        assert {k: v for k, v in after.items() if k.endswith("parquet")} == {
            k: v for k, v in before.items() if k.endswith("parquet")
        }

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        land(tmp_path, {})
        path = tmp_path / "landing/users.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"users\.parquet cannot be read as parquet"):
            run(tmp_path)

    def test_nothing_landed(self, tmp_path: Path) -> None:
        with pytest.raises(NotReady, match="recsys generate"):
            run(tmp_path)
        land(tmp_path, {})
        (tmp_path / "landing/friend_labels.parquet").unlink()
        with pytest.raises(NotReady, match=r"friend_labels\.parquet"):
            run(tmp_path)
