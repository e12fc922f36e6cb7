"""Whom a user is like, by rare places in common, and where those were."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from recsys.sources.rows import Floats, Ints, Row, alike, row_of, times

_PEERS: Final = 200  # of the most alike


@dataclass(frozen=True)
class Alike:
    """The users of one city's places: P of all N users were at one of C places.

    Attributes:
        people: (P,) their numbers, ascending.
        rarity: (C,) log of N over visitors. by_place: CSR (C, P), each one's places by rarity, of length 1.
        seen: CSR (P, C), 1 where one was. fading: the same, less the longer ago.
    """

    people: Ints
    rarity: Floats
    by_place: csr_array
    seen: csr_array
    fading: csr_array

    @classmethod
    def of(cls, seen: csr_array, fading: csr_array, visitors: Ints) -> "Alike":
        """Of who was where: CSR (N, C) twice, and (C,)."""
        rarity = np.log(max(seen.shape[0], 1) / np.maximum(visitors, 1)).astype(np.float32)
        people = np.flatnonzero(np.diff(seen.indptr))
        seen, fading = csr_array(seen[people]), csr_array(fading[people])
        return cls(people, rarity, csr_array(_unit(seen, rarity).T), seen, fading)

    def ask(self, users: Ints, seen: csr_array | Row) -> tuple[Floats, Floats]:
        """Where the users most alike were: cosines of rarity added up by place (Sarwar et al., EC 2000, user by user).

        Args:
            users: (B,) numbers, who are no peers of their own. seen: CSR (B, C), where they were by now.

        Returns:
            (B, C) whenever that was, and (B, C) fading.
        """
        k = min(_PEERS, len(self.people))
        if k == 0:
            nothing = np.zeros(seen.shape, dtype=np.float32)
            return nothing, nothing
        cosine = times(_unit(seen, self.rarity), self.by_place)
        at = np.minimum(np.searchsorted(self.people, users), len(self.people) - 1)
        themselves = np.flatnonzero(self.people[at] == users)
        cosine[themselves, at[themselves]] = 0
        peers = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
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
