"""People by name and positions of places: from the lake of the data set that is asked about, and no other."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.dataset import world_of
from recsys.directory import Directory, Person, Spot

SOURCE = {"name": "by hand"}
NAMES = ["Mara Bell", "Bela Marsh", "Zoe Lind", "mara ash", "Amara Ott", "Ada .*"]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "source.json").write_text(json.dumps(SOURCE))
    users = {"user_id": range(10, 16), "name": NAMES, "home_city_id": [0, 1, 0, 1, 0, 1]}
    pq.write_table(pa.table(users), tmp_path / "users.parquet")
    places = {
        "place_id": [1, 2, 3, 4, 5],
        "city_id": [0, 0, 0, 0, 1],
        "neighborhood_id": [0, 0, 0, 1, 0],
        "latitude": [1.0, 2.0, 9.0, None, 5.0],
        "longitude": [10.0, 30.0, 20.0, 40.0, 50.0],
    }
    pq.write_table(pa.table(places), tmp_path / "places.parquet")
    return tmp_path


def names(found: list[Person]) -> list[str]:
    return [person.name for person in found]


def test_names_that_begin_so_come_first(lake: Path):
    everybody = np.arange(10, 16)
    directory = Directory(lake, world_of(SOURCE))
    assert directory.there
    assert names(directory.find("MAR", 10, everybody)) == ["Mara Bell", "mara ash", "Amara Ott", "Bela Marsh"]
    assert names(directory.find("mar", 2, everybody)) == ["Mara Bell", "mara ash"]
    assert names(directory.find("mar", 10, np.array([11, 14]))) == ["Amara Ott", "Bela Marsh"]
    assert names(directory.find(".*", 10, everybody)) == ["Ada .*"], "text, not a pattern"
    assert directory.find("mar", 10, np.array([], dtype=np.int64)) == []
    assert directory.people([12, 99]) == {12: Person(12, "Zoe Lind", 0)}


def test_positions_and_the_middle_of_a_neighborhood(lake: Path):
    directory = Directory(lake, world_of(SOURCE))
    assert directory.spots([1, 4, 7]) == {1: Spot(1.0, 10.0)}
    assert directory.middles(0) == {0: Spot(2.0, 20.0)}, "the median: one far away moves nothing"


def test_of_another_data_set_or_without_a_lake_nothing_is_told(lake: Path, tmp_path: Path):
    for directory in (Directory(lake, "another"), Directory(tmp_path / "nowhere", world_of(SOURCE))):
        assert not directory.there
        assert directory.find("mara", 10, np.arange(10, 16)) == []
        assert directory.people([10]) == directory.spots([1]) == directory.middles(0) == {}


def test_a_table_that_changed_is_read_again(lake: Path):
    directory = Directory(lake, world_of(SOURCE))
    assert directory.people([10])[10].name == "Mara Bell"
    aside = lake / "aside"
    table = pq.read_table(lake / "users.parquet")
    pq.write_table(table.set_column(1, "name", pa.array(["Nina", *NAMES[1:]])), aside)
    os.utime(aside, ns=(1, 1))
    shutil.move(aside, lake / "users.parquet")
    assert directory.people([10])[10].name == "Nina"
