"""The `recsys` command. A job is imported only when it runs: Feast and Great Expectations take seconds to import."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from jobs.command import EXIT_CODES, AsJson, Files, Protocol, Until, Version, run_job, sentence
from jobs.report import Report
from recsys.errors import RecsysError
from recsys.settings import Settings

app = typer.Typer(
    name="recsys",
    help="Places to go, and people to go with: data to served recommendations, one command a stage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def generate(
    force: Annotated[bool, typer.Option("--force", help="Generate again what is already there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the synthetic city world (RECSYS_PRESET, RECSYS_USERS, RECSYS_PLACES, RECSYS_SEED)."""
    # Before numpy is imported: the workers share the cores, and BLAS threads of their own only spin against them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run_job("generate", as_json, force=force)


@app.command()
def ingest(
    mapping: Annotated[Path | None, typer.Argument(help="A mapping file (TOML); docs/own-data.md says how.")] = None,
    suggest: Files = None,
    as_json: AsJson = False,
) -> None:
    """Lay down your own tables (CSV, parquet, JSON lines or a query) instead of the synthetic world."""
    run_job("ingest", as_json, summary=mapping is not None, mapping=mapping, files=suggest or [])


@app.command()
def validate(
    accept_drift: Annotated[bool, typer.Option(help="Accept a batch that differs much from the last one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pass landed tables through the quality gate: accepted to the lake, rejected to quarantine."""
    run_job("validate", as_json, accept_drift=accept_drift)


@app.command()
def quality(as_json: AsJson = False) -> None:
    """Say how good the data are. Exit code 0: good, 3: warnings, 4: critical, refused."""
    raise typer.Exit(EXIT_CODES[run_job("quality", as_json, summary=False)["severity"]])


@app.command()
def materialize(until: Until = None, as_json: AsJson = False) -> None:
    """Compute the feature views, `feast apply`, and fill the online store."""
    run_job("materialize", as_json, until=until)


@app.command()
def train(until: Until = None, as_json: AsJson = False) -> None:
    """Train on point-in-time snapshots and write a model version; with --until, one that looks back."""
    run_job("train", as_json, until=until)


@app.command()
def evaluate(
    version: Version = None,
    protocol: Protocol = None,
    as_json: AsJson = False,
) -> None:
    """Measure a version on the test weeks, beside simple methods and the oracle, or by a protocol."""
    if protocol:
        run_job(f"evaluate-{protocol}", as_json, module="protocols", summary=False, protocol=protocol, version=version)
    else:
        run_job("evaluate", as_json, version=version)


@app.command()
def publish(version: Version = None, as_json: AsJson = False) -> None:
    """Put a version's embeddings into the vector index and make it live."""
    run_job("publish", as_json, version=version)


@app.command()
def rollback(as_json: AsJson = False) -> None:
    """Make the previous version live again."""
    run_job("rollback", as_json)


@app.command()
def serve(as_json: AsJson = False) -> None:
    """Serve the live version over HTTP (RECSYS_HOST, RECSYS_PORT)."""
    run_job("serve", as_json)


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the embedded online store."""
    run_job("up", as_json, module="services", function="up")


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the embedded online store; its data stay."""
    run_job("down", as_json, module="services", function="down")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what exists, how old it is and which version serves."""
    run_job("status", as_json, summary=False)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="A query; without one, an interactive prompt.")] = None,
    fmt: Annotated[str, typer.Option("--format", help="table, json, csv or parquet")] = "table",
) -> None:
    """Ask the lake: one view a table, feature view and quarantine, read-only."""
    settings = Settings()
    importlib.import_module("jobs.sql").run(settings, Report("sql", settings.reports), query=query, fmt=fmt)


@app.command()
def pipeline(as_json: AsJson = False) -> None:
    """Everything from the world to a published version; stages that are done are quick to repeat."""
    run_job("pipeline", as_json)


@app.command()
def demo() -> None:
    """The pipeline, then a served API and a first look at what it answers."""
    run_job("demo", as_json=False)


def main() -> None:
    """Entry point: an expected error is one sentence and exit code 1, not a traceback."""
    try:
        app()
    except (RecsysError, OSError) as error:
        if (said := sentence(error)) is None:
            raise
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {escape(said)}", highlight=False)
        sys.exit(1)
