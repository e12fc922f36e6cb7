"""The ablation table: the model trained without each of its parts, measured on the validation weeks."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from jobs.code import code_digest
from jobs.opened import opened
from jobs.report import Report
from jobs.train import train_config
from recsys.atomic import replacing
from recsys.settings import Settings
from recsys.training.ablation import VARIANTS, Ablated, differences, figures_of, markdown, variant_config
from recsys.training.config import Progress, TrainConfig
from recsys.training.snapshots import split_weeks, take_snapshot
from recsys.training.trainer import fit

FILE: Final = "ablation.parquet"
_SCHEMA: Final = pa.schema(
    [
        ("variant", pa.string()), ("run", pa.string()), ("reads", pa.string()),
        *((name, pa.float64()) for name in ("ndcg", "recall", "vectors_ndcg")),
        *((name, pa.float64()) for name in ("friend_auc", "attend_auc", "friend_ece", "attend_ece")),
        ("user_id", pa.list_(pa.int64())), ("user_ndcg", pa.list_(pa.float64())),
    ]
)  # fmt: skip


def run(settings: Settings, report: Report) -> None:
    """Train what was not trained yet on these data by this code, and show the table.

    Every variant is written as soon as it is finished, and one that was killed goes on from its last epoch.

    Args:
        settings: where things are, and how long to train.
        report: NDCG@10 by variant, how many were trained now, and where the table lies.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
        DataError: there are fewer than five weeks.
    """
    base = train_config(settings)
    path = settings.reports / FILE
    with opened(settings) as (lake, store):
        data, code = lake.fingerprint(), code_digest()
        runs = {name: _run(data, code, variant_config(base, name)) for name in VARIANTS}
        found = _kept(path, runs)
        missing = [name for name in VARIANTS if name not in found]
        users, places = (lake.query(f"SELECT count(*) AS n FROM {t}")["n"][0].as_py() for t in ("users", "places"))
        if missing:
            split = split_weeks(*lake.horizon())
            with report.stage("snapshots through Feast"):
                train = [take_snapshot(lake, store, *window) for window in split.train]
                valid = take_snapshot(lake, store, *split.valid)
    for name in missing:
        checkpoint = settings.data_dir / "checkpoints" / f"ablation-{runs[name][:8]}.safetensors"
        with report.stage(name), report.progress() as bar:
            task = bar.add_task(name, total=None)

            def show(p: Progress, bar: Any = bar, task: Any = task) -> None:
                done = p.epoch * p.steps + p.step
                bar.update(task, total=p.epochs * p.steps, completed=done, description=p.stage)

            fitted = fit(train, valid, variant_config(base, name), checkpoint=checkpoint, on_progress=show)
        found[name] = figures_of(name, runs[name], fitted)
        _keep(path, [found[n] for n in VARIANTS if n in found])
        checkpoint.unlink(missing_ok=True)
    rows = [found[name] for name in VARIANTS]
    table = settings.reports / "ablation.md"
    with replacing(table) as aside:
        aside.write_text(markdown(rows, f"{users:,} users, {places:,} places"), encoding="utf-8")
    report["ndcg"] = {one.variant: round(one.ndcg, 5) for one in rows}
    report.update(trained_now=len(missing), table=str(table))
    report.console.print(_table(rows))


def _run(data: str, code: str, config: TrainConfig) -> str:
    return hashlib.sha256(json.dumps([data, code, config.to_dict()], sort_keys=True).encode()).hexdigest()


def _kept(path: Path, runs: Mapping[str, str]) -> dict[str, Ablated]:
    """Of these runs by variant, those that are finished; none where the file is not there or damaged."""
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException):
        return {}
    return {
        row["variant"]: Ablated(
            **{**row, "user_id": np.array(row["user_id"], np.int64), "user_ndcg": np.array(row["user_ndcg"])}
        )
        for row in rows
        if row.get("run") is not None and runs.get(row.get("variant")) == row["run"]
    }


def _keep(path: Path, found: list[Ablated]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{field.name: getattr(one, field.name) for field in dataclasses.fields(one)} for one in found]
    with replacing(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), aside)


def _table(rows: list[Ablated]) -> Table:
    users, minus = len(rows[0].user_id), differences(rows)
    table = Table(title=f"ablation: validation weeks, {users:,} users, NDCG@10", title_justify="left")
    for head in ("variant", "ndcg", "less the whole, 95 %", "vectors alone", "friend auc", "attend auc", "reads"):
        table.add_column(head)
    for one in rows:
        d = minus.get(one.variant)
        change = "" if d is None else f"{d['mean']:+.4f}  [dim]{d['low']:+.4f} … {d['high']:+.4f}[/]"
        people = ("–" if v is None else f"{v:.4f}" for v in (one.friend_auc, one.attend_auc))
        table.add_row(one.variant, f"{one.ndcg:.4f}", change, f"{one.vectors_ndcg:.4f}", *people, one.reads)
    return table
