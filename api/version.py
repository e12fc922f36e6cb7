"""One version of the model, loaded: its artifact checked, its index open, its engine warm."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog

from api.dataset import Dataset
from recsys.aggregates.states import Ints
from recsys.artifacts import Artifact, open_artifact
from recsys.errors import RecsysError, UnknownPlace, UnknownUser
from recsys.features import FeatureStore
from recsys.index import IndexReader, VectorIndex
from recsys.models.ranker import Ranker
from recsys.recommend.catalogue import Catalogue, Homes
from recsys.recommend.community import Community
from recsys.recommend.engine import Engine, Gazetteer
from recsys.recommend.fallback import Own
from recsys.recommend.identity import SourceIds
from recsys.recommend.people import PeopleQuery, recommend_people
from recsys.recommend.places import recommend_places
from recsys.recommend.ranking import PlaceQuery
from recsys.settings import Settings

_LOG = structlog.get_logger("api")


@dataclass(frozen=True, eq=False)
class Version:
    """Attributes:
    engine: answers. data: the data set that it is of.
    warm_user: someone it knows. known_users, known_places: ids, ascending.
    """

    engine: Engine
    artifact: Artifact
    data: Dataset
    warm_user: int
    known_users: Ints
    known_places: Ints

    @property
    def name(self) -> str:
        """The one name of the artifact, its collections and its answers."""
        return self.engine.version

    async def close(self) -> None:
        """Release what only it holds."""
        self.engine.features.close()
        await self.engine.index.close()


async def load(settings: Settings, index: VectorIndex, name: str, dataset: Callable[[Artifact], Dataset]) -> Version:
    """Open a version; the event loop goes on meanwhile.

    Args:
        settings: where things are.
        index: holds it.
        name: which.
        dataset: gives the data set of an artifact, in a thread.

    Raises:
        NotReady, ArtifactError: the version's artifact is missing, damaged, made by older code, or of other features
            than the registry's; or the index does not hold it.
        IndexUnavailable: the index does not answer.
        DataError, SafetyUnavailable, EventLogUnavailable: see `Dataset`.
    """
    # objects that stay: each search for garbage among them would stop every answer
    gc.disable()
    try:
        artifact = await asyncio.to_thread(open_artifact, settings.artifacts, name)
        reader = await index.reader(name)
        try:
            version = await asyncio.to_thread(_open, settings, artifact, reader, dataset)
        except BaseException:
            await reader.close()
            raise
        try:
            await _warm(version)
        except BaseException:
            await version.close()
            raise
        gc.freeze()
    finally:
        gc.enable()
    return version


def _open(
    settings: Settings, artifact: Artifact, reader: IndexReader, dataset: Callable[[Artifact], Dataset]
) -> Version:
    data = dataset(artifact)
    engine = _engine(settings, artifact, reader, data)
    try:
        artifact.require_features(engine.features.schema())
        users, places = (
            np.sort(artifact.table(f"{kind}s")[f"{kind}_id"].to_numpy()).astype(np.int64) for kind in ("user", "place")
        )
    except BaseException:
        engine.features.close()
        raise
    return Version(engine, artifact, data, int(users[0]), users, places)


def _engine(settings: Settings, artifact: Artifact, index: IndexReader, data: Dataset) -> Engine:
    taxonomy = artifact.taxonomy
    users, places = artifact.table("users"), artifact.table("places")
    catalogue = Catalogue.load(artifact, places, len(users))  # before the heads: an older version is refused as such
    community = Community.load(artifact, users)
    return Engine(
        version=artifact.version,
        gazetteer=Gazetteer.of(places, taxonomy),
        ranker=Ranker.load(artifact),
        index=index,
        features=FeatureStore(
            **settings.feast,
            timeout_s=settings.online_timeout_ms / 1e3,
            widths=taxonomy.widths,
            feature_cache_s=settings.feature_cache_s,
            history=False,
        ),
        candidates=settings.candidates,
        homes=Homes(users),
        catalogue=catalogue,
        community=community,
        safety=data.safety,
        own=Own(users, places, taxonomy.widths),
        guards=data.guards(taxonomy.widths),
        k_anonymity=settings.k_anonymity,
        friendships=not artifact.manifest["synthetic"],  # a synthetic world's ties are people alike
        users=SourceIds("user", artifact.optional_table("user_ids"), UnknownUser),
        places=SourceIds("place", artifact.optional_table("place_ids"), UnknownPlace),
    )


async def _warm(version: Version) -> None:
    """One request of each kind, so that the first user does not pay for lazy loading."""
    now = version.data.clock()
    try:
        await recommend_places(version.engine, PlaceQuery(version.warm_user), now)
        await recommend_people(version.engine, PeopleQuery(version.warm_user), now)
    except RecsysError as error:
        _LOG.warning("not warm", model_version=version.name, error=type(error).__name__, detail=str(error))
