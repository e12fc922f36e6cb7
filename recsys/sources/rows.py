"""Rows of sparse matrices, many at a time: what the sources are made of."""

from collections.abc import Mapping
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


def binary(counts: csr_array) -> csr_array:
    """1 wherever there is something."""
    return csr_array((np.ones(counts.nnz, dtype=np.float32), counts.indices, counts.indptr), shape=counts.shape)


def take(rows: csr_array, at: Ints) -> csr_array:
    """Some rows. To find out what it was asked for takes scipy longer than to cut out the one row of a request."""
    if len(at) != 1:
        return csr_array(rows[at])
    begin, end = rows.indptr[at[0]], rows.indptr[at[0] + 1]
    return csr_array((rows.data[begin:end], rows.indices[begin:end], (0, end - begin)), shape=(1, rows.shape[1]))


def times(rows: csr_array, by: csr_array) -> Floats:
    """(B, N) by (N, C) → (B, C), the product, dense.

    Of one row, a request's, it is the sum of the rows of `by` that it names. scipy's own loops add them up; what scipy
    puts around them, to find out what it was given, takes four times as long.
    """
    if rows.shape[0] != 1:
        return np.asarray((rows @ by).toarray(), dtype=np.float32)
    named = rows.indices.astype(by.indices.dtype, copy=False)
    end = np.cumsum(by.indptr[named + 1] - by.indptr[named], dtype=by.indptr.dtype)
    indptr = np.concatenate([np.zeros(1, dtype=end.dtype), end])
    indices, data = np.empty(indptr[-1], dtype=by.indices.dtype), np.empty(indptr[-1], dtype=by.dtype)
    weights, out = rows.data.astype(by.dtype, copy=False), np.zeros(by.shape[1], dtype=by.dtype)
    _sparsetools.csr_row_index(len(named), named, by.indptr, by.indices, by.data, indices, data)
    _sparsetools.csc_matvec(len(out), len(named), indptr, indices, data, weights, out)
    return out[None].astype(np.float32, copy=False)


def in_order(product: Any) -> csr_array:
    """A product with its rows sorted by column, as `values_at` needs it."""
    out = csr_array(product)
    out.sort_indices()
    return out


def row_of(rows: csr_array) -> Ints:
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


def strongest(square: Any, k: int) -> csr_array:
    """(n, n), dense or sparse → CSR of the k largest positive values of each row, the diagonal left out."""
    n, parts = square.shape[0], []
    k = min(k, n - 1)
    for start in range(0, n, _BLOCK):
        block = square[start : start + _BLOCK]
        block = np.array(block) if isinstance(block, np.ndarray) else block.toarray()
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
    out = csr_array((data, indices, indptr), shape=shape)
    out.check_format(full_check=True)
    return out
