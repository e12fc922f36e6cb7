"""The users of a version by our ids, and what its sources say of them: candidate people of one request."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.aggregates.states import Ints
from recsys.artifacts import Artifact
from recsys.errors import ArtifactError
from recsys.recommend.catalogue import nearest
from recsys.sources import PEOPLE_SOURCES, SOURCES, Friendly, Fusion, PeopleSources
from recsys.stages import stage

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoundPeople:
    """C candidate people of one request, in no order.

    Attributes:
        ids: (C,). vectors: (C, D) of people. marks: (C,) a bit a source of PEOPLE_SOURCES that named them.
        position: (C,) in the city. said: what the sources say. fusion: the same of all people of the city, as one.
    """

    ids: Ints
    vectors: Floats
    marks: npt.NDArray[np.uint8]
    position: Ints
    said: Friendly
    fusion: Fusion

    @property
    def retrieval(self) -> Floats:
        """(C,) how well the sources together like the candidates, in [0, 1)."""
        out: Floats = self.fusion.scores(self.position[None])[0]
        return out

    def where(self, keep: npt.NDArray[np.bool_]) -> "FoundPeople":
        """Those of a mask (C,)."""
        return replace(
            self, ids=self.ids[keep], vectors=self.vectors[keep], marks=self.marks[keep], position=self.position[keep]
        )

    def named(self, at: int) -> list[str]:
        """The sources that named a candidate; none where they only filled the list up."""
        return [name for bit, name in enumerate(PEOPLE_SOURCES) if self.marks[at] >> bit & 1]


class Community:
    """What a version knows of its users.

    Args:
        sources: as of the version's `until`.
        users: an artifact's `users` table: user_id, index, city_id, people.

    Raises:
        ArtifactError: the sources are of other users.
    """

    def __init__(self, sources: PeopleSources, users: pa.Table) -> None:
        ids, nodes, cities = (users[name].to_numpy().astype(np.int64) for name in ("user_id", "index", "city_id"))
        if len(sources.home) != len(ids) or not np.array_equal(sources.home[nodes], cities):
            raise ArtifactError(
                "the sources are of other users than the table: run `recsys train` "
                f"(got {len(sources.home)} users; the table has {len(ids)})"
            )
        self.sources = sources
        row = np.argsort(nodes)
        flat = users["people"].combine_chunks().flatten().to_numpy().astype(np.float32, copy=False)
        self._ids, self._vectors = ids[row], flat.reshape(len(ids), -1)[row]
        order = np.argsort(self._ids)
        self._sorted, self._nodes = self._ids[order], order

    @classmethod
    def load(cls, artifact: Artifact, users: pa.Table) -> "Community":
        """Read from a model version; `users` is its table, which others read too.

        Raises:
            ArtifactError: the version has no sources of people, or they do not fit its table.
        """
        tensors = artifact.tensors(SOURCES)
        if "people.home" not in tensors:
            raise ArtifactError(f"version {artifact.version} was made by older code: run `recsys train`")
        try:
            return cls(PeopleSources.load(tensors), users)
        except ArtifactError as error:
            raise ArtifactError(f"version {artifact.version}: {error}") from error

    @stage("retrieve")
    def find(self, node: int, city: int, near: Ints, size: int, *, without: Ints) -> FoundPeople:
        """Candidates of a request.

        Args:
            node: the user's number.
            city: where they live.
            near: (n,) ids of the city's people by vector, best first.
            size: how many; fewer where the city has fewer who may come.
            without: (W,) numbers of users who may not come, in any city; the user never does.

        Raises:
            ArtifactError: the index holds somebody whom the version does not know there.
        """
        members = self.sources.members(city)
        at = self._nodes[np.minimum(np.searchsorted(self._sorted, near), len(self._sorted) - 1)]
        strange = (self._ids[at] != near) | (self.sources.home[at] != city)
        if strange.any():
            raise ArtifactError(
                f"the index holds {int(strange.sum())} people of city {city} that the version does not know: run "
                f"`recsys train` and `recsys publish` (got user {near[strange][0]})"
            )
        said = self.sources.ask(np.array([node]), city)
        barred = np.isin(members, without)
        fusion = self.sources.fuse(said, np.searchsorted(members, at)[None])
        position, marks = fusion.best(size, barred[None])
        found = members[position[0]]
        people = FoundPeople(self._ids[found], self._vectors[found], marks[0], position[0], said, fusion)
        return people.where(~barred[people.position])

    def vector(self, user_id: int) -> Floats | None:
        """(D,) of somebody among people; None where the version does not know them."""
        at = min(int(np.searchsorted(self._sorted, user_id)), len(self._sorted) - 1)
        return self._vectors[self._nodes[at]] if self._sorted[at] == user_id else None

    def nearest(self, city: int, vector: Floats, without: Ints, limit: int) -> Ints:
        """Ids of a city's people by dot product, best first, but for some numbers: what the index says."""
        members = self.sources.members(city)
        found: Ints = self._ids[nearest(self._vectors, vector, np.setdiff1d(members, without), limit)]
        return found

    def position(self, user_id: int, city: int) -> int | None:
        """Where somebody stands among a city's people; None: they do not live there."""
        at = np.flatnonzero(self._ids[self.sources.members(city)] == user_id)
        return int(at[0]) if len(at) else None

    def strengths(self, said: Friendly, city: int, vector: Floats) -> dict[str, Floats]:
        """What each source says of a city's people: (C,), the more the better, by source; of oneself nothing."""
        near = self._vectors[self.sources.members(city)] @ vector
        out = {**{name: said.named[name][0].copy() for name in PEOPLE_SOURCES[:-1]}, PEOPLE_SOURCES[-1]: near}
        if (itself := int(said.itself[0])) >= 0:
            for values in out.values():
                values[itself] = -np.inf
        return out

    @stage("features")
    def signals(self, found: FoundPeople) -> Floats:
        """(C, len(PEOPLE_SIGNALS)) of the candidates."""
        out: Floats = self.sources.signals(found.said, found.position[None])[0]
        return out
