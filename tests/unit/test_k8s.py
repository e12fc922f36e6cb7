"""The Kubernetes example against Kubernetes' own schemas, and against what it names of ours."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from api.app import create_app
from jobs.cli import app
from recsys.settings import Settings
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "k8s"
VERSION = "1.34.0"  # the oldest in which all of it is stable
OBJECTS: list[dict[str, Any]] = [
    one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
]
NAMES = [f"{one['kind']}/{one['metadata']['name']}" for one in OBJECTS]
PODS = {
    name: spec["template"]
    for name, one in zip(NAMES, OBJECTS, strict=True)
    if (spec := one["spec"].get("jobTemplate", one)["spec"] if "spec" in one else {}).get("template")
}


def of(kind: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] == kind]


@pytest.mark.parametrize("one", OBJECTS, ids=NAMES)
@pytest.mark.parametrize("version", [VERSION, kubernetes_validate.latest_version()])
def test_every_object_is_what_its_schema_says(one: dict[str, Any], version: str):
    kubernetes_validate.validate(one, version, strict=True)


def test_a_field_that_does_not_exist_would_be_found():
    wrong = of("Deployment")[0] | {"replica": 3}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_all_that_was_asked_for_is_there():
    assert sorted(NAMES) == [
        "ConfigMap/recsys", "CronJob/recsys-materialize", "CronJob/recsys-train", "Deployment/recsys-api",
        "HorizontalPodAutoscaler/recsys-api", "PersistentVolumeClaim/recsys-data", "PodDisruptionBudget/recsys-api",
        "Service/recsys-api",
    ]  # fmt: skip


def test_the_settings_exist_and_are_in_range(monkeypatch: pytest.MonkeyPatch):
    told = of("ConfigMap")[0]["data"]
    assert {name.removeprefix("RECSYS_").lower() for name in told} <= set(Settings.model_fields)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    (container,) = PODS["Deployment/recsys-api"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": settings.port}]
    assert settings.host == "0.0.0.0"
    keys = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}["keys"]
    assert settings.api_keys_file is not None
    assert settings.api_keys_file.parent == Path(keys)
    secret = {"redis_url", "qdrant_api_key", "api_keys"}
    assert secret.isdisjoint(name.removeprefix("RECSYS_").lower() for name in told), "those are in a Secret"


@pytest.mark.parametrize("name", PODS)
def test_pods_run_as_nobody_in_particular_on_the_node_of_the_volume(name: str):
    pod = PODS[name]
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert f"--uid {spec['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    (rule,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"].items() <= labels.items(), "or the first pod finds no node"
    (container,) = spec["containers"]
    assert {"configMapRef": {"name": "recsys"}} in container["envFrom"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert "memory" in container["resources"]["limits"]
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounted["data"] == "/app/data"
    assert {v["name"] for v in spec["volumes"]} == set(mounted)
    commands = re.findall(r"recsys ([a-z]+)", " ".join(container["command"]))
    assert commands
    assert set(commands) <= set(get_command(app).commands)


def test_probes_ask_paths_that_exist_and_what_selects_finds_the_pods():
    pod = PODS["Deployment/recsys-api"]
    (container,) = pod["spec"]["containers"]
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert set(probes.values()) <= set(paths)
    labels = pod["metadata"]["labels"].items()
    (deployment,) = of("Deployment")
    selectors = [of("Service")[0]["spec"]["selector"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in (deployment, *of("PodDisruptionBudget"))]
    for selector in selectors:
        assert selector.items() <= labels
        for name in ("CronJob/recsys-materialize", "CronJob/recsys-train"):
            assert not selector.items() <= PODS[name]["metadata"]["labels"].items(), "a job answers nobody"
    (scaler,) = of("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert scaler["spec"]["minReplicas"] > of("PodDisruptionBudget")[0]["spec"]["minAvailable"]


def test_a_pod_may_finish_its_requests():
    spec = PODS["Deployment/recsys-api"]["spec"]
    waits = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= waits + Settings(_env_file=None).request_timeout_s + 10
