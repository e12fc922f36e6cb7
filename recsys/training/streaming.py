"""The graph network over any number of users in the memory that one part of them takes.

A layer reads its neighbours' states of the layer before, so the pass goes layer by layer, and within a layer part by
part. States of users lie in one file a layer. Places are few: their states stay in memory, and what they hear of users
is a sum over the parts. The result is the full-graph pass's, to rounding. After every part it is on disk how far
it went, so a run that was killed goes on with the part that it was at.
"""

import json
import mmap
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.atomic import flush, replacing
from recsys.errors import DataError
from recsys.models.backbone import Backbone, Layer
from recsys.models.encoders import block, check_ids
from recsys.models.model import RecModel
from recsys.models.sparse import counted, over, weighted_sum
from recsys.training.as_of import Ints
from recsys.training.export import USERS_SCHEMA, vector_lists
from recsys.training.partitions import Part, PartEdges, Parts

_PROGRESS: Final = "progress.safetensors"
_TAKEN_AT_ONCE: Final = 2_048  # rows of a file; between them its pages leave the process, which stays small


@dataclass(frozen=True)
class _Progress:
    """What is done, and what the next part needs.

    Attributes:
        fingerprint: of the run. layer: which users' states come next; one after the last: their vectors.
        parts: how many parts of that layer are done.
        places: (M, D) states of the layers before.
        heard: (M, D) float64 sums over those parts of what users tell places. count: (M, 1) what to divide them by.
    """

    fingerprint: str
    layer: int
    parts: int
    places: tuple[Tensor, ...]
    heard: Tensor
    count: Tensor

    @classmethod
    def begin(cls, fingerprint: str, layer: int, places: tuple[Tensor, ...]) -> "_Progress":
        zeros = torch.zeros_like(places[0], dtype=torch.float64)
        return cls(fingerprint, layer, 0, places, zeros, zeros[:, :1].clone())

    def save(self, folder: Path) -> None:
        tensors = {"heard": self.heard, "count": self.count}
        tensors |= {f"places/{number}": state for number, state in enumerate(self.places)}
        said = {"fingerprint": self.fingerprint, "at": json.dumps([self.layer, self.parts, len(self.places)])}
        with replacing(folder / _PROGRESS) as aside:
            save_file({name: value.contiguous() for name, value in tensors.items()}, aside, metadata=said)

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> "_Progress | None":
        """How far this very run went; None: another one's, or none."""
        path = folder / _PROGRESS
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                if said.get("fingerprint") != fingerprint:
                    return None
                layer, parts, states = json.loads(said["at"])
                places = tuple(file.get_tensor(f"places/{number}") for number in range(states))
                return cls(fingerprint, layer, parts, places, file.get_tensor("heard"), file.get_tensor("count"))
        except (SafetensorError, KeyError, ValueError):
            return None


class _Rows:
    """(N, D) float32 in a file: written part by part, read by any row."""

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self._path, self._shape, self._bytes = path, (rows, width), 4 * width
        with path.open("ab") as file:
            if file.tell() != rows * self._bytes:
                file.truncate(rows * self._bytes)

    def write(self, part: Part, rows: Tensor) -> None:
        with self._path.open("r+b") as file:
            file.seek(part.start * self._bytes)
            rows.contiguous().numpy().tofile(file)
        flush(self._path)

    def read(self, part: Part) -> Tensor:
        width = self._shape[1]
        flat = np.fromfile(self._path, np.float32, part.n_users * width, offset=part.start * self._bytes)
        return torch.from_numpy(flat.reshape(part.n_users, width))

    def take(self, rows: Ints) -> Tensor:
        """Rows by ascending number."""
        if len(rows) and not (rows[0] >= 0 and rows[-1] < self._shape[0]):
            raise DataError(f"a friend must lie in [0, {self._shape[0]}) (got {rows[0]} to {rows[-1]})")
        out = np.empty((len(rows), self._shape[1]), dtype=np.float32)
        if len(rows):
            with self._path.open("rb") as file:
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            there = np.frombuffer(held, np.float32).reshape(self._shape)
            for first in range(0, len(rows), _TAKEN_AT_ONCE):
                some = slice(first, first + _TAKEN_AT_ONCE)
                out[some] = there[rows[some]]
                held.madvise(mmap.MADV_DONTNEED)
            del there
            held.close()
        return torch.from_numpy(out)


