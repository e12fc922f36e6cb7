"""The `recsys` command. A job is imported only when it runs: Feast and Great Expectations take seconds to import."""

import gc
import importlib
import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

from jobs import options as opt
from jobs.command import EXIT_CODES, read_settings, run_job, sentence, spin_briefly
from jobs.report import Report
from recsys.errors import RecsysError

app = typer.Typer(
    name="recsys",
    help="Places to go, and people to go with: data to served recommendations, one command a stage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def generate(force: opt.Force = False, as_json: opt.AsJson = False) -> None:
    """Make the synthetic city world (RECSYS_PRESET, RECSYS_USERS, RECSYS_PLACES, RECSYS_SEED)."""
    # Before numpy is imported: the workers share the cores, and BLAS threads of their own only spin against them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run_job("generate", as_json, force=force)


@app.command()
def ingest(mapping: opt.MappingFile = None, suggest: opt.Files = None, as_json: opt.AsJson = False) -> None:
    """Lay down your own tables (CSV, parquet, JSON lines or a query) instead of the synthetic world."""
    run_job("ingest", as_json, summary=mapping is not None, mapping=mapping, files=suggest or [])


@app.command()
def validate(accept_drift: opt.AcceptDrift = False, as_json: opt.AsJson = False) -> None:
    """Pass landed tables through the quality gate: accepted to the lake, rejected to quarantine."""
    run_job("validate", as_json, accept_drift=accept_drift)


@app.command()
def materialize(until: opt.Until = None, full: opt.Full = False, as_json: opt.AsJson = False) -> None:
    """Bring the feature views up to date, `feast apply`, and fill the online store with what is new."""
    run_job("materialize", as_json, until=until, full=full)


@app.command()
def verify(
    pit: opt.Pit = False,
    parity: opt.Parity = False,
    repair: opt.Repair = False,
    samples: opt.Samples = 200,
    as_json: opt.AsJson = False,
) -> None:
    """Prove what training saw and what is online, by recomputing a sample. Exit code 0: agrees, 3: behind, 4: off."""
    pit, parity = pit or not parity, parity or not pit
    report = run_job("verify", as_json, summary=False, pit=pit, parity=parity, repair=repair, samples=samples)
    raise typer.Exit(EXIT_CODES[report["severity"]])


@app.command()
def train(until: opt.Until = None, as_json: opt.AsJson = False) -> None:
    """Train on point-in-time snapshots and write a model version; with --until, one that looks back."""
    run_job("train", as_json, until=until)


@app.command()
def evaluate(version: opt.Version = None, protocol: opt.Protocol = None, as_json: opt.AsJson = False) -> None:
    """Measure a version on the test weeks, beside simple methods and the oracle, or by a protocol."""
    if protocol:
        run_job(f"evaluate-{protocol}", as_json, module="protocols", summary=False, protocol=protocol, version=version)
    else:
        run_job("evaluate", as_json, version=version)


@app.command()
def embed(version: opt.Version = None, until: opt.Until = None, as_json: opt.AsJson = False) -> None:
    """Vectors of everybody by a version's network, part by part: memory stays flat, a kill loses one part at most."""
    run_job("embed", as_json, version=version, until=until)


@app.command()
def publish(version: opt.Version = None, force: opt.Insist = False, as_json: opt.AsJson = False) -> None:
    """Put a version's embeddings into the vector index and make it live, unless it is worse than the live one."""
    run_job("publish", as_json, version=version, force=force)


@app.command()
def serve(workers: opt.Workers = 1, as_json: opt.AsJson = False) -> None:
    """Serve the live version over HTTP (RECSYS_HOST, RECSYS_PORT), and follow what is published."""
    run_job("serve", as_json, workers=workers)


@app.command()
def key(name: opt.KeyName = "app", operator: opt.OperatorRole = False) -> None:
    """Make an API key: print its secret, once, and the entry to configure."""
    importlib.import_module("jobs.key").run(name, operator=operator)


@app.command()
def experiment(window_hours: opt.WindowHours = 24.0, until: opt.AsOf = None, as_json: opt.AsJson = False) -> None:
    """What people did with the places that each version showed them: click-through and attend rate, with intervals."""
    run_job("experiment", as_json, window_hours=window_hours, until=until)


@app.command()
def sql(query: opt.Query = None, fmt: opt.Format = "table") -> None:
    """Ask the lake: one view a table, feature view and quarantine, read-only."""
    settings = read_settings()
    importlib.import_module("jobs.sql").run(settings, Report("sql", settings.reports), query=query, fmt=fmt)


@app.command()
def doctor(as_json: opt.AsJson = False) -> None:
    """Find what is wrong, and say what to run; it changes nothing. Exit code 0: no error, 1: some."""
    raise typer.Exit(importlib.import_module("jobs.doctor").run(read_settings(), Console(), as_json=as_json))


def _plain(name: str, module: str, function: str, about: str) -> None:
    def command(as_json: opt.AsJson = False) -> None:
        shown = name in ("quality", "status")
        report = run_job(name, as_json, module=module, function=function, summary=not shown)
        raise typer.Exit(EXIT_CODES[report.get("severity", "ok")])

    app.command(name, help=about)(command)


for _name, _what in opt.PLAIN.items():
    _plain(_name, *_what)


@app.command()
def demo() -> None:
    """The pipeline, then a served API and a first look at what it answers."""
    run_job("demo", as_json=False)


def main() -> None:
    """Entry point: an expected error is one sentence and exit code 1, not a traceback."""
    # What is imported stays: looking for garbage in it, again and again and once more at exit, took two seconds of ten.
    gc.set_threshold(100_000, 50, 100)
    spin_briefly()
    try:
        app()
    except (RecsysError, OSError) as error:
        if (said := sentence(error)) is None:
            raise
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {escape(said)}", highlight=False)
        sys.exit(1)
    finally:
        gc.freeze()
