"""Whom a user is like, by rare places in common, and where those were."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from recsys.sources.rows import Floats, Ints, Row, alike, row_of, times

_PEERS: Final = 200  # of the most alike


@dataclass(frozen=True)
class Alike:
    """The users of one city's places: N users, C places.

    Attributes:
        rarity: (C,) log of users over visitors. by_place: CSR (C, N), each user's places by rarity, of length 1.
        seen: CSR (N, C), 1 where one was. fading: the same, less the longer ago.
    """

    rarity: Floats
    by_place: csr_array
    seen: csr_array
    fading: csr_array

    @classmethod
    def of(cls, seen: csr_array, fading: csr_array, visitors: Ints) -> "Alike":
        """Of who was where."""
        rarity = np.log(max(seen.shape[0], 1) / np.maximum(visitors, 1)).astype(np.float32)
        return cls(rarity, csr_array(_unit(seen, rarity).T), seen, fading)

    def ask(self, users: Ints, seen: csr_array | Row) -> tuple[Floats, Floats]:
        """Where the users most alike were: cosines of rarity added up by place (Sarwar et al., EC 2000, user by user).

        Args:
            users: (B,) rows that are no peers of their own. seen: CSR (B, C), where they were by now.

        Returns:
            (B, C) whenever that was, and (B, C) fading.
        """
        cosine = times(_unit(seen, self.rarity), self.by_place)
        cosine[np.arange(len(users)), users] = 0
        k = min(_PEERS, cosine.shape[1] - 1)
        if k < 1:
            nothing = np.zeros(seen.shape, dtype=np.float32)
            return nothing, nothing
        peers = np.argpartition(-cosine, k, axis=1)[:, :k]
        value = np.take_along_axis(cosine, peers, axis=1)
        if len(users) == 1:
            near = Row(value[0], peers[0], cosine.shape[1])
        else:
            near = csr_array((value.ravel(), peers.ravel(), np.arange(len(users) + 1) * k), shape=cosine.shape)
        return times(near, self.seen), times(near, self.fading)


def _unit(seen: csr_array | Row, rarity: Floats) -> Any:
    """Rows of rarity where one was, of length 1."""
    data, row = rarity[seen.indices], row_of(seen)
    length = np.sqrt(np.bincount(row, weights=data**2, minlength=seen.shape[0]))
    data = np.divide(data, length[row], out=np.zeros_like(data), where=length[row] > 0)
    return alike(seen, data)
