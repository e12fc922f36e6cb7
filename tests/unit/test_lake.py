"""The lake: what it answers, what it refuses, and how accepted files arrive. The `sql` job on top of it."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from jobs import sql
from jobs.report import Report
from recsys.atomic import staging
from recsys.errors import ConfigError, DataError, NotReady
from recsys.lake import Lake
from recsys.schemas import TABLES, TIMESTAMP
from recsys.settings import Settings

FIRST = datetime(2024, 1, 1, 7, 30, tzinfo=UTC)
LAST = datetime(2024, 1, 3, 23, 59, 59, 999_999, tzinfo=UTC)


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder, with a quote in its name, that holds users and interactions."""
    folder = tmp_path / "it's data"
    write(folder / "lake/users.parquet", user_id=[1, 2, 3], name=["Ana", "[b]Bo[/b]", None])
    write(folder / "lake/interactions.parquet", timestamp=pa.array([LAST, FIRST], TIMESTAMP), user_id=[1, 2])
    return folder


@pytest.fixture
def lake(data_dir: Path) -> Iterator[Lake]:
    with Lake(data_dir, threads=1, memory_limit_gb=0.5) as open_lake:
        yield open_lake


class TestQuery:
    def test_views_are_named_after_tables_features_and_quarantine(self, lake: Lake, data_dir: Path) -> None:
        assert lake.tables() == ["users", "interactions"]
        assert lake.query("SELECT count(*) AS n FROM users").to_pylist() == [{"n": 3}]
        # what appears while the lake is open is seen, what is replaced is read anew
        write(data_dir / "features/user_place.parquet", user_id=[1])
        write(data_dir / "quarantine/users.parquet", user_id=[9], reason=["x"])
        assert lake.tables() == ["users", "interactions", "user_place", "quarantine_users"]
        assert lake.query("SELECT reason FROM quarantine_users").to_pylist() == [{"reason": "x"}]
        write(data_dir / "lake/users.parquet", user_id=[1], more=[True])
        assert lake.query("FROM users").to_pylist() == [{"user_id": 1, "more": True}]

    def test_parameters(self, lake: Lake) -> None:
        query = "SELECT user_id FROM users WHERE user_id >= {} ORDER BY 1"
        assert lake.query(query.format("$1"), [2])["user_id"].to_pylist() == [2, 3]
        assert lake.query(query.format("$low"), {"low": 3})["user_id"].to_pylist() == [3]
        moments = lake.query("SELECT user_id FROM interactions WHERE timestamp >= $t", {"t": LAST})
        assert moments["user_id"].to_pylist() == [1]

    def test_time_is_utc_whatever_the_machine_says(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        answer = lake.query("SELECT timestamp, hour(timestamp) AS h, timestamp::DATE AS d FROM interactions ORDER BY 1")
        assert answer.schema.field("timestamp").type == TIMESTAMP
        assert answer["h"].to_pylist() == [7, 23]
        assert [str(d) for d in answer["d"].to_pylist()] == ["2024-01-01", "2024-01-03"]

    @pytest.mark.parametrize(
        ("name", "command"),
        [("places", "recsys validate"), ("USER_PLACE", "recsys materialize"), ("quarantine_users", "rejected no row")],
    )
    def test_what_is_not_there_yet_names_its_command(self, lake: Lake, name: str, command: str) -> None:
        with pytest.raises(NotReady, match=command):
            lake.query(f"SELECT * FROM {name}")

    def test_an_empty_folder_is_not_an_error_until_asked(self, tmp_path: Path) -> None:
        lake = Lake(tmp_path / "nothing")
        assert lake.tables() == []
        assert lake.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
        with pytest.raises(NotReady, match="recsys validate"):
            lake.query("FROM users")

    def test_wrong_sql_shows_where(self, lake: Lake) -> None:
        with pytest.raises(DataError, match=r"(?s)syntax error.*LINE 1: SELEC 1"):
            lake.query("SELEC 1")
        with pytest.raises(DataError, match="nope"):
            lake.query("SELECT nope FROM users")

    def test_a_broken_file_is_named(self, lake: Lake, data_dir: Path) -> None:
        (data_dir / "lake/places.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(DataError, match=r"places\.parquet cannot be read"):
            lake.query("SELECT 1")

    @pytest.mark.parametrize(
        "query",
        ["FROM users", "DESCRIBE users", "SUMMARIZE users", "SHOW TABLES", "EXPLAIN SELECT 1", "VALUES (1)",
         "EXPLAIN ANALYZE SELECT 1", "WITH x AS (SELECT 1) FROM x", "SELECT 1;", "-- why\nSELECT 1"],
    )  # fmt: skip
    def test_what_reads_runs(self, lake: Lake, query: str) -> None:
        assert lake.query(query).num_rows >= 1


class TestReadOnly:
    @pytest.mark.parametrize(
        "query",
        ["DROP VIEW users", "DELETE FROM users", "CREATE TABLE x AS SELECT 1", "COPY users TO '{out}'",
         "COPY (SELECT 1) TO '{lake}'", "ATTACH '{out}' AS x", "EXPORT DATABASE '{out}'", "SET threads = 9",
         "RESET enable_external_access", "INSTALL httpfs", "LOAD httpfs", "PRAGMA enable_profiling", "CHECKPOINT",
         "CALL duckdb_settings()", "SELECT 1; DROP VIEW users", "EXPLAIN ANALYZE DROP VIEW users",
         "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", "EXPLAIN EXPLAIN ANALYZE DROP VIEW users",
         "EXPLAIN ANALYZE SELECT 1; DROP VIEW users", "EXPLAIN /**/ ANALYZE DROP VIEW users", "", "-- nothing"],
    )  # fmt: skip
    def test_what_writes_is_refused(self, lake: Lake, data_dir: Path, tmp_path: Path, query: str) -> None:
        before = (data_dir / "lake/users.parquet").read_bytes()
        quoted = str(data_dir / "lake/users.parquet").replace("'", "''")
        with pytest.raises(DataError):
            lake.query(query.replace("{out}", str(tmp_path / "out")).replace("{lake}", quoted))
        assert not (tmp_path / "out").exists()
        assert (data_dir / "lake/users.parquet").read_bytes() == before
        assert lake.query("SELECT count(*) AS n FROM users").to_pylist() == [{"n": 3}]
        assert lake.query("SHOW TABLES")["name"].to_pylist() == ["interactions", "users"]

    @pytest.mark.parametrize(
        "query",
        ["FROM read_text('{secret}')", "FROM read_csv('{secret}')", "FROM '{secret}'", "FROM glob('{folder}/*')",
         "FROM read_parquet('{other}')", "FROM '{other}'", "FROM read_text('{data}/../secret.csv')", "FROM secret",
         "FROM 'https://example.org/x.parquet'", "FROM read_text('{data}/redis.txt')", "SELECT getenv('HOME')"],
    )  # fmt: skip
    def test_other_files_cannot_be_read(self, lake: Lake, data_dir: Path, tmp_path: Path, query: str) -> None:
        secret = pa.table({"a": [1]})  # nor Python's variables
        other = write(tmp_path / "other.parquet", a=secret["a"])
        for path in (tmp_path / "secret.csv", data_dir / "redis.txt"):
            path.write_text("password\n")
        names = {"secret": tmp_path / "secret.csv", "folder": tmp_path, "other": other, "data": data_dir}
        for name, path in names.items():
            query = query.replace(f"{{{name}}}", str(path).replace("'", "''"))
        with pytest.raises(DataError):
            lake.query(query)


class TestWrite:
    def test_rows_types_and_params(self, lake: Lake, tmp_path: Path) -> None:
        path = tmp_path / "new folder/it's.parquet"
        query = "SELECT timestamp, [user_id]::FLOAT[] AS stats FROM interactions WHERE timestamp < $t ORDER BY 1; "
        assert lake.write(query, path, {"t": LAST}) == 1
        assert lake.write("SELECT 1 AS x -- one", path) == 1  # whole or not at all: replaced
        assert lake.write("SELECT timestamp, [user_id]::FLOAT[] AS stats FROM interactions ORDER BY 1", path) == 2
        written = pq.read_table(path)
        assert written.schema.field("timestamp").type == TIMESTAMP
        assert written.schema.field("stats").type == pa.list_(pa.float32())
        assert written["timestamp"].to_pylist() == [FIRST, LAST]
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_the_same_query_gives_the_same_bytes(self, lake: Lake, tmp_path: Path) -> None:
        query = "SELECT i, i % 7 AS k FROM range(300000) t(i) ORDER BY k, i"
        for name in "ab":
            assert lake.write(query, tmp_path / name) == 300_000
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_failed_write_leaves_the_old_file(self, lake: Lake, tmp_path: Path) -> None:
        path = tmp_path / "x.parquet"
        lake.write("SELECT 1 AS x", path)
        before = path.read_bytes()
        with pytest.raises(DataError, match="no number"):
            lake.write(
                "SELECT CASE WHEN i < 99999 THEN i ELSE error('no number') END AS x FROM range(100000) t(i)", path
            )
        with pytest.raises(NotReady, match="recsys validate"):
            lake.write("FROM places", path)
        assert path.read_bytes() == before
        assert list(tmp_path.glob(".*")) == []

    def test_derive_streams_other_files_beside_the_lake(self, lake: Lake, tmp_path: Path) -> None:
        path = write(tmp_path / "landed.parquet", user_id=[3, 4, 1])
        query = "SELECT file_row_number AS row, user_id IN (SELECT user_id FROM users) AS known FROM landing ORDER BY 1"
        parts = list(lake.derive(query, {"landing": path}, rows=2))
        assert [p.num_rows for p in parts] == [2, 1]
        assert pa.concat_tables(parts).to_pydict() == {"row": [0, 1, 2], "known": [True, False, True]}


class TestWhatItSays:
    def test_horizon_is_whole_days(self, lake: Lake) -> None:
        assert lake.horizon() == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC))

    def test_an_event_at_midnight_belongs_to_the_day_that_begins(self, lake: Lake, data_dir: Path) -> None:
        midnight = datetime(2024, 1, 2, tzinfo=UTC)
        write(data_dir / "lake/interactions.parquet", timestamp=pa.array([midnight], TIMESTAMP))
        assert lake.horizon() == (midnight, datetime(2024, 1, 3, tzinfo=UTC))

    def test_no_interactions_no_horizon(self, lake: Lake, data_dir: Path, tmp_path: Path) -> None:
        write(data_dir / "lake/interactions.parquet", timestamp=pa.array([], TIMESTAMP))
        for empty in (lake, Lake(tmp_path / "nothing")):
            with pytest.raises(NotReady, match="recsys validate"):
                empty.horizon()

    def test_fingerprint_changes_with_any_table(self, lake: Lake, data_dir: Path) -> None:
        with pytest.raises(NotReady, match="places"):
            lake.fingerprint()
        for name in TABLES:
            write(data_dir / f"lake/{name}.parquet", x=[1])
        seen = {lake.fingerprint(), lake.fingerprint()}
        assert len(seen) == 1
        for name in TABLES:
            write(data_dir / f"lake/{name}.parquet", x=[2])
            seen.add(lake.fingerprint())
        write(data_dir / "features/user_place.parquet", x=[2])
        seen.add(lake.fingerprint())
        assert len(seen) == 6

    def test_source(self, lake: Lake, data_dir: Path) -> None:
        assert lake.source() == {}
        (data_dir / "lake/source.json").write_text('{"preset": "city"}')
        assert lake.source() == {"preset": "city"}
        for broken in ("[1]", "{"):
            (data_dir / "lake/source.json").write_text(broken)
            with pytest.raises(DataError, match=r"source\.json"):
                lake.source()


