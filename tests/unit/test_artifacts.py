"""A model version on disk: written whole, checked at every opening."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from recsys.artifacts import MANIFEST, Artifact, open_artifact, save_artifact, versions
from recsys.errors import ArtifactError, NotReady

TABLE = pa.table({"user_id": [1, 2, 3]})


def save(root: Path, version: str = "v1", created_at: str = "2024-01-01") -> Artifact:
    tensors = {"model": {"w": torch.arange(6.0).reshape(2, 3).T}}  # not contiguous: the writer has to see to it
    return save_artifact(root, version, {"created_at": created_at}, tables={"users": TABLE}, tensors=tensors)


def test_what_was_saved_comes_back(tmp_path: Path):
    save(tmp_path)
    artifact = open_artifact(tmp_path, "v1")
    assert artifact.version == "v1"
    assert artifact.table("users").equals(TABLE)
    assert torch.equal(artifact.tensors("model")["w"], torch.arange(6.0).reshape(2, 3).T)
    assert sorted(artifact.manifest["files"]) == ["model.safetensors", "users.parquet"]
    assert sorted(f.name for f in artifact.folder.iterdir()) == [MANIFEST, "model.safetensors", "users.parquet"]


def test_the_same_content_has_the_same_hashes(tmp_path: Path):
    assert save(tmp_path / "a").manifest["files"] == save(tmp_path / "b").manifest["files"]


@pytest.mark.parametrize("name", ["users.parquet", "model.safetensors"])
def test_one_flipped_bit_or_a_missing_file_is_named(tmp_path: Path, name: str):
    file = save(tmp_path).folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        open_artifact(tmp_path, "v1")
    file.unlink()
    with pytest.raises(ArtifactError, match=name):
        open_artifact(tmp_path, "v1")


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"files": 3}'])
def test_a_manifest_that_is_none_is_an_artifact_error(tmp_path: Path, content: str):
    (save(tmp_path).folder / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match="not a manifest"):
        open_artifact(tmp_path, "v1")


def test_what_is_not_there_says_what_to_run(tmp_path: Path):
    with pytest.raises(NotReady, match="recsys train"):
        open_artifact(tmp_path, "v1")
    with pytest.raises(ArtifactError, match="no file places"):
        save(tmp_path).table("places")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "Upper", "x" * 65])
def test_a_version_that_is_no_plain_name_is_refused_and_writes_nothing(tmp_path: Path, name: str):
    with pytest.raises(ArtifactError, match="name must match"):
        save(tmp_path / "root", name)
    with pytest.raises(ArtifactError, match="name must match"):
        open_artifact(tmp_path / "root", name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("before", [True, False])
def test_a_save_that_fails_half_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
):
    if before:
        save(tmp_path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)  # the table is written by then
        with pytest.raises(OSError, match="no space left"):
            save(tmp_path, created_at="2025-01-01")
    assert [f.name for f in tmp_path.iterdir()] == (["v1"] if before else [])
    if before:
        assert open_artifact(tmp_path, "v1").manifest["created_at"] == "2024-01-01"
    assert save(tmp_path, created_at="2025-01-01").manifest["created_at"] == "2025-01-01"


def test_versions_are_in_order_of_creation_and_only_finished_ones(tmp_path: Path):
    assert versions(tmp_path / "nothing") == []
    save(tmp_path, "b", "2024-01-01")
    save(tmp_path, "a", "2024-01-02")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / ".c.partial").mkdir()
    (tmp_path / ".c.partial" / MANIFEST).write_text(json.dumps({"created_at": "2025"}))
    assert versions(tmp_path) == ["b", "a"]


@pytest.mark.parametrize(
    "there",
    [
        {"place_activity": {"state": "Array(Float64) 0=seq", "renamed": "Int64"}},
        {"place_activity": {"state": "Array(Float32) 0=seq", "count": "Int64"}},
        {"place_activity": {"state": "Array(Float64) 0=last_at_us", "count": "Int64"}},
        {},
    ],
    ids=["renamed", "retyped", "another layout", "not registered"],
)
def test_a_registry_of_other_features_is_refused_with_both_lists(tmp_path: Path, there: dict[str, dict[str, str]]):
    trained = {"place_activity": {"state": "Array(Float64) 0=seq", "count": "Int64"}}
    artifact = Artifact(save(tmp_path).folder, save(tmp_path).manifest | {"features": trained})
    artifact.require_features(trained | {"another": {"x": "Int64"}})
    with pytest.raises(ArtifactError, match=r"another feature view place_activity than the registry's") as raised:
        artifact.require_features(there)
    assert "(got [count: Int64, state: Array(Float64) 0=seq]; the registry has [" in str(raised.value)
    for name, kind in there.get("place_activity", {}).items():
        assert f"{name}: {kind}" in str(raised.value)
