"""A synthetic world → `data/landing`."""

import json
from pathlib import Path

from jobs.report import Report
from recsys.atomic import replacing
from recsys.heap import reused
from recsys.schemas import TABLES
from recsys.settings import Settings
from recsys.world import WorldConfig, generate
from recsys.world.page import page


def run(settings: Settings, report: Report, *, force: bool = False) -> None:
    """Make the world that the settings name, unless it is there already.

    Args:
        settings: preset, size, seed and where to.
        report: counts and shares of what was made.
        force: make it again even so.

    Raises:
        ConfigError: a setting is out of its range.
    """
    config = WorldConfig(preset=settings.preset, users=settings.users, places=settings.places, seed=settings.seed)
    report.update(preset=config.preset, seed=config.seed)
    if not force and _described(settings.landing) == config.source():
        report["unchanged"] = True
        report.console.print(f"generate: {settings.landing} already holds this world; --force makes it again")
        return
    with reused(threads=True), report.progress() as bar:
        tasks = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"generate: {what}", total=of)
            bar.update(tasks[what], completed=done)

        made = generate(config, settings.landing, progress, workers=settings.threads)
    report.update(**made.figures)
    path = settings.reports / "world.html"
    with replacing(path) as aside:
        aside.write_text(page(config.source(), made.figures, made.picture), encoding="utf-8")
    if off := [row["figure"] for row in made.picture["table"] if not row["ok"]]:
        report.console.print(f"[yellow]out of the range of preset {config.preset}:[/] {', '.join(off)}")
    report["page"] = str(path)


def _described(folder: Path) -> object:
    """What `source.json` says; None unless all tables are beside it."""
    source = folder / "source.json"
    if not source.exists() or not all((folder / f"{name}.parquet").exists() for name in TABLES):
        return None
    return json.loads(source.read_text(encoding="utf-8"))
