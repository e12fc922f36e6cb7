"""The whole way from the world to a published version, one process a stage.

A stage is a command of its own, so what it peaks at is its own, and a stage that dies takes no other with it.
"""

import json
import subprocess
import sys

from jobs.report import Report
from recsys.errors import RecsysError
from recsys.settings import Settings

STAGES = ("generate", "validate", "materialize", "train", "evaluate", "publish")


def run(settings: Settings, report: Report) -> None:
    """Run every stage; the first that fails ends the run."""
    seconds, peak = {}, 0.0
    for stage in STAGES:
        report.console.rule(f"[bold]recsys {stage}")
        done = subprocess.run([sys.executable, "-m", "jobs", stage], check=False)
        if done.returncode:
            raise RecsysError(f"stage {stage} failed (exit code {done.returncode}); what came before it is kept")
        content = json.loads((settings.reports / f"{stage}.json").read_text(encoding="utf-8"))
        seconds[stage] = content["seconds"]
        peak = max(peak, content["peak_rss_mb"])
    report.update(stage_seconds=seconds, stage_peak_rss_mb=peak)
