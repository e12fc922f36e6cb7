"""How a command becomes a job: settings, report, summary or JSON; and what its options and errors mean."""

import errno
import importlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console

from jobs.report import Report
from recsys.errors import ConfigError, RecsysError
from recsys.settings import Settings

EXIT_CODES = {"ok": 0, "warning": 3, "critical": 4}  # 1 is an error, 2 a mistyped command
SPINS = "1000"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_job(
    name: str, as_json: bool, module: str | None = None, function: str = "run", summary: bool = True, **options: Any
) -> dict[str, Any]:
    """Import a job, run it with the settings, write its report, show it and return it."""
    settings = read_settings()
    report = Report(name, settings.reports, Console(stderr=True, quiet=as_json))
    run: Callable[..., None] = getattr(importlib.import_module(f"jobs.{module or name}"), function)
    run(settings, report, **options)
    content = report.finish()
    if as_json:
        typer.echo(json.dumps(content, indent=2, default=str))
    elif summary:
        report.show(content)
    return content


def spin_briefly() -> None:
    """Have PyTorch's threads wait for each other for some ten microseconds, then sleep; before it is imported.

    By itself OpenMP spins for milliseconds: beside a busy process, a server for one, most of the time, and on the core
    that the other thread needs. Does nothing where the environment says it already.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def read_settings() -> Settings:
    """The settings.

    Raises:
        ConfigError: names those that are out of range; a value that may hold a password is not repeated.
    """
    try:
        return Settings()
    except ValidationError as error:
        said = []
        for wrong in error.errors():
            field = str(wrong["loc"][0])
            given = "" if field.endswith(("url", "key")) else f" (got {wrong['input']!r})"
            said.append(f"RECSYS_{field.upper()}: {wrong['msg'].removeprefix('Value error, ')}{given}")
        raise ConfigError("; ".join(said)) from None


def sentence(error: RecsysError | OSError) -> str | None:
    """What to say of an expected error; None: it was not expected."""
    if isinstance(error, RecsysError):
        return str(error)
    if error.errno in _NO_SPACE:
        return f"there is no space left; what was there before is as it was (got {error})"
    return None


def midnight(option: str, moment: datetime, low: datetime, high: datetime) -> datetime:
    """A moment given on the command line as a midnight in UTC, in (low, high].

    Raises:
        ConfigError: names the option and what was given.
    """
    utc = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if utc.time() != datetime.min.time() or not low < utc <= high:
        raise ConfigError(
            f"{option} must be a midnight, UTC, after {low:%Y-%m-%d} and up to {high:%Y-%m-%d} (got {utc})"
        )
    return utc
