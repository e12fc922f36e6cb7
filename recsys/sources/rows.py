"""Rows of sparse matrices, many at a time: what the sources are made of."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import _sparsetools, csr_array, diags_array

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_BLOCK = 512


def matrix(values: npt.NDArray[Any], at: tuple[Ints, Ints], shape: tuple[int, int]) -> csr_array:
    """CSR float32 with sorted rows; values at the same place add up."""
    out = csr_array((np.asarray(values, dtype=np.float32), at), shape=shape)
    out.sum_duplicates()
    return out


class Row:
    """One row of a CSR matrix, a request's, with what the sources ask of such a matrix.

    scipy finds out of each matrix what it was given, which takes longer than to multiply the row of a request.

    Args:
        data: (n,) float32. indices: (n,) columns; one may come twice, then its values add up. width: of the matrix.
    """

    __slots__ = ("data", "indices", "shape")

    def __init__(self, data: Floats, indices: npt.NDArray[Any], width: int) -> None:
        self.data, self.indices, self.shape = data, indices, (1, width)

    @property
    def indptr(self) -> Ints:
        """(2,), as of a matrix of one row."""
        return np.array([0, len(self.data)])

    def __matmul__(self, by: csr_array | Floats) -> "Row | Floats":
        """By (N, C) sparse → a row; by (N, C) dense → (1, C)."""
        if isinstance(by, np.ndarray):
            return np.asarray(self.data @ by[self.indices])[None]
        indices, data, indptr = _gathered(self.indices, by)
        return Row(data * np.repeat(self.data, np.diff(indptr)), indices, by.shape[1])

    def toarray(self) -> Floats:
        """(1, width)."""
        return np.bincount(self.indices, self.data, self.shape[1]).astype(np.float32)[None]


def binary(counts: csr_array | Row) -> Any:
    """1 wherever there is something."""
    return alike(counts, np.ones(len(counts.data), dtype=np.float32))


def alike(rows: csr_array | Row, data: Floats) -> Any:
    """Other values where these rows have some."""
    if isinstance(rows, Row):
        return Row(data, rows.indices, rows.shape[1])
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def take(rows: csr_array, at: Ints) -> Any:
    """Some rows."""
    if len(at) != 1:
        return csr_array(rows[at])
    part = slice(rows.indptr[at[0]], rows.indptr[at[0] + 1])
    return Row(rows.data[part], rows.indices[part], rows.shape[1])


def moved(rows: csr_array | Row, keep: npt.NDArray[np.bool_], columns: Ints, width: int) -> Any:
    """Of all values those to `keep`, in other `columns` of rows of a `width`."""
    if isinstance(rows, Row):
        return Row(rows.data[keep], columns, width)
    indptr = np.concatenate([[0], np.cumsum(keep)])[rows.indptr]
    return csr_array((rows.data[keep], columns, indptr), shape=(rows.shape[0], width))


def times(rows: csr_array | Row, by: csr_array) -> Floats:
    """(B, N) by (N, C) → (B, C), the product, dense. Of one row, it is the sum of the rows of `by` that it names.

    scipy makes a sparse product of two sparse matrices first, in two passes, and a dense one of it.
    """
    out = np.zeros((rows.shape[0], by.shape[1]), dtype=by.dtype)
    weights, indptr = rows.data.astype(by.dtype, copy=False), rows.indptr
    for row, total in enumerate(out):
        part = slice(indptr[row], indptr[row + 1])
        at, data, begins = _gathered(rows.indices[part], by)
        _sparsetools.csc_matvec(len(total), len(begins) - 1, begins, at, data, weights[part], total)
    return out.astype(np.float32, copy=False)


def _gathered(named: npt.NDArray[Any], by: csr_array) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Columns and values of the rows that are named, one after the other, and where each begins, by scipy's loop.

    What scipy puts around it takes four times as long.
    """
    named = named.astype(by.indices.dtype, copy=False)
    ends = np.cumsum(by.indptr[named + 1] - by.indptr[named], dtype=by.indptr.dtype)
    indptr = np.concatenate([np.zeros(1, dtype=ends.dtype), ends])
    indices, data = np.empty(indptr[-1], dtype=by.indices.dtype), np.empty(indptr[-1], dtype=by.dtype)
    _sparsetools.csr_row_index(len(named), named, by.indptr, by.indices, by.data, indices, data)
    return indices, data, indptr


