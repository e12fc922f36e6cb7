"""Tables of two engines, compared."""

import numpy as np
import pyarrow as pa


def same(ours: pa.Table, theirs: pa.Table) -> None:
    """Same columns and types, and the same rows in the same order; floats to 1e-6.

    DuckDB says of some columns that they are never null; Spark's files never say so.
    """
    assert [(f.name, f.type) for f in theirs.schema] == [(f.name, f.type) for f in ours.schema]
    assert len(theirs) == len(ours)
    for name in ours.column_names:
        left, right = ours[name].combine_chunks(), theirs[name].combine_chunks()
        assert right.is_valid() == left.is_valid(), name
        if pa.types.is_list(left.type):
            assert right.value_lengths() == left.value_lengths(), name
            left, right = left.flatten(), right.flatten()
        if pa.types.is_floating(left.type):
            np.testing.assert_allclose(
                right.to_numpy(zero_copy_only=False),
                left.to_numpy(zero_copy_only=False),
                rtol=1e-6,
                atol=1e-6,
                err_msg=name,
            )
        else:
            assert right == left, name
