"""Looking for what is wrong: checks that change nothing, each within a deadline, and those of the machine itself.

A check imports what it needs when it runs: a package that is missing or broken must not keep the others from running.
"""

import importlib.metadata
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from recsys.errors import RecsysError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "warning", "error", "not applicable"]
DEADLINE_S: Final = 30.0  # Feast alone takes seconds to import
_HTTP_S: Final = 2.0
_LEAST_GB: Final = 0.5  # of disk and memory, below which jobs and events fail
_MANY: Final = 5  # names of a list that are said
_WELL: Final = ("answers", "loaded")  # of the parts that /ready names


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        found: in words, with figures.
        run: what mends it; empty where nothing has to be.
    """

    state: State
    found: str
    run: str = ""


@dataclass(frozen=True)
class Finding:
    """A check's name and verdict."""

    name: str
    state: State
    found: str
    run: str


Check = Callable[[], Verdict]


def examine(checks: Mapping[str, Check], *, deadline_s: float = DEADLINE_S) -> list[Finding]:
    """Run checks, one after another; one that does not end by its deadline is left alone, and said to hang.

    Args:
        checks: by name.
        deadline_s: for each of them, seconds.

    Returns:
        A finding a check, in order.
    """
    verdicts: dict[str, Verdict] = {}

    def run(name: str, check: Check) -> None:
        try:
            verdicts[name] = check()
        except RecsysError as error:
            verdicts[name] = Verdict("error", str(error))
        except Exception as error:  # noqa: BLE001 - what a check did not foresee is a finding too
            verdicts[name] = Verdict("error", f"the check failed: {type(error).__name__}: {error}")

    # Not at the same time: importing Feast hides torch from whoever imports it meanwhile. And not in a pool, which
    # would wait at exit for what hangs.
    for name, check in checks.items():
        thread = threading.Thread(target=run, args=(name, check), name=f"doctor {name}", daemon=True)
        thread.start()
        thread.join(deadline_s)
    late = Verdict(
        "error", f"no answer within {deadline_s:g} s", "look at what this check reads: a disk or server hangs"
    )
    found = {name: verdicts.get(name, late) for name in checks}
    return [Finding(name, v.state, v.found, v.run) for name, v in found.items()]


# ------------------------------------------------------------------------------------------------------------- packages
def python(package: str, constraints: Path) -> Verdict:
    """Whether this Python and the installed packages are those that a package asks for, and was tested with.

    Args:
        package: an installed distribution.
        constraints: what was tested together, `name==version` a line; it need not exist.
    """
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    about = importlib.metadata.metadata(package)
    version = ".".join(map(str, sys.version_info[:3]))
    if not SpecifierSet(about["Requires-Python"] or "").contains(version):
        return Verdict("error", f"Python {about['Requires-Python']} is needed (got {version})", "make clean, then make")
    install = f"{sys.executable} -m pip install --constraint {constraints.name} --editable ."
    wanted = [Requirement(text) for text in importlib.metadata.requires(package) or ()]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    if broken := _unmet(needed, missing=True):
        return Verdict("error", f"packages are missing or of another version: {broken}", install)
    if not constraints.exists():
        return Verdict("ok", f"Python {version}; every package that is needed is there")
    lines = constraints.read_text(encoding="utf-8").splitlines()
    tested = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    if other := _unmet(tested, missing=False):
        return Verdict("warning", f"these were not tested together: {other}", install)
    return Verdict("ok", f"Python {version}; packages as in {constraints.name}")


def _unmet(wanted: Iterable["Requirement"], *, missing: bool) -> str:
    """Names and versions of packages that are other than wanted; with those that are not there, if they matter."""
    out = []
    for requirement in wanted:
        try:
            there = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            out += [f"{requirement} (not installed)"] * missing
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            out.append(f"{requirement} (got {there})")
    return _some(out)


# -------------------------------------------------------------------------------------------------------------- machine
def disk(folder: Path, *, least_gb: float = _LEAST_GB, enough_gb: float = 2.0) -> Verdict:
    """Whether there is space for a folder, which need not exist yet; a run of the default size writes about 1 GB."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Verdict("error", f"{there} cannot be written", f"chown {there}, or set RECSYS_DATA_DIR")
    free = shutil.disk_usage(there).free / 1e9
    mend = f"make space on the disk of {there}, or set RECSYS_DATA_DIR"
    return _enough(f"{free:,.1f} GB free for {there}", free, least_gb, enough_gb, mend)


def memory(limit_gb: float, *, least_gb: float = _LEAST_GB, enough_gb: float = 4.0) -> Verdict:
    """Whether there is memory: training at the default size peaks at 3.6 GB.

    Args:
        limit_gb: RECSYS_MEMORY_LIMIT_GB.
        least_gb, enough_gb: available below which jobs fail, and from which nothing is said.
    """
    import psutil

    there = psutil.virtual_memory()
    total, free = there.total / 1e9, there.available / 1e9
    said = f"{free:,.1f} of {total:,.1f} GB available"
    if limit_gb > total:
        mend = f"RECSYS_MEMORY_LIMIT_GB={max(1, int(total / 2))}"
        return Verdict("warning", f"{said}; RECSYS_MEMORY_LIMIT_GB is more than there is (got {limit_gb:g})", mend)
    return _enough(said, free, least_gb, enough_gb, "end other programs before `recsys train`")


def _enough(said: str, free: float, least: float, enough: float, mend: str) -> Verdict:
    if free < enough:
        return Verdict("error" if free < least else "warning", f"{said}: {enough:g} GB are needed", mend)
    return Verdict("ok", said)


def api(host: str, port: int) -> Verdict:
    """Whether the API's port is free, or the API answers there, and how it does."""
    try:
        socket.create_server((host, port)).close()
    except PermissionError:
        return Verdict("error", f"port {port} may not be used", "RECSYS_PORT=8000")
    except OSError as error:
        where = f"{'127.0.0.1' if host in ('0.0.0.0', '::', '') else host}:{port}"
        return _whose(where, port, error)
    return Verdict("ok", f"port {port} is free")


def _whose(where: str, port: int, error: OSError) -> Verdict:
    import httpx

    other = f"RECSYS_PORT={port + 1}, or end what holds the port (lsof -i :{port})"
    try:
        with httpx.Client(base_url=f"http://{where}", timeout=_HTTP_S, trust_env=False) as client:
            if client.get("/").json()["name"] != "recsys":
                raise ValueError("it is not this API")
            answer = client.get("/ready")
            said = answer.json()
    except httpx.TimeoutException:
        return Verdict("error", f"port {port} is taken, and what listens there does not answer", other)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Verdict("error", f"{where} is another program's (got {error.strerror})", other)
    if answer.status_code != 200:
        return Verdict("error", f"the API at {where} is not ready: {said['detail']}", "recsys status")
    if said["status"] != "ready":
        parts = "; ".join(f"{name}: {state}" for name, state in said["parts"].items() if state not in _WELL)
        return Verdict("warning", f"the API at {where} does without: {parts}", "see the other lines")
    return Verdict("ok", f"the API answers at {where} by version {said['model_version']}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")
