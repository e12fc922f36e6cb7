"""Point-in-time snapshots → fit → a model version."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs import training_page
from jobs.code import code_digest, commit
from jobs.command import midnight
from jobs.opened import opened
from jobs.report import Report
from recsys.artifacts import Artifact, open_artifact, save_artifact, versions
from recsys.dataset import world_of
from recsys.lake import Lake
from recsys.settings import Settings
from recsys.training.config import Progress, TrainConfig
from recsys.training.evaluation import embed
from recsys.training.export import export
from recsys.training.inputs import prepare
from recsys.training.picture import vector_maps
from recsys.training.processes import Processes, device_of, joined
from recsys.training.shelf import Shelf
from recsys.training.snapshots import split_weeks, take_snapshot
from recsys.training.trainer import finish
from recsys.training.vectors import learn


def run(settings: Settings, report: Report, *, until: datetime | None = None) -> None:
    """Train a version, unless the same data, configuration and code have made one already.

    Started by `torchrun`, all its processes learn the vectors together; the first one does everything else.

    Args:
        settings: where things are.
        report: the version, its epochs and its validation figures.
        until: look back: a version that knows only what happened before this midnight, UTC. It is measured by
            `recsys evaluate --protocol … --version …` and never published by default.

    Raises:
        ConfigError: `until` is no midnight of the data's days, or there is no such device.
        DataError: there are fewer than five weeks.
    """
    config = train_config(settings)
    with joined(config.device) as processes, opened(settings) as (lake, store):
        report.console.quiet |= not processes.first
        start, last_day = lake.horizon()
        end = last_day if until is None else midnight("--until", until, start, last_day)
        split = split_weeks(start, end, tested=end == last_day)
        data = lake.fingerprint()
        name = json.dumps([data, end.isoformat(), config.to_dict(), code_digest()], sort_keys=True)
        version = f"{end:%Y%m%d}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        report.update(version=version, data_fingerprint=data, until=end.isoformat())
        if version in versions(settings.artifacts):
            _only_first(processes)
            report.console.print(f"version {version} is there already: nothing to do")
            _figures(report, open_artifact(settings.artifacts, version))
            return
        checkpoint = settings.data_dir / "checkpoints" / f"{version}.safetensors"
        shelf = Shelf(checkpoint.with_suffix(f".{processes.rank}"))
        with report.stage("snapshots through Feast"):
            train = [shelf.put(take_snapshot(lake, store, *window)) for window in split.train]
            valid = shelf.put(take_snapshot(lake, store, *split.valid))
        with report.stage("fit"), report.progress() as bar:
            task = bar.add_task("vectors", total=None)

            def show(p: Progress) -> None:
                best = "" if p.ndcg is None else f", validation NDCG@10 {p.ndcg:.4f}"
                bar.update(
                    task, total=p.epochs * p.steps, completed=p.epoch * p.steps + p.step,
                    description=f"{p.stage}, epoch {p.epoch + 1}{best}",
                )  # fmt: skip

            learned = learn(
                train, valid, config, processes=processes, checkpoint=checkpoint, shelf=shelf, on_progress=show
            )
            if not processes.first:
                shelf.clear()
            _only_first(processes)
            fitted = finish(learned, processes=processes, on_progress=show)
        del train, learned
        shelf.clear()
        with report.stage("embed as of the end"):
            last = prepare(take_snapshot(lake, store, end, end), fitted.model.config)
            vectors = embed(fitted.model, last)
            out = export(fitted, last, vectors, lake.query("SELECT * FROM places ORDER BY place_id"))
            tables = {**out.tables, **_source_ids(lake)}
            names = training_page.Names.of(lake)
        manifest: dict[str, Any] = {
            "created_at": datetime.now(UTC).isoformat(),
            "until": end.isoformat(),
            "backtest": end < last_day,
            "taxonomy": lake.taxonomy().to_dict(),
            "world": world_of(lake.source()),
            "features": store.schema(),
            "synthetic": bool(lake.source().get("synthetic", False)),
            "git_commit": commit(),
            "data_fingerprint": data,
            "config": out.config,
            "metrics": {
                "reads": fitted.reads,
                "best_epoch": fitted.best_epoch + 1,
                "validation": fitted.valid.to_dict(),
                "history": fitted.history,
            },
        }
    artifact = save_artifact(settings.artifacts, version, manifest, tables=tables, tensors=out.tensors)
    checkpoint.unlink(missing_ok=True)
    report["page"] = training_page.write(
        settings.reports, version, manifest["metrics"], names, fitted.valid, valid,
        weeks="validation weeks", window=split.valid,
        maps=vector_maps(last, vectors, cities=names.cities, categories=names.categories),
    )  # fmt: skip
    _figures(report, artifact)


def train_config(settings: Settings) -> TrainConfig:
    """How to train, by the settings.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    return TrainConfig(
        seed=settings.seed, epochs=settings.epochs, threads=settings.threads, device=device_of(settings.device)
    )


def _only_first(processes: Processes) -> None:
    """End here in every process but the first, which writes and reports."""
    if not processes.first:
        raise SystemExit(0)


def _source_ids(lake: Lake) -> dict[str, pa.Table]:
    """The ids that requests may name, for data that were ingested: id, source, source_id."""
    if not lake.source().get("derived"):
        return {}
    return {
        f"{kind}_ids": lake.query(
            f"SELECT id, source, source_id FROM {kind}s_ids WHERE id IN (SELECT {kind}_id FROM {kind}s) ORDER BY id"
        )
        for kind in ("user", "place")
    }


def _figures(report: Report, artifact: Artifact) -> None:
    metrics = artifact.manifest["metrics"]
    report.update(reads=metrics["reads"], best_epoch=metrics["best_epoch"])
    report["validation"] = metrics["validation"]["rows"]["model"]
