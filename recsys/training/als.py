"""Weighted alternating least squares over visits, by the `implicit` package; its only place here."""

import numpy as np
import torch
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor

from recsys.errors import ConfigError


class Als:
    """Factors of users and places whose products come near 1 where there was a visit and near 0 elsewhere.

    Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008: preference 1 at a visit,
    confidence c = 1 + alpha r (eq. 3) with r the number of visits, and each side solved exactly given the other
    (eq. 4 and 5) by Cholesky factors, not by conjugate gradients.

    Args:
        visits: CSR (n_users, n_places), how often in train.
        factors: width of the vectors.
        regularization: λ of eq. 3.
        alpha: what a visit adds to the confidence.
        iterations: both sides solved once in each.
        counts: r is the number of visits; else 1 where there is any.
            Of the 15 settings tried on the last tenth of train of two real cities, the default width, λ and alpha were
            the best for new places (both cities' NDCG@10 together), and the same with `counts` for all places.
        seed: of the factors that the first iteration begins with.

    Raises:
        ConfigError: no factors, or a number out of range.
    """

    def __init__(
        self,
        visits: csr_array,
        *,
        factors: int = 64,
        regularization: float = 100.0,
        alpha: float = 10.0,
        iterations: int = 15,
        counts: bool = False,
        seed: int = 0,
    ) -> None:
        if factors < 1 or iterations < 1:
            raise ConfigError(f"factors and iterations of ALS must be at least 1 (got {factors} and {iterations})")
        if not (regularization > 0 and alpha > 0):
            raise ConfigError(f"regularization and alpha of ALS must be above 0 (got {regularization} and {alpha})")
        confidence = csr_matrix(visits, dtype=np.float32, copy=True)
        # implicit takes c where something was, and 1 where nothing was
        confidence.data = 1.0 + np.float32(alpha) * (confidence.data if counts else np.ones_like(confidence.data))
        # rows are solved by threads of its own, each with small BLAS calls that must not start further threads
        with threadpool_limits(limits=1, user_api="blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                iterations=iterations,
                use_cg=False,
                use_gpu=False,
                num_threads=torch.get_num_threads(),
                random_state=seed,
            )
            model.fit(confidence, show_progress=False)
        self.user, self.place = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)

    def scores(self, users: Tensor, candidates: Tensor) -> Tensor:
        """See `Scores`. Users and places without a visit have factors of 0 and score 0."""
        return self.user[users] @ self.place[candidates].t()
