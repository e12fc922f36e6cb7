"""Weighted alternating least squares over visits, by the `implicit` package; its only place here."""

import numpy as np
import torch
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from recsys.sources.rows import Floats


def als_factors(
    visits: csr_array, *, factors: int, regularization: float, alpha: float, iterations: int, exact: bool, seed: int = 0
) -> tuple[Floats, Floats]:
    """Factors of users and places whose products come near 1 where there was a visit and near 0 elsewhere.

    Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008: preference 1 at a visit,
    confidence c = 1 + alpha r (eq. 3), each side solved given the other (eq. 4 and 5).

    Args:
        visits: CSR (N, C), r: how much each visit counts.
        factors: width of the vectors, F.
        regularization: λ of eq. 3.
        alpha: what a visit adds to the confidence.
        iterations: both sides solved once in each.
        exact: by Cholesky factors; else by three steps of conjugate gradients, in a third of the time.
        seed: of the factors that the first iteration begins with.

    Returns:
        (N, F) and (C, F) float32; zeros where there is no visit.
    """
    confidence = csr_matrix(visits, dtype=np.float32, copy=True)
    if confidence.nnz == 0:
        return tuple(np.zeros((n, factors), dtype=np.float32) for n in visits.shape)  # type: ignore[return-value]
    # implicit takes c where something was, and 1 where nothing was
    confidence.data = 1.0 + np.float32(alpha) * confidence.data
    # rows are solved by threads of its own, each with small BLAS calls that must not start further threads
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            iterations=iterations,
            use_cg=not exact,
            use_gpu=False,
            num_threads=torch.get_num_threads(),
            random_state=seed,
        )
        model.fit(confidence, show_progress=False)
    return model.user_factors, model.item_factors
