"""What a job did: live on the screen while it runs, a summary at its end, and `data/reports/<job>.json`."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from recsys.atomic import write_json


class Report:
    """Figures of one run of a job.

    Attributes:
        console: where the job may print; standard error, so that standard output stays free for `--json`.
        figures: what the job found, in the order it was said; JSON values only.
    """

    def __init__(self, job: str, folder: Path, console: Console | None = None) -> None:
        self.job = job
        self.console = console or Console(stderr=True)
        self.figures: dict[str, Any] = {}
        self.stages: dict[str, float] = {}
        self._path = folder / f"{job}.json"
        self._started_at = datetime.now(UTC)
        self._clock = time.perf_counter()

    def __setitem__(self, name: str, value: Any) -> None:
        self.figures[name] = value

    def update(self, **figures: Any) -> None:
        """Note several figures."""
        self.figures.update(figures)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage and show that it runs."""
        start = time.perf_counter()
        with self.console.status(f"{self.job}: {name}"):
            yield
        self.stages[name] = round(time.perf_counter() - start, 3)
        self.console.print(f"[green]✓[/] {self.job}: {name} [dim]{self.stages[name]:.1f} s[/]")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A Rich progress bar for work that counts."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as bar:
            yield bar

    def finish(self) -> dict[str, Any]:
        """Write the report file and return its content."""
        kilo = 1 if sys.platform == "darwin" else 1024
        content = {
            "job": self.job,
            "started_at": self._started_at.isoformat(),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo / 2**20, 1),
            "stages_s": self.stages,
            **self.figures,
        }
        write_json(self._path, content)
        return content

    def show(self, content: dict[str, Any]) -> None:
        """Print the summary as a table."""
        table = Table(title=f"recsys {self.job}", show_header=False, title_justify="left")
        for name, value in content.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, (dict, list)))
            if name not in ("job", "started_at") and not isinstance(value, list):
                table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        self.console.print(table)
