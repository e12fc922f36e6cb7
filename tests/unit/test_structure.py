"""The shape of the code: import contracts, module sizes, and that the README's commands exist."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_imports_point_down_and_vendors_stand_behind_one_module():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_modules_stay_small():
    limits = {"recsys": 350, "api": 300, "jobs": 160}
    for folder, limit in limits.items():
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines (limit {limit})"


def test_the_api_loads_nothing_that_only_jobs_need():
    """What really is imported, not only what the import statements say."""
    unwanted = "[m for m in ('great_expectations', 'torch_geometric') if m in sys.modules]"
    shared = "prometheus_client.values.ValueClass._multiprocess"  # Feast would have it count in files
    code = f"import sys, api.app, prometheus_client; print({unwanted}, {shared})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
