"""Windows whose tensors lie in files: the same tensors, the same training, and memory that is given back."""

from dataclasses import fields
from pathlib import Path

import torch

from recsys.graph import INTERACTS, REV_INTERACTS
from recsys.training.inputs import prepare, size_config
from recsys.training.shelf import IN_MEMORY, Shelf
from recsys.training.trainer import finish
from recsys.training.vectors import learn
from tests.planted import Planted
from tests.unit.test_trainer import SMALL


def resident(path: Path) -> int:
    """kB of a file that are in this process's memory."""
    maps = Path("/proc/self/smaps").read_text().split(str(path))[1]
    return int(maps.split("Rss:")[1].split()[0])


def test_tensors_are_the_same_and_each_is_one_file(tmp_path: Path) -> None:
    snapshot = Planted(n_users=50, n_places=60, weeks=4, visits=5).snapshot(2)
    config = size_config([snapshot], SMALL.model)
    shelf = Shelf(tmp_path / "shelf", least=1_000)
    window = shelf.put(prepare(shelf.put(snapshot), config))
    expected = prepare(snapshot, config)
    for name in ("user_online", "pair_online", "pair_keys"):
        assert torch.equal(getattr(window.snapshot, name), getattr(snapshot, name))
    for field in fields(expected.graph):
        mine, theirs = (getattr(one.graph, field.name) for one in (window, expected))
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs), field.name
    assert torch.equal(window.graph.pairs.by_target.columns, expected.graph.pairs.by_target.columns)
    data = window.snapshot.data
    assert data.validate()
    assert data[INTERACTS].edge_attr.data_ptr() == data[REV_INTERACTS].edge_attr.data_ptr()
    assert window.graph.user_x.data_ptr() == data["user"].x.data_ptr()
    files = sorted((tmp_path / "shelf").iterdir())
    assert shelf.put(window).graph.user_x is window.graph.user_x  # what lies there is not laid down again
    assert sorted((tmp_path / "shelf").iterdir()) == files
    shelf.clear()
    assert torch.equal(window.graph.pair_features, expected.graph.pair_features)
    assert IN_MEMORY.put(snapshot) is snapshot


def test_memory_is_given_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    snapshot = Planted(n_users=50, n_places=60, weeks=4, visits=5).snapshot(2)
    large = torch.arange(20_000_000.0)
    snapshot.data["user"].more = large
    there = shelf.put(snapshot).data["user"].more
    (path,) = (tmp_path / "shelf").iterdir()
    assert float(there.sum()) == float(large.sum())
    assert resident(path) > 70_000
    shelf.rest()
    assert resident(path) == 0
    assert torch.equal(there, large)


def test_training_from_files_is_training_from_memory(tmp_path: Path) -> None:
    world = Planted(n_users=50, n_places=60, weeks=5, visits=5)
    train, valid = [world.snapshot(2), world.snapshot(3)], world.snapshot(4)
    shelf = Shelf(tmp_path / "shelf", least=1_000)
    plain = finish(learn(train, valid, SMALL))
    filed = finish(learn([shelf.put(one) for one in train], shelf.put(valid), SMALL, shelf=shelf))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(filed.model.state_dict()[name], value), name
    assert filed.history == plain.history
