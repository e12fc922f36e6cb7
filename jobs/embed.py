"""A version's network over everybody as of a moment, part by part → `data/embeddings/<version>`."""

import hashlib
import json
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from jobs.command import midnight
from jobs.opened import load_model, opened
from jobs.report import Report
from recsys.artifacts import MANIFEST, newest, open_artifact
from recsys.atomic import replacing, write_json
from recsys.settings import Settings
from recsys.training.export import vector_lists
from recsys.training.partitions import PART_USERS, Parts, place_features, write_parts
from recsys.training.streaming import stream


def run(
    settings: Settings,
    report: Report,
    *,
    version: str | None = None,
    until: datetime | None = None,
    part_users: int = PART_USERS,
) -> None:
    """Make what is not made yet; what a killed run made is not made again.

    Args:
        settings: where things are.
        report: users, places, and users a second of the network's passes.
        version: whose network; default: the newest.
        until: features and edges as of this midnight, UTC; default: the end of the data.
        part_users: users of a part. Memory goes with it, not with how many users there are.

    Raises:
        NotReady: there is no version, or no features.
        ArtifactError: the version is damaged, or does not fit this code or the lake's taxonomy.
        DataError: the data name cities or neighborhoods that the version does not know.
    """
    artifact = open_artifact(settings.artifacts, version or newest(settings.artifacts))
    model = load_model(artifact)
    torch.set_num_threads(settings.threads)
    with opened(settings) as (lake, store):
        artifact.require_taxonomy(lake.taxonomy())
        artifact.require_features(store.schema())
        start, last = lake.horizon()
        end = last if until is None else midnight("--until", until, start, last)
        said = {"version": artifact.version, "until": end.isoformat(), "data": lake.fingerprint(), "users": part_users}
        folder = settings.embeddings / artifact.version
        fingerprint = _begun(folder, said)
        report.update(version=artifact.version, until=end.isoformat(), folder=str(folder))
        if (folder / MANIFEST).exists():
            report["unchanged"] = True
            report.console.print(f"embed: {folder} already holds these vectors")
            return
        with report.stage("users in parts"), report.progress() as bar:
            task = bar.add_task("embed: parts of users", total=None)
            for done, of in write_parts(lake, store, end, folder / "input", users=part_users):
                bar.update(task, completed=done, total=of)
            place_ids, place_x = place_features(lake, store, end)
    parts, clock = Parts(folder / "input"), time.perf_counter()
    with report.stage("network"), report.progress() as bar:
        task = bar.add_task("embed: parts of layers", total=None)
        places = stream(
            model, place_x, parts, folder, fingerprint,
            on_progress=lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip
    seconds = time.perf_counter() - clock
    with replacing(folder / "places.parquet") as aside:
        pq.write_table(_places(place_ids, places), aside, compression="zstd")
    counts = {"users": parts.n_users, "places": len(place_ids), "parts": len(parts)}
    write_json(folder / MANIFEST, {**said, **counts})
    for scratch in ("input", "states"):
        shutil.rmtree(folder / scratch)
    report.update(**counts, users_per_s=round(parts.n_users / seconds))


def _begun(folder: Path, said: dict[str, Any]) -> str:
    """The run's fingerprint; what another run left in the folder goes."""
    fingerprint = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    begun = folder / "run.json"
    if not begun.exists() or json.loads(begun.read_text(encoding="utf-8")) != {"fingerprint": fingerprint}:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(begun, {"fingerprint": fingerprint})
    return fingerprint


def _places(ids: Any, vectors: torch.Tensor) -> pa.Table:
    columns = {"place_id": pa.array(ids), "index": pa.array(np.arange(len(ids))), "embedding": vector_lists(vectors)}
    return pa.table(columns)
