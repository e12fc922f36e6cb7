"""A model version as a folder: `manifest.json` and the files it names, each with its hash. No pickle anywhere.

A version's name says what went into it (data, configuration, code of the model), so the same training run twice
makes the same version, and a version is written whole or not at all.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.atomic import replacing_folder, write_json
from recsys.errors import ArtifactError, DataError, NotReady
from recsys.taxonomy import CITY, Taxonomy

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
VERSION = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,63}$")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """One model version on disk, its hashes checked when it was opened."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The one name of the artifact, its collections and its answers."""
        return str(self.manifest["version"])

    @property
    def taxonomy(self) -> Taxonomy:
        """What it was trained with; the synthetic world's where the manifest is from before it said so.

        Raises:
            ArtifactError: the manifest's is none.
        """
        if "taxonomy" not in self.manifest:
            return CITY
        try:
            return Taxonomy.from_dict(self.manifest["taxonomy"])
        except DataError as error:
            raise ArtifactError(f"version {self.version} has no usable taxonomy: {error}") from error

    def require_taxonomy(self, there: Taxonomy) -> None:
        """Refuse a lake whose positions mean something else, even where all widths are the same.

        Raises:
            ArtifactError: names the first list that differs, and where.
        """
        for kind in ("categories", "tags", "tag_category", "vibes"):
            mine, theirs = getattr(self.taxonomy, kind), getattr(there, kind)
            if mine == theirs:
                continue
            at = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
            )
            said = [
                f"{len(names)} {kind}" + (f", {names[at]!r} at {at}" if at < len(names) else "")
                for names in (mine, theirs)
            ]
            raise ArtifactError(
                f"version {self.version} was trained with another taxonomy than the lake's: run `recsys materialize` "
                f"and `recsys train` (got {said[0]}; the lake has {said[1]})"
            )

    def require_features(self, there: Mapping[str, Mapping[str, str]]) -> None:
        """Refuse a registry whose views are not those that the version was trained with.

        Args:
            there: feature → type and layout, by view.

        Raises:
            ArtifactError: names the first view that differs, both lists side by side.
        """
        for view, mine in self.manifest.get("features", {}).items():
            theirs = there.get(view, {})
            if mine != theirs:
                raise ArtifactError(
                    f"version {self.version} was trained with another feature view {view} than the registry's: "
                    f"`recsys materialize` and `recsys train`, or `recsys rollback` (got {_list(mine)}; "
                    f"the registry has {_list(theirs)})"
                )

    def table(self, name: str) -> pa.Table:
        """Read `<name>.parquet`."""
        return pq.read_table(self._named(f"{name}.parquet"))

    def optional_table(self, name: str) -> pa.Table | None:
        """Read `<name>.parquet`; None where the version has none."""
        return self.table(name) if f"{name}.parquet" in self.manifest["files"] else None

    def tensors(self, name: str) -> "dict[str, torch.Tensor]":
        """Read `<name>.safetensors`, on the CPU."""
        from safetensors.torch import load_file

        return load_file(self._named(f"{name}.safetensors"))

    def _named(self, name: str) -> Path:
        if name not in self.manifest["files"]:
            raise ArtifactError(f"version {self.version} has no file {name} (got {sorted(self.manifest['files'])})")
        return self.folder / name


def _list(features: Mapping[str, str]) -> str:
    return "[" + ", ".join(f"{name}: {kind}" for name, kind in sorted(features.items())) + "]"


def save_artifact(
    root: Path,
    version: str,
    manifest: Mapping[str, Any],
    *,
    tables: Mapping[str, pa.Table],
    tensors: "Mapping[str, Mapping[str, torch.Tensor]]",
) -> Artifact:
    """Write a version aside, hash its files and rename it into place.

    Args:
        root: folder of all versions.
        version: its name; lower-case letters, digits, `_`, `.`, `-`.
        manifest: anything JSON; `version` and `files` are added.
        tables: written as `<name>.parquet`.
        tensors: written as `<name>.safetensors`.
    """
    from safetensors.torch import save_file  # torch takes a second to import: not to list versions

    _check_name(version)
    writers: dict[str, Callable[[Path], object]] = {}
    for name, table in tables.items():
        writers[f"{name}.parquet"] = partial(pq.write_table, table, compression="zstd")
    for name, named in tensors.items():
        # copies: two names of one tensor (a shared embedding table) would be refused
        content = {key: value.detach().cpu().clone().contiguous() for key, value in named.items()}
        writers[f"{name}.safetensors"] = partial(save_file, content)
    with replacing_folder(root / version) as folder:
        for name, write in writers.items():
            write(folder / name)
        files = {name: sha256(folder / name) for name in writers}
        write_json(folder / MANIFEST, {"version": version, **manifest, "files": files})
    return open_artifact(root, version)


def open_artifact(root: Path, version: str) -> Artifact:
    """Open a version and check every file against its hash.

    Raises:
        NotReady: there is no such version.
        ArtifactError: a file is missing or damaged.
    """
    _check_name(version)
    path = root / version / MANIFEST
    if not path.is_file():
        raise NotReady(f"no model version {version} under {root}: run `recsys train`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a manifest (got {error!r})") from error
    for name, expected in files.items():
        file = path.parent / name
        if not file.is_file() or sha256(file) != expected:
            raise ArtifactError(f"{file} is damaged or missing: train or restore version {version}")
    return Artifact(path.parent, manifest)


def versions(root: Path) -> list[str]:
    """Names of the finished versions, oldest first by what their manifests say."""
    found = [path.parent for path in root.glob(f"*/{MANIFEST}") if VERSION.match(path.parent.name)]
    return [f.name for f in sorted(found, key=lambda f: (_created(f / MANIFEST), f.name))]


def newest(root: Path) -> str:
    """The version that was made last; one that was made to look back (`train --until`) never is.

    Raises:
        NotReady: there is none.
    """
    there = [v for v in versions(root) if not _manifest(root / v / MANIFEST).get("backtest")]
    if not there:
        raise NotReady("no model version yet: run `recsys train`")
    return there[-1]


def _manifest(path: Path) -> dict[str, Any]:
    """What a manifest says; nothing where it is damaged: opening the version says what is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _created(path: Path) -> str:
    """When, by the manifest; a damaged one sorts first."""
    return str(_manifest(path).get("created_at", ""))


def _check_name(version: str) -> None:
    if not VERSION.match(version):
        raise ArtifactError(f"a version's name must match {VERSION.pattern} (got {version!r})")
