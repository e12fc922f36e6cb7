"""What the app holds while it serves: the live version's engine and the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.artifacts import open_artifact
from recsys.errors import NotReady, UnknownPlace, UnknownUser
from recsys.features import FeatureStore
from recsys.index import VectorIndex, open_index
from recsys.models.ranker import Ranker
from recsys.recommend.engine import Engine, Gazetteer
from recsys.recommend.identity import SourceIds
from recsys.settings import Settings


@dataclass
class State:
    """Attributes:
    engine: the live version; None while nothing is published.
    now: the moment the service believes in.
    warm_user: someone of the live version, for the first requests at start-up.
    """

    engine: Engine | None
    now: Callable[[], datetime]
    warm_user: int = 0

    def require(self) -> Engine:
        """The engine, or NotReady with what to run."""
        if self.engine is None:
            raise NotReady("no version is published: run `recsys publish`, then start again")
        return self.engine

    async def close(self) -> None:
        """Close what the engine holds."""
        if self.engine is not None:
            self.engine.features.close()
            await self.engine.index.close()


async def load(settings: Settings) -> State:
    """Open the version that the index says is live.

    Raises:
        NotReady, ArtifactError: the version's artifact is missing or damaged.
        IndexUnavailable: the index server does not answer.
    """
    index: VectorIndex = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
    version = await index.refresh()
    if version is None:
        await index.close()
        return State(None, _clock(settings.now))
    try:
        artifact = open_artifact(settings.artifacts, version)
        taxonomy = artifact.taxonomy
        engine = Engine(
            version=version,
            gazetteer=Gazetteer.of(artifact.table("places"), taxonomy),
            ranker=Ranker.load(artifact),
            index=index,
            features=FeatureStore(
                settings.feature_repo,
                data_dir=settings.data_dir,
                redis_url=settings.redis_url,
                timeout_s=settings.online_timeout_ms / 1e3,
                widths=taxonomy.widths,
            ),
            candidates=settings.candidates,
            users=SourceIds("user", artifact.optional_table("user_ids"), UnknownUser),
            places=SourceIds("place", artifact.optional_table("place_ids"), UnknownPlace),
        )
    except BaseException:
        await index.close()
        raise
    # A synthetic world's time does not move: its features are as fresh as its data can be.
    fixed = settings.now
    if fixed is None and artifact.manifest["synthetic"]:
        fixed = datetime.fromisoformat(artifact.manifest["until"])
    return State(engine, _clock(fixed), int(artifact.table("users")["user_id"][0].as_py()))


def _clock(fixed: datetime | None) -> Callable[[], datetime]:
    if fixed is None:
        return lambda: datetime.now(UTC)
    moment = fixed if fixed.tzinfo else fixed.replace(tzinfo=UTC)
    return lambda: moment
