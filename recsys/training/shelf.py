"""Large tensors in files that are mapped into memory: a run looks at one window at a time, and holds many.

What is not looked at costs no memory: the system reads it when it is touched, and takes its pages back after `rest`.
"""

import copy
import dataclasses
import mmap
import shutil
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from recsys.graph import HeteroData

T = TypeVar("T")
_LEAST: Final = 64 * 2**20  # bytes; smaller tensors stay in memory


class Shelf:
    """Files of one run's tensors; as a context, until its end.

    Args:
        folder: is emptied, and made when something is put there; None: all stays in memory.
        least: tensors of so many bytes or more go to files.
    """

    def __init__(self, folder: Path | None, *, least: int = _LEAST) -> None:
        self._folder, self._least = folder, least
        self._maps: list[mmap.mmap] = []  # kept with their tensors' addresses: none is another tensor's meanwhile
        self._there: set[int] = set()
        self.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def put(self, value: T) -> T:
        """The same dataclass, its large tensors in files, also those of dataclasses and graphs within it."""
        return value if self._folder is None else cast(T, self._put(value, self._folder, {}))

    def rest(self) -> None:
        """Give back the memory of all that was looked at; looking again reads it again."""
        for held in self._maps:
            held.madvise(mmap.MADV_DONTNEED)

    def clear(self) -> None:
        """Remove the files; what is mapped stays readable."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, value: Any, folder: Path, seen: dict[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            if value.nbytes < self._least or value.data_ptr() in self._there:
                return value
            if id(value) not in seen:  # what two fields share is one file
                seen[id(value)] = self._file(value, folder)
            return seen[id(value)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **{name: self._put(one, folder, seen) for name, one in fields.items()})
        if isinstance(value, HeteroData):
            return copy.copy(value).apply(lambda tensor: self._put(tensor, folder, seen))
        return value

    def _file(self, value: Tensor, folder: Path) -> Tensor:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(self._maps)}.bin"
        array = value.contiguous().numpy()
        array.tofile(path)
        # copy-on-write: a tensor that is not writable cannot be made of an array, and none of these is written to
        there: np.memmap[Any, Any] = np.memmap(path, array.dtype, mode="c", shape=array.shape)
        self._maps.append(there._mmap)  # type: ignore[attr-defined]
        mapped = torch.from_numpy(there)
        self._there.add(mapped.data_ptr())
        return mapped


IN_MEMORY: Final = Shelf(None)
