"""SIGKILL, not an exception: `ingest` and `validate` die at several file operations, most of them around acceptance.

One process imports the job, and forks a mortal child for every point: no handler runs in it, nothing is cleaned up.
That every single operation is a point to die at, exceptions show: `test_ingest.py` and `tests/unit/test_lake.py`.
"""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.atomic import restored
from recsys.lake import Lake
from recsys.settings import ROOT
from tests.integration.test_ingest import FRIENDS, ROWS, ingest, prepared, state, validated

MORTAL = """
import importlib, json, os, shutil, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from jobs.report import Report
from recsys.settings import Settings
from rich.console import Console

job, before, mapping = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
module = importlib.import_module(f"jobs.{job}")
if job == "validate":
    sys.modules["pyspark.sql.connect"] = None  # as `recsys.quality` does
    import great_expectations  # here, not in every child
ACCEPTS = {"ingest": ".landing.old", "validate": ".accepted"}
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")

def run(folder):
    settings = Settings(data_dir=folder, now=datetime(2024, 6, 1, tzinfo=UTC), _env_file=None)
    report = Report(job, settings.reports, Console(quiet=True))
    module.run(settings, report, **({"mapping": mapping, "files": []} if job == "ingest" else {"accept_drift": True}))

def forked(folder, killed_at, said=None):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = []
    def mortal(event, arguments):
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in OPERATIONS or writes) and str(folder) in str(arguments[0]):
            done.append(f"{event} {arguments[:2]}")
            if len(done) == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(mortal)
    code = 1
    try:
        run(folder)
        code = 0
        if said:
            said.write_text(json.dumps(done))
    finally:
        os._exit(code)

def copied(name):
    return Path(shutil.copytree(before, before.parent / name))

ends = before.parent / "operations.json"
assert forked(copied("whole"), 0, ends) == 0
operations = json.loads(ends.read_text())
total = len(operations)
# the rename that makes it so: of the judged state, or of what landed before, out of the way
moment = next(n for n, said in enumerate(operations, 1) if said.startswith("os.rename") and ACCEPTS[job] in said)
found = {}
for n in sorted({1, moment // 2, moment, moment + 1, (moment + 1 + total) // 2, total}):
    found[n] = forked(copied(f"killed-{n}"), n)
    shutil.copytree(before.parent / f"killed-{n}", before.parent / f"again-{n}")
    assert forked(before.parent / f"again-{n}", 0) == 0, n
print(json.dumps({"total": total, "found": found}))
"""
FOLDERS = {"ingest": ("landing",), "validate": ("lake", "quarantine", "reports/quality")}
ANEW = "docs/"  # Great Expectations names the parts of its pages at random


def mortal(job: str, before: Path, mapping: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", MORTAL, job, str(before), str(mapping)]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def states(folder: Path, job: str) -> dict[str, dict[str, bytes]]:
    """What the next job would find: it puts back, or finishes, what was cut off between two renames."""
    restored(folder / "landing")
    Lake(folder).close()
    return {
        name: {path: content for path, content in state(folder / name).items() if not path.startswith(ANEW)}
        for name in FOLDERS[job]
    }


@pytest.mark.parametrize("job", FOLDERS)
def test_killed_at_any_point_the_last_accepted_state_is_whole_and_running_again_completes_it(
    tmp_path: Path, job: str
) -> None:
    friends = "x,y\n7,u-8\n"
    older = prepared(tmp_path / "older", rows=ROWS[:4], extra=FRIENDS, friends__csv=friends)
    bad = ",cafe,2024-05-01 08:30:00,view,coffee"
    newer = prepared(tmp_path / "newer", rows=(*ROWS, bad), extra=FRIENDS, friends__csv=friends)
    before = tmp_path / "before"
    ingest(older, before)
    if job == "validate":
        validated(before, now=datetime(2024, 6, 1, tzinfo=UTC))
        ingest(newer, before)
    said = mortal(job, before, newer)
    old, new = states(before, job), states(tmp_path / "whole", job)
    assert old != new
    seen = []
    for n, code in said["found"].items():
        assert code == -signal.SIGKILL, n
        there = states(tmp_path / f"killed-{n}", job)
        assert there in (old, new), f"a mixture after operation {n} of {said['total']}"
        seen.append(there == new)
        assert states(tmp_path / f"again-{n}", job) == new, n
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (False, True)
