"""Streaming inference: what the full-graph pass gives, from parts, whatever dies in between."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recsys.errors import DataError
from recsys.graph import INTERACTS, SOCIAL, Edges, Snapshot
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.training.inputs import graph_inputs, size_config
from recsys.training.partitions import Parts, write_part
from recsys.training.streaming import stream
from tests.conftest import ROOT
from tests.planted import Planted

N_USERS, PER_PART = 60, 13  # the last part is a short one


def the_snapshot() -> Snapshot:
    return Planted(n_users=N_USERS, n_places=50, weeks=4, visits=5).snapshot(3)


def the_model(snapshot: Snapshot, **config: object) -> RecModel:
    torch.manual_seed(1)
    model = RecModel(size_config([snapshot], ModelConfig(**config)))
    model.backbone.fit_scales(graph_inputs(snapshot, model.config))
    return model.eval()


def write(snapshot: Snapshot, model: RecModel, folder: Path) -> Parts:
    """The snapshot's graph cut into parts by hand."""
    graph, data = graph_inputs(snapshot, model.config), snapshot.data
    (user, place), (u, v) = (data[kind].edge_index.numpy() for kind in (INTERACTS, SOCIAL))
    for number, start in enumerate(range(0, N_USERS, PER_PART)):
        stop = min(start + PER_PART, N_USERS)
        own, tied = (user >= start) & (user < stop), (v >= start) & (v < stop)
        write_part(
            folder / f"part-{number:05d}.parquet",
            data["user"].user_id.numpy()[start:stop],
            graph.user_x[start:stop],
            graph.area_ids[start:stop].numpy(),
            Edges(user[own] - start, place[own], data[INTERACTS].edge_attr.numpy()[own], {}),
            graph.pair_features[:, torch.from_numpy(own)],
            Edges(u[tied], v[tied] - start, data[SOCIAL].edge_attr.numpy()[tied], {}),
        )
    return Parts(folder)


def vectors(folder: Path, name: str) -> torch.Tensor:
    parts = [pq.read_table(path) for path in sorted((folder / "users").glob("part-*.parquet"))]
    return torch.cat([torch.tensor(np.stack(part[name].to_pylist()), dtype=torch.float32) for part in parts])


@pytest.mark.parametrize(
    "config",
    [{}, {"n_layers": 3, "aggregation": "sum", "gate_hidden": 0}, {"n_layers": 1, "aggregation": "attention"},
     {"messages": ("social",)}, {"messages": ("interacts", "rev_interacts")}],
)  # fmt: skip
def test_parts_give_what_the_whole_graph_gives(tmp_path: Path, config: dict[str, object]) -> None:
    snapshot = the_snapshot()
    model = the_model(snapshot, **config)
    graph = graph_inputs(snapshot, model.config)
    with torch.no_grad():
        whole = model(graph)
    said = []
    parts = write(snapshot, model, tmp_path / "input")
    places = stream(model, graph.place_x, parts, tmp_path / "out", "run", on_progress=lambda *n: said.append(n))
    torch.testing.assert_close(places, whole.place, atol=1e-5, rtol=0)
    for name, expected in (("embedding", whole.user), ("people", whole.people)):
        torch.testing.assert_close(vectors(tmp_path / "out", name), expected, atol=1e-5, rtol=0)
    steps = (model.config.n_layers + 1) * len(parts)
    assert said == [(done, steps) for done in range(1, steps + 1)]
    table = pq.read_table(sorted((tmp_path / "out" / "users").iterdir())[-1])
    assert table["index"].to_pylist() == list(range(52, 60))
    assert table["user_id"].to_pylist() == snapshot.data["user"].user_id.tolist()[52:]


MORTAL = """
import os, signal, sys
from pathlib import Path
from recsys.training.partitions import Parts
from recsys.training.streaming import stream
from tests.unit.test_streaming import the_model, the_snapshot
from recsys.training.inputs import graph_inputs

folder, dies_at = Path(sys.argv[1]), [int(n) for n in sys.argv[2].split(",")]
snapshot = the_snapshot()
model = the_model(snapshot)
place_x, parts = graph_inputs(snapshot, model.config).place_x, Parts(folder / "input")
for at in dies_at:
    if not os.fork():
        begun = []
        def mortal(event, arguments):
            # every part of a layer ends by a rename: of its progress, or of its vectors
            if event == "os.rename":
                begun.append(str(arguments[1]))
                if len(begun) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(mortal)
        stream(model, place_x, parts, folder / f"killed-{at}", "run")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the process that is killed has it: on some processors two threads add up in another order than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_killed_anywhere_it_goes_on_where_it_was(tmp_path: Path) -> None:
    snapshot = the_snapshot()
    model = the_model(snapshot)
    place_x = graph_inputs(snapshot, model.config).place_x
    parts = write(snapshot, model, tmp_path / "input")
    whole = stream(model, place_x, parts, tmp_path / "whole", "run")
    # one rename at the start, six a layer of five parts, five parts of vectors: the start, each layer, the vectors
    deaths = [1, 2, 5, 9, 13, 16, 18]
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(tmp_path), ",".join(map(str, deaths))],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(deaths)
    for death in deaths:
        folder = tmp_path / f"killed-{death}"
        there = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("users/part-*")}
        assert len(there) == max(0, death - 14), death
        said: list[tuple[int, int]] = []
        before = {path: path.stat().st_mtime_ns for path in folder.glob("states/*.f32")}
        places = stream(model, place_x, parts, folder, "run", on_progress=lambda *n, said=said: said.append(n))
        assert torch.equal(places, whole)
        for name in ("embedding", "people"):
            assert torch.equal(vectors(folder, name), vectors(tmp_path / "whole", name)), death
        for path, was in there.items():
            assert (path.stat().st_ino, path.stat().st_mtime_ns) == was, f"{path} was made twice"
        if death > 14:  # every state was there: nothing but vectors was made
            assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_run_begins_anew(tmp_path: Path) -> None:
    snapshot = the_snapshot()
    model = the_model(snapshot)
    place_x = graph_inputs(snapshot, model.config).place_x
    parts = write(snapshot, model, tmp_path / "input")
    stream(model, place_x, parts, tmp_path / "out", "run")
    other = the_model(snapshot)
    with torch.no_grad():
        other.backbone.to_user.weight.neg_()
    stream(other, place_x, parts, tmp_path / "out", "another")
    stream(other, place_x, parts, tmp_path / "alone", "another")
    assert torch.equal(vectors(tmp_path / "out", "embedding"), vectors(tmp_path / "alone", "embedding"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    snapshot = the_snapshot()
    model = the_model(snapshot)
    place_x = graph_inputs(snapshot, model.config).place_x
    parts = write(snapshot, model, tmp_path / "input")
    with pytest.raises(DataError, match=r"target must lie in \[0, 7\)"):
        stream(model, place_x[:7], parts, tmp_path / "few", "run")
    sorted((tmp_path / "input").iterdir())[-1].unlink()
    fewer, wider = Parts(tmp_path / "input"), RecModel(replace(model.config, n_vibes=31)).eval()
    with pytest.raises(DataError, match="friend must lie in"):
        stream(model, place_x, fewer, tmp_path / "cut", "run")
    with pytest.raises(DataError, match="x must have 149 columns"):
        stream(wider, place_x, fewer, tmp_path / "wide", "run")
