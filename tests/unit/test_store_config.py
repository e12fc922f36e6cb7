"""What Feast is told: the repository's file, with the addresses of the settings in the place of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.features import FeatureStore
from recsys.features.config import read_config
from tests.conftest import ROOT

REPO = ROOT / "feature_repo"
CLUSTER = REPO / "feature_store.cluster.yaml"


@pytest.mark.parametrize(
    ("url", "kind", "connection"),
    [
        ("redis://127.0.0.1:6399/3", "redis", "127.0.0.1:6399,db=3"),
        ("redis://store", "redis", "store:6379,db=0"),
        ("rediss://:s%40fe@store:1", "redis", "store:1,db=0,password=s@fe,ssl=true"),
        ("redis+cluster://a:1,b:2,c", "redis_cluster", "a:1,b:2,c:6379"),
        ("rediss+cluster://me:pass@a:1", "redis_cluster", "a:1,username=me,password=pass,ssl=true"),
    ],
)
def test_feasts_own_clients_go_where_the_settings_say(tmp_path: Path, url: str, kind: str, connection: str):
    config, engine = read_config(CLUSTER, tmp_path, url, history=False)
    assert (config.online_store.redis_type.value, config.online_store.connection_string) == (kind, connection)
    assert engine == "spark"


def test_the_registry_lies_in_the_data_folder_unless_it_is_a_servers(tmp_path: Path):
    url = "redis://store"
    plain, _ = read_config(REPO / "feature_store.yaml", tmp_path, url, history=True)
    assert plain.registry.path == str(tmp_path / "registry.db")
    sql, _ = read_config(CLUSTER, tmp_path, url, history=True)
    assert (sql.registry.registry_type, sql.registry.path) == ("sql", f"sqlite:///{tmp_path}/registry.sqlite")
    assert (sql.offline_store.type, sql.batch_engine.type) == ("spark", "spark.engine")
    server = "postgresql+psycopg://u:p@host/feast"
    other = tmp_path / "other.yaml"
    other.write_text(CLUSTER.read_text().replace("sqlite:///../data/registry.sqlite", server))
    assert read_config(other, tmp_path, url, history=False)[0].registry.path == server


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"RECSYS_FEATURE_STORE_YAML: nothing\.yaml is not in .*feature_repo"):
        FeatureStore(REPO, data_dir=tmp_path, redis_url="redis://store", yaml="nothing.yaml")


def test_what_only_serves_opens_without_the_extra(tmp_path: Path):
    code = f"""
import sys
sys.modules["pyspark"] = None
from pathlib import Path
from recsys.features import FeatureStore
store = FeatureStore(Path({str(REPO)!r}), data_dir=Path({str(tmp_path)!r}), redis_url="redis://127.0.0.1:1/0",
                     yaml="feature_store.cluster.yaml", history=False)
store.apply()
print(sorted(store.schema()) == sorted(store.defined_schema()), len(store.rows("user_place").fields))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "2"], done.stderr[-2000:]
