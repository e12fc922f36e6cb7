"""Ask the lake, read-only: one query, or a prompt with history and completion."""

import csv
import json
import sys
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.report import Report
from recsys.errors import ConfigError, RecsysError
from recsys.lake import Lake
from recsys.settings import Settings

FORMATS: Final = ("table", "json", "csv", "parquet")
N_SHOWN: Final = 100


def run(settings: Settings, report: Report, *, query: str | None, fmt: str = "table") -> None:
    """Print the answer to a query on standard output, or open a prompt.

    Args:
        settings: where things are.
        report: rows of the answer.
        query: one query; None: what standard input says, or a prompt when that is a terminal.
        fmt: `table` (the first 100 rows, long lists shortened), `json`, `csv` or `parquet` (all of it).

    Raises:
        ConfigError: no such format, or parquet onto a terminal.
        NotReady, DataError: as `Lake.query`; at the prompt they are printed instead.
    """
    if fmt not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)} (got {fmt!r})")
    if fmt == "parquet" and (query is None or sys.stdout.isatty()):
        raise ConfigError("parquet is not for a terminal: recsys sql 'FROM users' --format parquet > users.parquet")
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        if query is None and not sys.stdin.isatty():
            query = sys.stdin.read()
        if query is None:
            _prompt(lake, settings, fmt)
        else:
            answer = lake.query(query)
            report["rows"] = answer.num_rows
            _show(answer, fmt)


def _prompt(lake: Lake, settings: Settings, fmt: str) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    session: PromptSession[str] = PromptSession(history=FileHistory(str(settings.data_dir / ".sql_history")))
    print("\\d lists the views, \\d NAME the columns of one, \\q quits.")
    while True:
        words = WordCompleter([*lake.tables(), "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "SUMMARIZE"])
        try:
            line = session.prompt("recsys> ", completer=words).strip()
            command, _, name = line.rstrip(";").partition(" ")
            if command == "\\q":
                return
            if command == "\\d":
                line = f'DESCRIBE "{name.strip()}"' if name else "SHOW TABLES"
            if line:
                _show(lake.query(line), fmt)
        except KeyboardInterrupt:  # drops the line, as in a shell
            continue
        except EOFError:
            return
        except RecsysError as error:
            print(error)


def _show(answer: pa.Table, fmt: str) -> None:
    rows = [] if fmt == "parquet" else answer.slice(0, N_SHOWN if fmt == "table" else None).to_pylist()
    if fmt == "json":
        print("[" + ",\n ".join(map(_json, rows)) + "]")
    elif fmt == "parquet":
        pq.write_table(answer, sys.stdout.buffer, compression="zstd")
    elif fmt == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.column_names)
        writer.writerows([_json(v) if isinstance(v, list | dict) else v for v in row.values()] for row in rows)
    else:
        # A pipe has no width: 80 columns would cut what is asked for.
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 240)
        table = Table(*map(escape, answer.column_names))
        for row in rows:
            table.add_row(*(escape(_short(value)) for value in row.values()))
        console.print(table)
        console.print(f"{answer.num_rows:,} rows{f', the first {N_SHOWN} shown' * (answer.num_rows > N_SHOWN)}")


def _json(value: Any) -> str:
    """JSON, which knows no NaN and no decimals: null, and numbers (DuckDB's sums of integers arrive as decimals)."""

    def plain(v: Any) -> Any:
        return (float(v) if v % 1 else int(v)) if isinstance(v, Decimal) else str(v)

    return json.dumps(json.loads(json.dumps(value, default=plain), parse_constant=lambda _: None))


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value[:3]))}{f', … {len(value)}' * (len(value) > 3)}]"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
