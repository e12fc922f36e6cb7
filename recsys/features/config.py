"""What `feature_store.yaml` says, with the addresses that the settings give."""

import os
import warnings
from pathlib import Path
from typing import Any, Final

import yaml
from feast.repo_config import RepoConfig

from recsys.address import Address
from recsys.errors import ConfigError

SPARK: Final = "spark"


def read_config(path: Path, data_dir: Path, redis_url: str, *, history: bool) -> tuple[RepoConfig, str]:
    """Feast's configuration, and the kind of its offline store.

    Args:
        path: the YAML file.
        data_dir: where the registry is, unless it is a server's.
        redis_url: the online store, whichever one the file names.
        history: whether the offline store is used; without, what it needs need not be installed.

    Raises:
        ConfigError: there is no such file.
    """
    try:
        raw: dict[str, Any] = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"RECSYS_FEATURE_STORE_YAML: {path.name} is not in {path.parent}") from error
    engine = str(raw["offline_store"]["type"])
    registry = raw["registry"]
    if isinstance(registry, str):
        raw["registry"] = str(data_dir / "registry.db")
    elif str(registry["path"]).startswith("sqlite:"):
        raw["registry"] = {**registry, "path": f"sqlite:///{data_dir / 'registry.sqlite'}"}
    raw["online_store"] = {**raw["online_store"], **_online(Address.parse(redis_url))}
    if not history:
        raw["offline_store"] = {"type": "duckdb"}
        raw.pop("batch_engine", None)
    config = RepoConfig(**raw)
    config.repo_path = path.parent
    if engine == SPARK and history:
        _tell_keys_apart()
    if engine == SPARK:  # it says so at every look at a source, and asks for that when it is imported
        warnings.filterwarnings("ignore", "The spark .* is an experimental feature", RuntimeWarning)
    return config, engine


def _tell_keys_apart() -> None:
    """Put something between the keys of a row of the spine in Feast's query for Spark.

    It knows a row by its keys written one after another: 1 and 23 are 12 and 3 there, and get each other's features.
    """
    from feast.infra.offline_stores.contrib.spark_offline_store import spark

    key = "CAST({{entity}} AS STRING),"
    if f"{key} '|'," not in spark.MULTIPLE_FEATURE_VIEW_POINT_IN_TIME_JOIN:
        apart = spark.MULTIPLE_FEATURE_VIEW_POINT_IN_TIME_JOIN.replace(key, f"{key} '|',")
        spark.MULTIPLE_FEATURE_VIEW_POINT_IN_TIME_JOIN = apart


def _online(address: Address) -> dict[str, str]:
    """Where Feast's own clients connect to, also those in other processes."""
    parts = [f"{host}:{port}" for host, port in address.nodes]
    if not address.cluster:
        parts.append(f"db={address.database}")
    parts += [f"{name}={said}" for name, said in address.login.items()]
    if address.tls:
        parts.append("ssl=true")
    return {"redis_type": "redis_cluster" if address.cluster else "redis", "connection_string": ",".join(parts)}