@torch.no_grad()
def stream(
    model: RecModel,
    place_x: Tensor,
    parts: Parts,
    folder: Path,
    fingerprint: str,
    *,
    on_progress: Callable[[int, int], None] = lambda _, __: None,
) -> Tensor:
    """Vectors of everybody, a parquet file a part under `folder / "users"`; files that are there are not made again.

    Args:
        model: in eval mode.
        place_x: (M, d_place), the places that the parts name by row.
        parts: users and their edges.
        folder: of this run's results. `folder / "states"` holds what it needs until it ends.
        fingerprint: of the model and the parts: a run with another one begins anew.
        on_progress: after every part of a layer: how many of all are done.

    Returns:
        (M, D) unit vectors of the places.

    Raises:
        DataError: ids that the model does not know, an edge to nowhere, or features of another width or not finite.
    """
    backbone, states, made = model.backbone, folder / "states", folder / "users"
    layers = list(cast(Iterable[Layer], backbone.layers))
    progress = _Progress.load(states, fingerprint)
    if progress is None:
        for old in (states, made):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir(parents=True)
        progress = _Progress.begin(fingerprint, 0, (backbone.places(place_x),))
        progress.save(states)
    spilled = [_Rows(states / f"{n}.f32", parts.n_users, model.config.d_model) for n in range(len(layers))]
    total = (len(layers) + 1) * len(parts)
    while progress.layer < len(layers):
        for number, part in enumerate(parts):
            if number >= progress.parts:
                progress = _told(model, progress, part, spilled, place_x)
                progress.save(states)
            on_progress(progress.layer * len(parts) + number + 1, total)
        heard = over(progress.heard, progress.count, model.config.aggregation).float()
        if "interacts" not in model.config.messages:
            heard.zero_()
        place = layers[progress.layer].place_after(progress.places[-1], heard)
        progress = _Progress.begin(fingerprint, progress.layer + 1, (*progress.places, place))
        progress.save(states)
    for number, part in enumerate(parts):
        path = made / part.path.name
        if not path.exists():
            _write_vectors(model, progress, part, spilled, path)
        on_progress(len(layers) * len(parts) + number + 1, total)
    return backbone.place_vectors(progress.places)


def _told(model: RecModel, progress: _Progress, part: Part, spilled: list[_Rows], place_x: Tensor) -> _Progress:
    """One part of one layer: its users' states, and what they tell places in the next."""
    backbone, layer, edges = model.backbone, progress.layer, part.edges(len(place_x))
    if layer == 0:
        x, areas = part.features(model.config.widths.d_user)
        check_ids(model.config, x, areas, place_x)
        user = backbone.users(x, areas)
    else:
        user = _next_user(backbone, progress, part, edges, spilled)
    spilled[layer].write(part, user)
    gate, how = backbone.pair_gates(edges.pair_features)[2 * layer].contiguous(), model.config.aggregation
    return replace(
        progress,
        parts=progress.parts + 1,
        heard=progress.heard + weighted_sum(edges.pairs, gate, user),
        count=progress.count + counted(edges.pairs, gate, how),
    )


def _next_user(backbone: Backbone, progress: _Progress, part: Part, edges: PartEdges, spilled: list[_Rows]) -> Tensor:
    """(n, D) users after the layer whose output comes next."""
    before = progress.layer - 1
    layer = cast(Layer, backbone.layers[before])
    from_places = backbone.pair_gates(edges.pair_features)[2 * before + 1].contiguous()
    from_friends = backbone.tie_gates(edges.tie_features)[before].contiguous()
    return layer.next_user(
        spilled[before].read(part),
        (edges.pairs.flip(), from_places, progress.places[before]),
        (edges.ties, from_friends, spilled[before].take(edges.friends)),
    )


def _write_vectors(model: RecModel, progress: _Progress, part: Part, spilled: list[_Rows], path: Path) -> None:
    last = _next_user(model.backbone, progress, part, part.edges(len(progress.places[0])), spilled)
    user, people = model.backbone.user_vectors([*(rows.read(part) for rows in spilled), last])
    x, _ = part.features(model.config.widths.d_user)
    city = block(x, model.config.widths.user_x, "home_city_id")[:, 0].numpy().astype(np.int32)
    columns = {
        "user_id": part.user_ids().combine_chunks(),
        "index": pa.array(np.arange(part.start, part.stop)),
        "city_id": pa.array(city),
        "embedding": vector_lists(user),
        "people": vector_lists(people),
    }
    with replacing(path) as aside:
        table = pa.Table.from_arrays([columns[field.name] for field in USERS_SCHEMA], schema=USERS_SCHEMA)
        pq.write_table(table, aside, use_dictionary=False, compression="none")
