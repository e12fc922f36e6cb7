"""docs/extending.md, "A new feature", followed in a copy of the code: it is in history, online and in the model."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CHECK = """
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs import materialize
from jobs.report import Report
from recsys.aggregates import D_ONLINE_PLACE, PLACE_ACTIVITY, States, finish_places
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.models.config import ModelConfig
from recsys.models.heads import Heads
from recsys.settings import Settings

settings = Settings()
materialize.run(settings, Report("materialize", settings.reports))
with Lake(settings.data_dir) as lake:
    _, end = lake.horizon()
events = pq.read_table(settings.lake / "interactions.parquet").to_pylist()
lately = [e for e in events if e["timestamp"] >= end - timedelta(days=28)]
every = Counter(e["place_id"] for e in lately)
weekend = Counter(e["place_id"] for e in lately if e["day_of_week_bucket"] == 1)
at = PLACE_ACTIVITY.index("weekend_share_28d")
places = np.arange(120)
expected = [weekend[p] / max(every[p], 1) for p in places.tolist()]
store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
online = store.rank_places(1, places, end).features[:, at]
history = store.historical("train_places_v1", {"place_id": places}, end)
offline = finish_places(States.of_arrow(history["place_activity__state"]), round(end.timestamp() * 1e6))[:, at]
np.testing.assert_array_equal(online, offline)
known = store.rank_places(1, places, end).features[:, len(PLACE_ACTIVITY)] == 1
np.testing.assert_allclose(online[known], np.array(expected)[known], atol=1e-6)
assert online.any()
assert store.schema()["place_activity"]["state"].endswith(",day_1")
assert Heads(ModelConfig()).place.shallow.standardize is not None
print("followed", D_ONLINE_PLACE)
store.close()
"""


def edited(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    changed, n = re.subn(pattern, lambda m: m[0].replace(m[1], replacement), text, flags=re.DOTALL)
    assert n == 1, f"{path.name}: {pattern} found {n} times"
    path.write_text(changed, encoding="utf-8")


def test_the_page_on_a_new_feature_works_as_written(world_dir: Path, redis_url: str, tmp_path: Path):
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    counter = re.search(r"There is one already, of the weekend: `(.*?)`", page)
    feature = re.search(r"```python\n\s+(Feature\(.*?\))\n\s+```", page, flags=re.DOTALL)
    assert counter
    assert feature
    code, data = tmp_path / "code", tmp_path / "data"
    for part in ("recsys", "jobs", "expectations", "feature_repo", "api"):
        shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(world_dir, data / "lake")
    aggregates = code / "recsys" / "aggregates"
    edited(aggregates / "definitions.py", r"PLACE_COUNTERS: Final = \([^\n]*(_RATING)\)", f"_RATING, {counter[1]}")
    edited(
        aggregates / "finish.py",
        r"PLACE_FEATURES: Final = \(.*?(    \*_PARTS,\n\))",
        f"    *_PARTS,\n    {feature[1]},\n)",
    )
    env = os.environ | {
        "PYTHONPATH": str(code),
        "RECSYS_DATA_DIR": str(data),
        "RECSYS_REDIS_URL": redis_url.removesuffix("/0") + "/6",
        "RECSYS_FEATURE_REPO": str(code / "feature_repo"),
    }
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=code, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[done.stderr.find("Traceback") :][:3000]
    assert done.stdout.startswith("followed")
