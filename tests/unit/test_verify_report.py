"""What `recsys verify` prints can be read where nobody has a wide terminal."""

import io
from pathlib import Path

from rich.console import Console

from jobs.report import Report
from jobs.verify import _show


def test_nothing_is_cut_off_at_80_columns(tmp_path: Path):
    out = io.StringIO()
    one = {"sampled": 1_000, "off": 1_000, "missing": 1_000, "worst": 1.2e-05, "age_days": [123.4, 234.5, 345.6]}
    keys = [f"({n * 10**15}, {n * 10**15 + 1})" for n in (7, 8, 9)]
    groups = {
        "pit 12-31": {"place_activity": one | {"examples": keys}},
        "parity": {"place_profile": one | {"off": 0, "examples": []}},
    }
    _show(Report("verify", tmp_path, Console(file=out, width=80)), groups, None)
    said = out.getvalue()
    assert "…" not in said
    table, examples = said.split("off, ", 1)
    assert all(len(line) <= 80 for line in table.splitlines())
    for text in ("pit 12-31", "place_activity", "parity", "place_profile", "1,000", "1e-05", "123.4/234.5/345.6"):
        assert text in table
    assert ("off, " + examples).splitlines() == [f"off, pit 12-31, place_activity: {key}" for key in keys[:2]]
