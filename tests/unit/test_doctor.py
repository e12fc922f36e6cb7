"""The doctor against the real broken thing: each check, what it says, what it says to run; and that nothing changes."""

import asyncio
import importlib.metadata
import io
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from rich.console import Console

from jobs import doctor, doctor_data, doctor_serving, doctor_stores
from jobs.command import read_settings
from recsys import health, services
from recsys.artifacts import save_artifact
from recsys.dataset import world_of
from recsys.errors import ConfigError, NotReady
from recsys.events import Event, EventLog, last_position
from recsys.features import FeatureStore, LiveStates, Mark
from recsys.health import Verdict
from recsys.index import Vectors, open_index
from recsys.refresh import Made
from recsys.safety import Safety
from recsys.schemas import TABLES
from recsys.settings import Settings
from tests.conftest import ROOT, free_port

NOW = datetime(2024, 3, 25, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", redis_url=f"redis://127.0.0.1:{free_port()}/0", port=free_port(),
        feature_repo=ROOT / "feature_repo", _env_file=None,
    )  # fmt: skip


@contextmanager
def store(settings: Settings) -> Iterator[services.Server]:
    server = services.start(settings.redis_url, settings.redis)
    try:
        yield server
    finally:
        os.kill(server.pid, signal.SIGCONT)
        services.stop(settings.redis_url, settings.redis)


