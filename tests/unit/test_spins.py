"""The command says how long PyTorch's threads spin, before PyTorch is there to be told, and leaves the user's word."""

import os
import subprocess
import sys

import pytest

from jobs.command import SPINS

_CODE = """
import os, sys
from jobs.cli import main
sys.argv = ["recsys", "--help"]
try:
    main()
except SystemExit:
    print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("said", "found"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_spin_for_a_moment_unless_told_otherwise(said: dict[str, str], found: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True, env=env | said)
    assert done.stdout.splitlines()[-1] == f"False {found}"
