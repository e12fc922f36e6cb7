"""A team's own files → `data/landing`, by a mapping file; or a first mapping, from the files."""

from datetime import UTC, datetime
from pathlib import Path

from jobs.report import Report
from recsys.errors import ConfigError
from recsys.ingest.land import land
from recsys.ingest.mapping import read_mapping
from recsys.ingest.suggest import suggest
from recsys.settings import Settings
from recsys.workbench import Workbench


def run(settings: Settings, report: Report, *, mapping: Path | None, files: list[Path]) -> None:
    """Lay down what a mapping reads, or print a mapping for files.

    Args:
        settings: where to.
        report: rows read, rejected and written, and new ids.
        mapping: the mapping file; None: look at `files` instead and print a first one on standard output.
        files: what to look at.

    Raises:
        ConfigError: the mapping is wrong, or nothing was asked for.
        DataError: a file cannot be read or a column cannot be what it is mapped to.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    spill = settings.data_dir / ".duckdb"
    with Workbench(spill, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb / 2) as bench:
        if mapping is None:
            if not files:
                raise ConfigError("nothing to ingest: name a mapping file, or files after --suggest")
            print(suggest(bench, files), end="")
            return
        if settings.engine != "duckdb":
            report.console.print("ingest runs on DuckDB: RECSYS_ENGINE counts from `recsys validate` on")
        with report.stage("ingest"):
            landed = land(
                read_mapping(mapping),
                bench,
                settings.landing,
                settings.data_dir / "ids",
                settings.quarantine,
                # an event cannot have happened yet
                now=settings.now or datetime.now(UTC),
                progress=lambda what: report.console.print(f"[dim]ingest: {what}[/]"),
            )
    report.update(**landed.figures, engine="duckdb")
