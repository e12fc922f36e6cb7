"""A version's embeddings into the vector index, then live in one step."""

import asyncio

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.report import Report
from jobs.scorecard import against
from recsys.artifacts import Artifact, newest, open_artifact
from recsys.constants import FACETS
from recsys.errors import ArtifactError, WorseVersion
from recsys.index import Layout, Vectors, open_index
from recsys.settings import Settings
from recsys.taxonomy import read_taxonomy

_TIMEOUT_S = 60.0  # a batch of vectors takes a server longer than a search


def run(settings: Settings, report: Report, *, version: str | None = None, force: bool = False) -> None:
    """Publish a version, unless it is worse than the one that serves.

    Args:
        settings: where things are.
        report: the version, its points, and how it compares with the one that served.
        version: which; default: the newest.
        force: also a worse one.

    Raises:
        NotReady: there is no version.
        ArtifactError: the version is damaged, or was trained with another taxonomy than the lake's.
        WorseVersion: on the test weeks it finds less than the version that serves; nothing was changed.
    """
    artifact = open_artifact(settings.artifacts, version or newest(settings.artifacts))
    if settings.lake.exists():  # it may be published where no data are
        artifact.require_taxonomy(read_taxonomy(settings.lake))
    with report.stage("compare with the version that serves"):
        compared = against(settings, artifact, asyncio.run(_live(settings)))
    report["compared"] = compared.to_dict()
    report.console.print(compared.sentence)
    if compared.worse and not force:
        raise WorseVersion(f"{compared.sentence}: not published; `recsys publish --force` does it all the same")
    users, places = artifact.table("users"), artifact.table("places")
    points = {
        "places": Vectors(
            _ints(places, "place_id"), _ints(places, "city_id"), _named(places, "embedding"), _facets(artifact, places)
        ),
        "users": Vectors(_ints(users, "user_id"), _ints(users, "city_id"), _named(users, "embedding", "people")),
    }
    with report.stage(f"publish {artifact.version}"):
        live = asyncio.run(_publish(settings, artifact.version, points))
    report.update(version=live, points={name: len(p.ids) for name, p in points.items()})


async def _live(settings: Settings) -> str | None:
    index = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key, timeout_s=_TIMEOUT_S)
    try:
        return await index.refresh()
    finally:
        await index.close()


async def _publish(settings: Settings, version: str, points: dict[str, Vectors]) -> str | None:
    layout = Layout(settings.qdrant_by_city, settings.qdrant_replicas, settings.qdrant_write_consistency)
    index = open_index(
        settings.index, settings.qdrant_url, settings.qdrant_api_key, timeout_s=_TIMEOUT_S, layout=layout
    )
    try:
        await index.publish(version, points["places"], points["users"])
        return index.live
    finally:
        await index.close()


def _ints(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = table[name].to_numpy().astype(np.int64)
    return values


def _facets(artifact: Artifact, places: pa.Table) -> dict[str, list[int] | list[list[int]]]:
    if not set(FACETS) <= set(places.column_names):
        raise ArtifactError(f"version {artifact.version} was made by older code: run `recsys train`")
    return {name: places[name].to_pylist() for name in FACETS}


def _named(table: pa.Table, *names: str) -> dict[str, npt.NDArray[np.float32]]:
    flat = {name: np.asarray(table[name].combine_chunks().flatten(), dtype=np.float32) for name in names}
    return {name: values.reshape(len(table), -1) for name, values in flat.items()}