class Killed(BaseException):
    """What no handler may swallow."""


def die_at(n: int, patch: pytest.MonkeyPatch) -> None:
    """Make the n-th operation on files, and every later one, raise."""
    calls = iter(range(1, 10_000))

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) >= n:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in ("replace", "unlink", "mkdir"):
        patch.setattr(Path, name, mortal(getattr(Path, name)))
    patch.setattr("recsys.atomic.shutil.rmtree", mortal(shutil.rmtree))


class TestStaging:
    OLD = frozenset({"lake/users.parquet=old", "lake/source.json=old", "quarantine/users.parquet=old"})
    REPLACES = ("quarantine/*.parquet", "lake/source.json", "reports/**/*")
    NEW = frozenset({"lake/users.parquet=new", "lake/places.parquet=new", "quarantine/places.parquet=new"})

    @staticmethod
    def state(data_dir: Path) -> frozenset[str]:
        return frozenset(f"{p.relative_to(data_dir)}={p.read_text()}" for p in data_dir.rglob("*") if p.is_file())

    @staticmethod
    def fill(folder: Path, files: frozenset[str]) -> None:
        for file in files:
            name, _, content = file.partition("=")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    def test_everything_moves_at_once_and_what_is_gone_goes(self, tmp_path: Path) -> None:
        self.fill(tmp_path, self.OLD)
        with staging(tmp_path, replaces=self.REPLACES) as stage:
            self.fill(stage, self.NEW)
            (stage / ".duckdb").mkdir()
            (stage / ".duckdb/spilled").touch()
            assert self.state(tmp_path) >= self.OLD
        assert self.state(tmp_path) == self.NEW

    def test_an_error_leaves_the_old_state(self, tmp_path: Path) -> None:
        self.fill(tmp_path, self.OLD)

        def cut_off() -> None:
            with staging(tmp_path) as stage:
                self.fill(stage, self.NEW)
                raise Killed

        with pytest.raises(Killed):
            cut_off()
        assert self.state(tmp_path) == self.OLD

    def test_killed_at_any_step_the_lake_is_old_or_new(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kill at the n-th file operation, for every n, nothing cleaned up: whoever opens the lake sees one state."""
        seen = []
        for n in range(1, 50):
            data_dir = tmp_path / str(n)
            self.fill(data_dir, self.OLD)
            died = False
            with monkeypatch.context() as patch:
                die_at(n, patch)
                try:
                    with staging(data_dir, replaces=self.REPLACES) as stage:
                        self.fill(stage, self.NEW)
                except Killed:
                    died = True
            Lake(data_dir)
            visible = frozenset(f for f in self.state(data_dir) if not f.startswith("."))
            assert visible in (self.OLD, self.NEW), f"mixed after {n} operations"
            seen.append(visible == self.NEW)
            with staging(data_dir, replaces=self.REPLACES) as stage:  # and the next run needs no help
                self.fill(stage, self.NEW)
            assert self.state(data_dir) == self.NEW
            if not died:
                break
        assert not died
        assert seen == sorted(seen)
        assert 3 < seen.count(False) < len(seen) - 3


class TestSqlJob:
    @staticmethod
    def run(data_dir: Path, capsys: pytest.CaptureFixture[str], query: str | None, fmt: str = "table") -> str:
        settings = Settings(data_dir=data_dir)
        report = Report("sql", settings.reports)
        sql.run(settings, report, query=query, fmt=fmt)
        return capsys.readouterr().out

    def test_table_shows_markup_as_text_and_shortens_lists(
        self, data_dir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = self.run(data_dir, capsys, "SELECT *, range(50) AS many FROM users ORDER BY 1")
        assert "[b]Bo[/b]" in out
        assert "[0, 1, 2, … 50]" in out
        assert "3 rows" in out

    def test_table_is_cut_and_says_so(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = self.run(data_dir, capsys, "SELECT i + 1000000 AS i FROM range(5000) t(i) ORDER BY 1")
        assert "1000099" in out
        assert "1000100" not in out
        assert "5,000 rows, the first 100 shown" in out

    def test_json_is_json(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        query = "SELECT sum(user_id) AS n, 'nan'::FLOAT AS x, [1.5, NULL] AS l, 0.25::DECIMAL(4, 2) AS d FROM users"
        assert json.loads(self.run(data_dir, capsys, query, "json")) == [
            {"n": 6, "x": None, "l": [1.5, None], "d": 0.25}
        ]
        assert json.loads(self.run(data_dir, capsys, "FROM users WHERE false", "json")) == []
        moments = json.loads(self.run(data_dir, capsys, "SELECT min(timestamp) AS t FROM interactions", "json"))
        assert datetime.fromisoformat(moments[0]["t"]) == FIRST

    def test_csv_is_all_of_it(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = self.run(data_dir, capsys, "SELECT i, [i, 2] AS l, 'a,b' AS s FROM range(150) t(i) ORDER BY 1", "csv")
        assert out.splitlines()[:2] == ["i,l,s", '0,"[0, 2]","a,b"']
        assert len(out.splitlines()) == 151

    def test_a_query_may_come_by_pipe(
        self, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 41 + 1 AS x;\n"))
        assert self.run(data_dir, capsys, None, "csv") == "x\n42\n"

    def test_formats(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ConfigError, match="table, json, csv"):
            self.run(data_dir, capsys, "SELECT 1", "xml")

    def test_prompt(self, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        lines = [
            "\\d",
            "\\d users",
            "SELEC",
            "",
            "DROP VIEW users",
            "SELECT count(*) + 100 AS x FROM users;",
            "\\q",
            "never",
        ]
        with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
            keys.send_text("".join(f"{line}\n" for line in lines))
            out = self.run(data_dir, capsys, None, "csv")
        assert "name\ninteractions\nusers\n" in out
        assert "user_id,BIGINT" in out
        assert "syntax error" in out
        assert "read-only" in out
        assert out.endswith("x\n103\n")
        assert "+SELECT count(*)" in (data_dir / ".sql_history").read_text()
