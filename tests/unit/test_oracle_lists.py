"""What `recsys evaluate` writes of the oracle for people to look at: the truth's best places, at home, and no more."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs.oracle import LISTS, write_lists
from recsys.dataset import world_of
from recsys.settings import Settings
from recsys.world.config import WorldConfig
from recsys.world.truth import Truth

WINDOW = datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 3, 25, tzinfo=UTC)


def test_lists_are_the_truths_best_places_of_home(tmp_path: Path):
    truth = Truth.of(WorldConfig(users=1_200, places=400, seed=3))
    settings = Settings(data_dir=tmp_path, _env_file=None)
    settings.reports.mkdir()
    written = write_lists(settings, truth, WINDOW)
    table = pq.read_table(settings.reports / LISTS)
    assert table.schema.metadata[b"world"].decode() == world_of(truth.config.source())
    lists = {(row["user_id"], row["time_slot"]): row["place_ids"] for row in table.to_pylist()}
    users = {user for user, _ in lists}
    assert len(users) == written == 600
    assert 42 in users
    assert len(lists) == 7 * written, "whenever they go out, and each of six time slots"
    window = tuple(int(moment.timestamp()) * 1_000_000 for moment in WINDOW)
    for user, slot in [(42, None), (42, 2), (0, 5)]:
        city = truth.cities[int(truth.users.city[user])]
        shares = truth.shares(np.array([user]), city, window, slot=slot, likings=True, positive=True)[0]
        said = dict(zip(city.ids.tolist(), shares.tolist(), strict=True))
        best = lists[user, slot]
        assert len(best) == len(set(best)) == min(30, len(city.ids))
        assert [said[place] for place in best] == sorted(said.values(), reverse=True)[: len(best)]
