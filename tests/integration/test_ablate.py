"""`recsys ablate`: one table, each variant trained once whatever dies in between."""

import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import ablate
from jobs.report import Report
from recsys.settings import Settings
from recsys.training.ablation import VARIANTS, WHOLE
from recsys.training.trainer import Fitted
from tests.conftest import ROOT, Filled

FEW = {name: VARIANTS[name] for name in (WHOLE, "no messages at all")}


class Killed(Exception):
    """Stands for a kill."""


def test_what_was_trained_is_not_trained_again(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(filled.data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("artifacts", "reports"))
    settings = Settings(
        data_dir=tmp_path / "data", redis_url=filled.redis_url, feature_repo=ROOT / "feature_repo", epochs=1, threads=1,
        _env_file=None,
    )  # fmt: skip
    monkeypatch.setattr(ablate, "VARIANTS", FEW)
    trained: list[str] = []
    real = ablate.fit

    def fit(*args: Any, **kwargs: Any) -> Fitted:
        if trained:
            raise Killed
        trained.append("one")
        return real(*args, **kwargs)

    def made() -> Report:
        return Report("ablate", settings.reports, Console(file=StringIO(), width=300))

    with monkeypatch.context() as patch:
        patch.setattr(ablate, "fit", fit)
        with pytest.raises(Killed):
            ablate.run(settings, made())
    first = pq.read_table(settings.reports / ablate.FILE).to_pylist()
    assert [row["variant"] for row in first] == [WHOLE]
    report = made()
    ablate.run(settings, report)
    assert report.figures["trained_now"] == 1
    rows = pq.read_table(settings.reports / ablate.FILE).to_pylist()
    assert [row["variant"] for row in rows] == list(FEW)
    assert rows[0] == first[0]
    assert rows[1]["vectors_ndcg"] != rows[0]["vectors_ndcg"]
    assert rows[0]["ndcg"] == pytest.approx(sum(rows[0]["user_ndcg"]) / len(rows[0]["user_ndcg"]))
    table = (settings.reports / "ablation.md").read_text()
    assert f"| {WHOLE} | {rows[0]['ndcg']:.4f} |" in table
    assert "no messages at all" in report.console.file.getvalue()
    again = made()
    monkeypatch.setattr(ablate, "fit", fit)  # would be killed
    ablate.run(settings, again)
    assert (again.figures["trained_now"], again.figures["ndcg"]) == (0, report.figures["ndcg"])
    longer = settings.model_copy(update={"epochs": 2})
    with pytest.raises(Killed):
        ablate.run(longer, made())
    (settings.reports / ablate.FILE).write_bytes(b"half a fi")
    with pytest.raises(Killed):
        ablate.run(settings, made())
