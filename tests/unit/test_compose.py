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


def test_the_parts_are_there():
    assert set(SERVICES) == {"redis", "qdrant", "api", "proxy"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_and_listens_on_loopback_only(name: str):
    service = SERVICES[name]
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)
    assert bool(service.get("ports")) == (name != "api"), "replicas cannot all have one port: the proxy has it"
    for port in service.get("ports", ()):
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
    assert SERVICES["api"]["expose"] == [str(settings.port)]
    assert SERVICES["proxy"]["ports"] == [f"127.0.0.1:8000:{settings.port}"]
    assert f"127.0.0.1:{settings.port}/health" in SERVICES["api"]["healthcheck"]["test"][-1]


def test_the_proxy_is_pinned_waits_for_the_api_and_reads_a_file_that_is_there():
    proxy = SERVICES["proxy"]
    assert re.search(r":\d+\.\d+\.\d+", proxy["image"])
    assert proxy["depends_on"] == {"api": {"condition": "service_healthy"}}
    ((source, target, mode),) = (volume.split(":") for volume in proxy["volumes"])
    assert (ROOT / source).is_file()
    assert (target, mode) == ("/usr/local/etc/haproxy/haproxy.cfg", "ro")
    assert {"container_name", "hostname"}.isdisjoint(SERVICES["api"]), "each replica needs its own"


def test_the_proxy_asks_each_replica_for_its_health_and_gives_up_no_later_than_the_api():
    settings = Settings(_env_file=None)
    parts: dict[str, dict[str, str]] = {}
    for line in (ROOT / "docs" / "compose" / "haproxy.cfg").read_text().splitlines():
        said = line.split("#")[0].rstrip()
        if said and not line.startswith(" "):
            part = parts.setdefault(said, {})
        elif said:
            first, _, rest = said.strip().partition(" ")
            second, _, value = rest.partition(" ")
            part.update({f"{first} {second}": value} if first in ("option", "timeout", "http-check") else {first: rest})
    backend, defaults = parts["backend api"], parts["defaults"]
    assert backend["option httpchk"] == "GET /health"
    assert backend["http-check expect"] == "status 200"
    assert backend["default-server"].split()[0] == "check"
    assert f"api:{settings.port} resolvers docker" in backend["server-template"]
    assert "init-addr none" in backend["server-template"], "it starts before the replicas do"
    assert parts["resolvers docker"]["nameserver"] == "dns 127.0.0.11:53"
    assert parts["frontend http"] == parts["frontend http"] | {"bind": ":8000", "default_backend": "api"}
    for name in ("server", "http-keep-alive"):
        assert int(defaults[f"timeout {name}"].removesuffix("s")) < settings.keep_alive_s


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
