"""A fitted model and the world as of a moment → the tables, tensors and config of an artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from recsys.constants import D_MODEL
from recsys.errors import DataError
from recsys.models.backbone import Embeddings
from recsys.models.ranker import MODEL
from recsys.sources import SOURCES
from recsys.training.inputs import Prepared
from recsys.training.trainer import Fitted

_VECTOR = pa.list_(pa.float32())
USERS_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("index", pa.int64()),
        ("city_id", pa.int32()),
        ("embedding", _VECTOR),
        ("people", _VECTOR),
    ]
)
PLACES_SCHEMA = pa.schema(
    [
        ("place_id", pa.int64()), ("index", pa.int64()), ("city_id", pa.int32()), ("city_name", pa.string()),
        ("neighborhood_id", pa.int32()), ("neighborhood_name", pa.string()), ("name", pa.string()),
        ("price_band", pa.int32()), ("typical_time_slot", pa.int32()), ("categories", pa.list_(pa.int32())),
        ("tags", pa.list_(pa.int32())), ("embedding", _VECTOR),
    ]
)  # fmt: skip
_NAMES = ("city_name", "neighborhood_id", "neighborhood_name", "name", "price_band", "typical_time_slot")
_WEIGHTS = {"categories": "category_one_hot", "tags": "fine_tag_vector"}


@dataclass(frozen=True)
class Export:
    """What `recsys.artifacts.save_artifact` takes."""

    tables: Mapping[str, pa.Table]
    tensors: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any]


def export(fitted: Fitted, prepared: Prepared, embeddings: Embeddings, places: pa.Table) -> Export:
    """Tables, tensors and config of a model version.

    Args:
        fitted: the model.
        prepared: the snapshot as of which users and places are embedded.
        embeddings: `embed(fitted.model, prepared)`.
        places: the lake's places: place_id, city_name, neighborhood_id, neighborhood_name, name, price_band,
            typical_time_slot, category_one_hot, fine_tag_vector.

    Raises:
        DataError: a place of the graph is not among `places`, or a vector is not a unit vector of D_MODEL floats.
    """
    for name in ("user", "people", "place"):
        vectors: Tensor = getattr(embeddings, name)
        if vectors.shape[1] != D_MODEL or not bool((vectors.norm(dim=1) - 1).abs().max() < 1e-3):
            raise DataError(
                f"{name} vectors must be unit vectors of {D_MODEL} floats (got shape {tuple(vectors.shape)})"
            )
    data = prepared.snapshot.data
    user_id, place_id = data["user"].user_id.numpy(), data["place"].place_id.numpy()
    users = pa.Table.from_arrays(
        [
            pa.array(user_id),
            pa.array(np.arange(len(user_id))),
            pa.array(prepared.users.city.numpy().astype(np.int32)),
            vector_lists(embeddings.user),
            vector_lists(embeddings.people),
        ],
        schema=USERS_SCHEMA,
    )
    at = pc.index_in(pa.array(place_id), value_set=places["place_id"].combine_chunks())
    if at.null_count:
        missing = int(place_id[np.asarray(at.is_null())][0])
        raise DataError(f"place {missing} of the graph is not among the places ({at.null_count} are not)")
    named = places.take(at)
    columns = {
        "place_id": pa.array(place_id),
        "index": pa.array(np.arange(len(place_id))),
        "city_id": pa.array(prepared.places.city.numpy().astype(np.int32)),
        "embedding": vector_lists(embeddings.place),
        **{name: named[name].combine_chunks().cast(PLACES_SCHEMA.field(name).type) for name in _NAMES},
        **{name: _positions(named[weights].combine_chunks()) for name, weights in _WEIGHTS.items()},
    }
    tables = {
        "users": users,
        "places": pa.Table.from_arrays([columns[f.name] for f in PLACES_SCHEMA], schema=PLACES_SCHEMA),
    }
    train = {k: v for k, v in fitted.config.to_dict().items() if k != "model"}
    config = {"model": fitted.model.config.to_dict(), "train": train}
    sources = prepared.sources.tensors() | prepared.people_sources.tensors()
    return Export(tables, {MODEL: fitted.model.state_dict(), SOURCES: sources}, config)


def _positions(weights: pa.ListArray) -> pa.ListArray:
    """Lists of weights → lists of the positions that have some."""
    offsets, values = weights.offsets.to_numpy(), weights.values.to_numpy(zero_copy_only=False)
    there = np.flatnonzero(values > 0)
    row = np.searchsorted(offsets, there, side="right") - 1
    positions = (there - offsets[row]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(np.searchsorted(there, offsets).astype(np.int32)), pa.array(positions))


def vector_lists(vectors: Tensor) -> pa.ListArray:
    """(N, D) → a list a row."""
    flat: npt.NDArray[np.float32] = vectors.contiguous().numpy().reshape(-1)
    offsets = np.arange(0, len(flat) + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