@contextmanager
def answering(port: int, answers: dict[str, tuple[int, object]]) -> Iterator[None]:
    """An HTTP server of somebody's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {"detail": "no"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def said(verdict: Verdict, state: str, *words: str) -> None:
    assert verdict.state == state, verdict
    for word in words:
        assert word in f"{verdict.found} → {verdict.run}", verdict


# -------------------------------------------------------------------------------------------------------------- running
def test_what_hangs_or_fails_is_a_finding_and_holds_nobody_up():
    def fails() -> Verdict:
        raise RuntimeError("boom")

    def refuses() -> Verdict:
        raise NotReady("run `recsys train`")

    ends = threading.Event()

    def hangs() -> Verdict:
        ends.wait()
        return Verdict("ok", "")

    start = time.monotonic()
    good = Verdict("ok", "fine")
    found = health.examine({"a": hangs, "b": fails, "c": refuses, "d": lambda: good, "e": hangs}, deadline_s=0.1)
    assert time.monotonic() - start < 5
    ends.set()
    assert [f.state for f in found] == ["error", "error", "error", "ok", "error"]
    assert found[0].found == "no answer within 0.1 s"
    assert found[1].found == "the check failed: RuntimeError: boom"
    assert found[2].found == "run `recsys train`"


def test_an_empty_folder_has_nothing_wrong_and_stays_empty(settings: Settings):
    out = io.StringIO()
    assert doctor.run(settings, Console(file=out, width=80)) == 0
    for name in doctor.checks(settings):
        assert name in out.getvalue()
    assert "recsys train" in out.getvalue()
    out = io.StringIO()
    assert doctor.run(settings, Console(file=out, width=80), as_json=True) == 0
    told = json.loads(out.getvalue())
    assert told["errors"] == 0
    assert {c["state"] for c in told["checks"][4:]} <= {"ok", "not applicable", "warning"}
    assert not settings.data_dir.exists()


def test_an_error_is_exit_code_1_and_markup_is_text(settings: Settings):
    settings.index.mkdir(parents=True)
    (settings.index / "live.json").write_text('{"live": "v[bold]1", "previous": null}')
    out = io.StringIO()
    assert doctor.run(settings, Console(file=out, width=200)) == 1
    assert "v[bold]1 is live and the index does not hold it" in out.getvalue()


# -------------------------------------------------------------------------------------------------------------- machine
def test_python_and_packages(tmp_path: Path):
    constraints = tmp_path / "constraints.txt"
    said(health.python("recsys", constraints), "ok")
    numpy = importlib.metadata.version("numpy")
    constraints.write_text(f"# tested together\nnumpy=={numpy}\nnot-there-at-all==1.0\n")
    said(health.python("recsys", constraints), "ok", "constraints.txt")
    constraints.write_text("numpy==1.0\n")
    said(health.python("recsys", constraints), "warning", f"numpy==1.0 (got {numpy})", "--constraint constraints.txt")


def test_a_package_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    about = tmp_path / "needy-1.0.dist-info"
    about.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: needy", "Version: 1.0", "Requires-Dist: not-there-at-all>=2", ""]
    (about / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    said(health.python("needy", tmp_path / "none"), "error", "not-there-at-all>=2 (not installed)")
    (about / "METADATA").write_text("\n".join([*lines[:3], "Requires-Python: >=4", ""]))
    said(health.python("needy", tmp_path / "none"), "error", "Python >=4 is needed")


def test_disk_and_memory(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free / 1e9
    said(health.disk(tmp_path / "not" / "yet"), "ok" if free > 2 else "warning")
    said(health.disk(tmp_path, enough_gb=free * 2), "warning", "make space")
    said(health.disk(tmp_path, least_gb=free * 2, enough_gb=free * 2), "error", "make space")
    said(health.memory(6.0, least_gb=0, enough_gb=0), "ok", "GB available")
    said(health.memory(6.0, enough_gb=1e6, least_gb=0), "warning")
    said(health.memory(6.0, enough_gb=1e6, least_gb=1e6), "error")
    said(health.memory(1e6), "warning", "RECSYS_MEMORY_LIMIT_GB is more than there is")


def test_the_apis_port():
    port = free_port()
    said(health.api("127.0.0.1", port), "ok", "is free")
    with answering(port, {"/": (200, {"name": "shop"})}):
        said(health.api("127.0.0.1", port), "error", "another program's", f"RECSYS_PORT={port + 1}")
    ready = {"status": "ready", "model_version": "v1", "parts": {}}
    with answering(port, {"/": (200, {"name": "recsys"}), "/ready": (200, ready)}):
        said(health.api("0.0.0.0", port), "ok", "by version v1")
    parts = {"online_store": "does not answer", "index": "answers", "model": "loaded"}
    with answering(
        port, {"/": (200, {"name": "recsys"}), "/ready": (200, {**ready, "status": "degraded", "parts": parts})}
    ):
        verdict = health.api("127.0.0.1", port)
        said(verdict, "warning", "online_store: does not answer")
        assert "index" not in verdict.found
    with answering(port, {"/": (200, {"name": "recsys"}), "/ready": (503, {"detail": "nothing is published"})}):
        said(health.api("127.0.0.1", port), "error", "nothing is published")
    with socket.create_server(("127.0.0.1", port)):  # listens, and never answers
        said(health.api("127.0.0.1", port), "error", "does not answer")


# --------------------------------------------------------------------------------------------------------- online store
def test_nothing_listens(settings: Settings):
    said(doctor_stores.online_store(settings), "not applicable", "nothing listens")
    Made("s", "q", NOW, NOW, 0).write(settings.features)
    said(doctor_stores.online_store(settings), "error", "nothing listens", "recsys up")


def test_a_store_that_answers_keeps_its_keys_or_is_said_not_to(settings: Settings):
    with store(settings), redis.Redis.from_url(settings.redis_url) as client:
        said(doctor_stores.online_store(settings), "ok", "keeps every key")
        client.config_set("hash-max-listpack-value", 64)
        said(doctor_stores.online_store(settings), "warning", "CONFIG SET hash-max-listpack-value 1024")
        client.set("a", "b" * 1_000)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1)
        said(doctor_stores.online_store(settings), "warning", "are used")
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        said(doctor_stores.online_store(settings), "error", "evicts keys (allkeys-lru)", "noeviction")
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.OutOfMemoryError):
            client.set("c", "d")
        said(doctor_stores.online_store(settings), "error", "has evicted 1 keys", "recsys verify --repair")


def test_a_strangers_server_at_our_own_address(settings: Settings, tmp_path: Path):
    with store(settings) as server:
        unnamed = Settings(data_dir=tmp_path / "other", _env_file=None).model_copy()
        unnamed.__dict__["redis_url"] = settings.redis_url  # as if it were the default
        said(
            doctor_stores.online_store(unnamed),
            "error",
            f"another server's (got process {server.pid})",
            "RECSYS_REDIS_URL",
        )


def test_a_stopped_server_is_resumed_by_what_is_said(settings: Settings):
    with store(settings) as server:
        os.kill(server.pid, signal.SIGSTOP)
        start = time.monotonic()
        verdict = doctor_stores.online_store(settings)
        assert time.monotonic() - start < 5
        said(verdict, "error", "does not answer", f"kill -CONT {server.pid}")


def test_a_password_is_asked_for_and_never_shown(settings: Settings):
    with store(settings), redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("requirepass", "s3cret-one")
        try:
            said(doctor_stores.online_store(settings), "error", "wants another password")
            wrong = settings.model_copy(update={"redis_url": settings.redis_url.replace("//", "//:s3cret-two@")})
            verdict = doctor_stores.online_store(wrong)
            said(verdict, "error", "wants another password")
            assert "s3cret" not in f"{verdict}"
        finally:
            client.config_set("requirepass", "")


def test_what_is_no_redis(settings: Settings):
    port = int(settings.redis_url.rpartition(":")[2].removesuffix("/0"))
    with answering(port, {}):
        said(doctor_stores.online_store(settings), "error", "it is no Redis server", "RECSYS_REDIS_URL")


# ------------------------------------------------------------------------------------------------ registry and content
@pytest.fixture
def applied(settings: Settings, tmp_path: Path) -> Settings:
    """The definitions, registered."""
    shutil.copytree(settings.feature_repo, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    made = settings.model_copy(update={"feature_repo": tmp_path / "repo"})
    feast = FeatureStore(made.feature_repo, data_dir=made.data_dir, redis_url=made.redis_url)
    feast.apply()
    feast.close()
    return made


def test_the_registry_is_compared_with_the_code_and_the_live_version(applied: Settings):
    said(doctor_stores.registry(applied), "ok", "7 views")
    save_artifact(applied.artifacts, "v1", {"features": {"user_profile": {"x": "Int64"}}}, tables={}, tensors={})
    applied.index.mkdir()
    (applied.index / "live.json").write_text('{"live": "v1", "previous": null}')
    (found,) = health.examine({"registry": lambda: doctor_stores.registry(applied)})
    assert found.state == "error"
    assert "another feature view user_profile" in found.found
    path = applied.feature_repo / "definitions.py"
    text = path.read_text()
    path.write_text(text.replace('name="user_recent"', 'name="user_latest"'))
    assert path.read_text() != text
    said(doctor_stores.registry(applied), "error", "user_latest", "recsys materialize")
    path.write_text("from nowhere import nothing")
    (found,) = health.examine({"registry": lambda: doctor_stores.registry(applied)})
    assert (found.state, "nowhere" in found.found) == ("error", True)


def events(n: int) -> list[Event]:
    return [
        Event.made(id=f"e{i}", kind="view", user_id=1, place_id=2, moment=None, dwell_s=None, now=NOW + timedelta(0, i))
        for i in range(n)
    ]


def test_what_is_online_and_how_far_the_log_is_in_it(applied: Settings):
    said(doctor_stores.online_features(applied), "not applicable")
    log = EventLog(applied.events / world_of({}))
    said(doctor_stores.event_log(applied), "not applicable", "no event")
    log.append(events(3))
    said(doctor_stores.event_log(applied), "not applicable", "cannot be asked")
    Made("these", "q", NOW, NOW, 0).write(applied.features)
    with store(applied):
        feast = FeatureStore(applied.feature_repo, data_dir=applied.data_dir, redis_url=applied.redis_url)
        live = LiveStates(feast)
        said(doctor_stores.online_features(applied), "error", "holds no features", "recsys materialize")
        live.set_mark(Mark("others", 3))
        said(doctor_stores.online_features(applied), "error", "other features", "recsys materialize")
        live.set_mark(Mark("these", 3))
        said(doctor_stores.online_features(applied), "ok")
        said(doctor_stores.event_log(applied), "ok", "3 events")
        live.set_mark(Mark("these", 1))
        said(doctor_stores.event_log(applied), "warning", "2 of 3 events", "recsys replay")
        live.set_mark(Mark("these", 4))
        said(doctor_stores.event_log(applied), "error", "cut or exchanged")
        feast.close()


def test_the_last_position_is_read_without_a_touch(tmp_path: Path):
    log = EventLog(tmp_path / "log", segment_bytes=100)
    assert last_position(log.folder) == 0
    log.append(events(2))
    log.append([*events(3)[2:]])
    newest = max(log.folder.glob("*.jsonl"))
    with newest.open("ab") as file:
        file.write(b'{"seq":4,"id":"half')
    before = {path: path.read_bytes() for path in log.folder.iterdir()}
    assert last_position(log.folder) == 3
    assert {path: path.read_bytes() for path in log.folder.iterdir()} == before
    newest.write_bytes(b'{"seq":3,"id":"half')  # nothing of it was ever acknowledged
    assert last_position(log.folder) == 2


# ----------------------------------------------------------------------------------------------------------------- data
def written(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_what_spark_needs_is_looked_for_before_a_job_does(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    said(doctor_data.engine(settings), "ok", "DuckDB")
    spark = settings.model_copy(update={"engine": "spark"})
    said(doctor_data.engine(spark), "ok", "Spark, on Java ")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(settings.data_dir))
    (found,) = health.examine({"engine": lambda: doctor_data.engine(spark)})
    assert (found.state, "needs Java 17 or newer (apt-get install" in found.found) == ("error", True)


def test_landing_is_validated_or_not(settings: Settings):
    said(doctor_data.landing(settings), "not applicable", "recsys ingest")
    settings.landing.mkdir(parents=True)
    for name in TABLES:
        (settings.landing / f"{name}.parquet").write_bytes(b"rows")
        written(settings.landing / f"{name}.parquet", NOW)
    said(doctor_data.landing(settings), "warning", "not validated", "recsys validate")
    settings.lake.mkdir()
    batch = settings.lake / "batch.json"
    batch.write_text("{}")
    written(batch, NOW + timedelta(minutes=1))
    said(doctor_data.landing(settings), "ok")
    written(batch, NOW - timedelta(minutes=1))
    said(doctor_data.landing(settings), "warning", "not validated")
    (settings.landing / "users.parquet").unlink()
    said(doctor_data.landing(settings), "error", "users did not land")


def test_quality_says_what_the_gate_said(settings: Settings):
    said(doctor_data.quality(settings), "not applicable")
    folder = settings.reports / "quality"
    folder.mkdir(parents=True)
    suites = {"users": {"rows": 1_000, "rejected": 12}}
    for refused, severity, state in (
        (None, "ok", "ok"),
        (None, "warning", "warning"),
        ("too few", "critical", "error"),
    ):
        (folder / "tables.json").write_text(json.dumps({"refused": refused, "severity": severity, "suites": suites}))
        said(doctor_data.quality(settings), state, refused or "12 of 1,000 rows are in quarantine")


def test_features_are_of_the_lake_as_it_is_or_not(settings: Settings):
    said(doctor_data.features(settings), "not applicable")
    settings.lake.mkdir(parents=True)
    times = pa.array([NOW, NOW + timedelta(hours=5)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": [1, 2], "timestamp": times}), settings.lake / "interactions.parquet")
    written(settings.lake / "interactions.parquet", NOW)
    said(doctor_data.features(settings), "warning", "no features yet", "recsys materialize")
    Made("s", "q", NOW, NOW, 0).write(settings.features)
    said(doctor_data.features(settings), "warning", "the data go on to 2024-03-25 05:00", "recsys materialize")
    Made("s", "q", NOW, NOW + timedelta(days=1), 0).write(settings.features)
    made = settings.features / "made.json"
    said(doctor_data.features(settings), "ok", "up to 2024-03-26")
    written(settings.lake / "interactions.parquet", datetime.now(UTC) + timedelta(hours=1))
    said(doctor_data.features(settings), "warning", "the lake changed")
    written(settings.lake / "interactions.parquet", NOW)
    written(made, datetime.now(UTC) - timedelta(days=3))
    said(doctor_data.features(settings), "warning", "3 days and 0 hours ago")
    (settings.lake / "source.json").write_text('{"synthetic": true}')
    said(doctor_data.features(settings), "ok", "3 days and 0 hours ago")


def test_a_safety_list_that_cannot_be_read(settings: Settings):
    said(doctor_data.safety(settings), "not applicable")
    Safety(settings.safety / "w1").hide(7, NOW)
    said(doctor_data.safety(settings), "ok", "1 places are hidden")
    path = settings.safety / "w1" / "safety.jsonl"
    path.write_bytes(b"[]\n" + path.read_bytes())
    (found,) = health.examine({"safety": lambda: doctor_data.safety(settings)})
    assert found.state == "error"
    assert "is damaged at byte 0" in found.found


# ------------------------------------------------------------------------------------------------ versions and settings
def published(settings: Settings, *versions: str) -> None:
    one = np.eye(1, 128, dtype=np.float32)
    index = open_index(settings.index)
    for version in versions:
        places = Vectors(np.array([1]), np.array([0]), {"embedding": one})
        users = Vectors(np.array([1]), np.array([0]), {"embedding": one, "people": one})
        asyncio.run(index.publish(version, places, users))


def test_versions_that_are_damaged_missing_or_of_older_code(settings: Settings):
    said(doctor_serving.versions(settings), "not applicable", "recsys train")
    users = pa.table({"user_id": [1], "index": [0], "city_id": [0]})
    for version in ("v1", "v2"):
        about = {"created_at": f"2024-01-0{version[1]}"}
        save_artifact(settings.artifacts, version, about, tables={"users": users, "places": users}, tensors={})
    said(doctor_serving.versions(settings), "ok", "2 there")
    truncated = settings.artifacts / "v2" / "users.parquet"
    os.truncate(truncated, 100)
    said(doctor_serving.versions(settings), "warning", "users.parquet is damaged", "it does not serve")
    published(settings, "v2")
    checks = {"versions": lambda: doctor_serving.versions(settings)}
    assert "users.parquet is damaged" in health.examine(checks)[0].found
    published(settings, "v1")
    assert "v1 was made by older code" in health.examine(checks)[0].found
    shutil.rmtree(settings.artifacts / "v1")
    assert health.examine(checks)[0].found.startswith("no model version v1")


def test_what_the_index_calls_live(settings: Settings):
    said(doctor_serving.index(settings), "not applicable")
    save_artifact(settings.artifacts, "v1", {}, tables={}, tensors={})
    said(doctor_serving.index(settings), "warning", "recsys publish")
    published(settings, "v1", "v2")
    said(doctor_serving.index(settings), "error", "v2 is live and its artifact is not in", "recsys rollback")
    save_artifact(settings.artifacts, "v2", {}, tables={}, tensors={})
    said(doctor_serving.index(settings), "ok", "v2 is live; there are v1, v2")
    shutil.rmtree(settings.index / "users__v2")
    said(doctor_serving.index(settings), "error", "the index does not hold it", "recsys publish --version v2")
    (settings.index / "live.json").write_text("{")
    (found,) = health.examine({"index": lambda: doctor_serving.index(settings)})
    assert (found.state, "live.json is damaged" in found.found) == ("error", True)


def test_an_index_server_that_is_away(settings: Settings):
    away = settings.model_copy(update={"qdrant_url": f"http://127.0.0.1:{free_port()}"})
    (found,) = health.examine({"index": lambda: doctor_serving.index(away)})
    assert (found.state, "did not answer" in found.found) == ("error", True)


def test_settings_that_contradict_each_other(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)
    alone = settings.model_copy(update={"threads": 1})
    said(doctor_serving.settings_agree(alone), "ok")
    published(settings, "v1", "v2")
    for split, shadow, state in (("v1:0.5", "v2", "ok"), ("v0:0.5", None, "error"), (None, "v0", "error")):
        verdict = doctor_serving.settings_agree(alone.model_copy(update={"split": split, "shadow": shadow}))
        said(verdict, state, "names v0; the index holds v2 and v1" if state == "error" else "")
    (found,) = health.examine(
        {"settings": lambda: doctor_serving.settings_agree(alone.model_copy(update={"split": "v1"}))}
    )
    assert "VERSION:SHARE" in found.found
    said(doctor_serving.settings_agree(alone.model_copy(update={"threads": 256})), "warning", "RECSYS_THREADS=")
    monkeypatch.setenv("RECSYS_PROT", "8001")
    Path(".env").write_text("# ours\nRECSYS_CANDIDATES=200\nexport RECSYS_CANDIDATE=200\n")
    said(doctor_serving.settings_agree(alone), "warning", "RECSYS_CANDIDATE, RECSYS_PROT")


def test_a_setting_out_of_range_is_a_sentence_without_a_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECSYS_PORT", "eight")
    monkeypatch.setenv("RECSYS_REDIS_URL", "http://:s3cret@127.0.0.1")
    with pytest.raises(ConfigError, match=r"RECSYS_PORT: .*got 'eight'") as refused:
        read_settings()
    assert "RECSYS_REDIS_URL" in str(refused.value)
    assert "s3cret" not in str(refused.value)