def in_order(product: Any) -> csr_array:
    """A product with its rows sorted by column, as `values_at` needs it."""
    out = csr_array(product)
    out.sort_indices()
    return out


def row_of(rows: csr_array | Row) -> Ints:
    """(nnz,) the row of each value."""
    return np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))


def scaled(by_row: npt.NDArray[Any], rows: csr_array) -> csr_array:
    """Each row times a number."""
    return csr_array(diags_array(np.asarray(by_row, dtype=np.float32)) @ rows)


def unit(rows: csr_array) -> csr_array:
    """Rows at length 1; an empty one stays empty."""
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return scaled(np.divide(1.0, length, out=np.zeros(len(length)), where=length > 0), rows)


def best(rows: csr_array, k: int) -> tuple[Ints, Ints, Ints]:
    """The k largest positive values of each row: row, column and rank from 0, rows ascending."""
    keep = rows.data > 0
    row, column, value = row_of(rows)[keep], rows.indices[keep].astype(np.int64), rows.data[keep]
    order = np.lexsort((-value, row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(rows.shape[0]))[row]
    short = rank < k
    return row[short], column[short], rank[short]


def values_at(rows: csr_array, columns: Ints) -> Floats:
    """Values of (B, N) sorted rows at (B, C) columns."""
    n = rows.shape[1]
    keys = row_of(rows) * n + rows.indices
    wanted = np.arange(len(columns))[:, None] * n + columns
    if len(keys) == 0:
        return np.zeros(columns.shape, dtype=np.float32)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    out: Floats = np.where(keys[at] == wanted, rows.data[at], np.float32(0)).astype(np.float32)
    return out


def strongest(rows: Callable[[slice], Floats], n: int, k: int) -> csr_array:
    """Rows of an (n, n) matrix, dense → CSR of the k largest positive values of each, the diagonal left out."""
    parts, k = [], min(k, n - 1)
    for start in range(0, n, _BLOCK):
        block = rows(slice(start, min(start + _BLOCK, n)))
        at = np.arange(len(block))
        block[at, start + at] = 0
        top = np.argpartition(-block, k - 1, axis=1)[:, :k]
        value = np.take_along_axis(block, top, axis=1)
        keep = value > 0
        parts.append((value[keep], np.repeat(start + at, keep.sum(axis=1)), top[keep]))
    value, row, column = (np.concatenate(x) for x in zip(*parts, strict=True))
    return matrix(value, (row, column), (n, n))


def packed(name: str, rows: csr_array) -> dict[str, torch.Tensor]:
    """CSR → `<name>.indptr` int64, `<name>.indices` int32 and `<name>.data` float32."""
    return {
        f"{name}.indptr": torch.from_numpy(rows.indptr.astype(np.int64)),
        f"{name}.indices": torch.from_numpy(rows.indices.astype(np.int32)),
        f"{name}.data": torch.from_numpy(rows.data.astype(np.float32)),
    }


def unpacked(tensors: Mapping[str, torch.Tensor], name: str, shape: tuple[int, int]) -> csr_array:
    """What `packed` took apart.

    Raises:
        KeyError: a part is missing.
        ValueError: the parts are no matrix of this shape.
    """
    data, indices, indptr = (tensors[f"{name}.{part}"].numpy() for part in ("data", "indices", "indptr"))
    if len(data) < np.iinfo(np.int32).max:  # or scipy would widen the columns too, to a half more memory
        indptr = indptr.astype(np.int32)
    out = csr_array((data, indices, indptr), shape=shape)
    out.check_format(full_check=True)
    return out
