"""The compose file, the Dockerfile and the second Feast file, read: no Docker engine runs in the tests."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.settings import Settings
from tests.conftest import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "feature_repo" / name).read_text())


def test_the_three_parts_are_there():
    assert set(SERVICES) == {"redis", "qdrant", "api"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_and_listens_on_loopback_only(name: str):
    service = SERVICES[name]
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)
    assert service["ports"]
    for port in service["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


@pytest.mark.parametrize("name", ["redis", "qdrant"])
def test_images_are_pinned_and_keep_their_data_on_a_volume(name: str):
    assert re.search(r":v?\d+\.\d+\.\d+", SERVICES[name]["image"])
    volume = SERVICES[name]["volumes"][0].split(":")[0]
    assert volume in COMPOSE["volumes"]


def test_redis_appends_and_the_api_waits_for_healthy_parts():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    waits = SERVICES["api"]["depends_on"]
    assert waits == {"redis": {"condition": "service_healthy"}, "qdrant": {"condition": "service_healthy"}}


def test_the_apis_environment_is_settings_that_exist_and_point_at_the_services(monkeypatch: pytest.MonkeyPatch):
    environment = SERVICES["api"]["environment"]
    known = {f"RECSYS_{name.upper()}" for name in Settings.model_fields}
    assert set(environment) <= known
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.qdrant_url == "http://qdrant:6333"
    assert settings.host == "0.0.0.0"
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:8000:{settings.port}"]
    assert f"127.0.0.1:{settings.port}/health" in SERVICES["api"]["healthcheck"]["test"][-1]


def test_the_data_volume_is_where_the_installed_settings_look():
    workdir = re.search(r"^WORKDIR (\S+)", DOCKERFILE, re.MULTILINE)
    assert workdir
    assert "--editable ." in DOCKERFILE, "Settings.ROOT is the folder of the code"
    assert SERVICES["api"]["volumes"] == [f"./data:{workdir.group(1)}/data"]


def test_the_image_runs_as_a_user_and_copies_what_the_package_needs():
    user = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert user
    assert user[-1] not in ("root", "0")
    assert DOCKERFILE.index("USER") < DOCKERFILE.index("CMD")
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [s for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for s in line.split()]
    for source in copied:
        assert Path(ROOT / source).exists(), source
        assert source not in ignored, source
    assert {"recsys", "jobs", "api", "expectations", "feature_repo"} <= set(copied)
    assert {"data", ".git", ".env", ".venv"} <= set(ignored)


def test_the_images_python_is_one_the_package_takes_and_the_checkers_check():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    image = re.search(r"^FROM python:(\d+\.\d+)-slim", DOCKERFILE)
    assert image
    assert project["project"]["requires-python"] == f">={image.group(1)}"
    assert project["tool"]["mypy"]["python_version"] == image.group(1)


def test_the_image_asks_the_same_health_question_as_compose():
    check = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert check
    assert ["CMD", *json.loads(check.group(1))] == SERVICES["api"]["healthcheck"]["test"]


def test_torch_is_the_one_that_was_tested():
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f'"torch=={pinned.group(1)}"' in DOCKERFILE
    assert "download.pytorch.org/whl/cpu" in DOCKERFILE


def test_the_two_feast_files_differ_in_the_online_address_alone():
    embedded, compose = load("feature_store.yaml"), load("feature_store.compose.yaml")
    assert compose["online_store"].pop("connection_string") == "redis:6379,db=0"
    assert embedded["online_store"].pop("connection_string") != "redis:6379,db=0"
    assert compose == embedded


def test_feast_typed_by_hand_reads_the_server_that_up_starts():
    address, option = load("feature_store.yaml")["online_store"]["connection_string"].split(",")
    assert Settings.model_fields["redis_url"].default == f"redis://{address}/{option.removeprefix('db=')}"
