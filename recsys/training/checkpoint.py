"""Where a training run stands, in one safetensors file: written whole or not at all, no pickle."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.atomic import replacing
from recsys.graph import Snapshot


@dataclass(frozen=True)
class Checkpoint:
    """State after a finished epoch.

    Attributes:
        fingerprint: of configuration and data; another one means another run.
        state: plain JSON: the history, an entry an epoch.
        model: tensors by name. before: those before each window, "<window>/<name>" → tensor.
        optimizer: "<parameter number>.<slot>" → tensor.
    """

    fingerprint: str
    state: Mapping[str, Any]
    model: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def run_fingerprint(snapshots: Iterable[Snapshot], config: Mapping[str, Any]) -> str:
    """Hash of what decides a run's outcome: the configuration, and the windows, features and labels."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for snapshot in snapshots:
        digest.update(f"{snapshot.as_of.isoformat()} {snapshot.until.isoformat()}".encode())
        labels, friends, new, visits = snapshot.labels, snapshot.friends, snapshot.new_ties, snapshot.visits
        for tensor in (
            labels.user, labels.place, labels.rating, friends.user_u, friends.compat, friends.attend,
            snapshot.pair_keys, snapshot.past.keys, snapshot.past.count, snapshot.place_online,
            snapshot.user_online, snapshot.data["user"].x,
            snapshot.tie_keys, new.user_u, new.user_v, visits.user, visits.place, visits.day,
        ):  # fmt: skip
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write aside, flush, rename."""
    groups = {"model": checkpoint.model, "before": checkpoint.before, "optimizer": checkpoint.optimizer}
    tensors = {
        f"{group}/{name}": value.detach().clone().contiguous()
        for group, named in groups.items()
        for name, value in named.items()
    }
    metadata = {"fingerprint": checkpoint.fingerprint, "state": json.dumps(checkpoint.state)}
    with replacing(path) as aside:
        save_file(tensors, aside, metadata=metadata)


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint of this very run, or None: there is none, or it is of another configuration or other data."""
    if not path.is_file():
        return None
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "before": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != fingerprint:
                return None
            for key in file.keys():  # noqa: SIM118  # not a dict
                group, name = key.split("/", 1)
                groups[group][name] = file.get_tensor(key)
            state = json.loads(metadata["state"])
    except (SafetensorError, KeyError, ValueError):
        return None  # another program's file, or another layout: this run starts from nothing and replaces it
    return Checkpoint(fingerprint, state, **groups)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's slots, flat."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{slot}": torch.as_tensor(value) for i, slots in state.items() for slot, value in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the slots back; hyperparameters stay as the optimizer was made."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, slot = name.split(".", 1)
        state.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
