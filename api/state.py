"""What the app holds while it serves: the live version's engine, the log of events, and the clock."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import structlog

from recsys.aggregates.states import Ints
from recsys.artifacts import Artifact, open_artifact
from recsys.errors import NotReady, UnknownPlace, UnknownUser
from recsys.events import EventLog, Folder, Intake
from recsys.features import FeatureStore, LiveStates
from recsys.index import VectorIndex, open_index
from recsys.models.ranker import Ranker
from recsys.recommend.catalogue import Catalogue, Homes
from recsys.recommend.community import Community
from recsys.recommend.engine import Engine, Gazetteer
from recsys.recommend.fallback import Guards, Own
from recsys.recommend.identity import SourceIds
from recsys.safety import Safety
from recsys.settings import Settings

_FOLD_TIMEOUT_S = 2.0  # of one round trip: a batch of events may take longer than an answer may wait
_NOBODY: Ints = np.empty(0, dtype=np.int64)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOG = structlog.get_logger("api")


@dataclass
class State:
    """Attributes:
    engine: the live version; None while nothing is published.
    now: the moment the service believes in.
    warm_user: someone of the live version, for the first requests at start-up.
    events: takes events; None while nothing is published.
    known_users, known_places: ids of the live version, ascending; who came later is in the feature store.
    held: closed at the end, after everything else.
    """

    engine: Engine | None
    now: Callable[[], datetime]
    warm_user: int = 0
    events: Intake | None = None
    known_users: Ints = field(default_factory=lambda: _NOBODY)
    known_places: Ints = field(default_factory=lambda: _NOBODY)
    held: ExitStack = field(default_factory=ExitStack)

    def require(self) -> Engine:
        """The engine, or NotReady with what to run."""
        if self.engine is None:
            raise NotReady("no version is published: run `recsys publish`, then start again")
        return self.engine

    def require_events(self) -> Intake:
        """What takes events, or NotReady."""
        if self.events is None:
            raise NotReady("this service takes no events: it was started without a log")
        return self.events

    async def close(self) -> None:
        """Let events that wait reach the disk, then close what is held."""
        with self.held:
            if self.events is not None:
                await self.events.close()
            if self.engine is not None:
                self.engine.features.close()
                await self.engine.index.close()


async def load(settings: Settings) -> State:
    """Open the version that the index says is live, and the log of events about its data.

    Raises:
        NotReady, ArtifactError: the version's artifact is missing, damaged, made by older code, or of other features
            than the registry's.
        IndexUnavailable: the index server does not answer.
        DataError: the log, or the list of blocks and hidden places, is damaged.
        SafetyUnavailable: that list cannot be read.
    """
    index: VectorIndex = open_index(settings.index, settings.qdrant_url, settings.qdrant_api_key)
    version = await index.refresh()
    if version is None:
        await index.close()
        return State(None, lambda: datetime.now(UTC))
    try:
        artifact = open_artifact(settings.artifacts, version)
        world = artifact.manifest.get("world", "default")
        log = EventLog(settings.events / world)
        await asyncio.to_thread(log.refresh)
        engine = _engine(settings, artifact, index, Safety(settings.safety / world))
        artifact.require_features(engine.features.schema())
    except BaseException:
        await index.close()
        raise
    now = _clock(settings, artifact, log)
    live = FeatureStore(
        settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url, timeout_s=_FOLD_TIMEOUT_S
    )
    held = ExitStack()
    held.callback(live.close)
    users, places = (
        np.sort(artifact.table(f"{kind}s")[f"{kind}_id"].to_numpy()).astype(np.int64) for kind in ("user", "place")
    )
    return State(
        engine,
        now,
        warm_user=int(users[0]),
        events=Intake(Folder(log, LiveStates(live), now=now, wall=lambda: datetime.now(UTC)), _say),
        known_users=users,
        known_places=places,
        held=held,
    )


def _engine(settings: Settings, artifact: Artifact, index: VectorIndex, safety: Safety) -> Engine:
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
            settings.feature_repo,
            data_dir=settings.data_dir,
            redis_url=settings.redis_url,
            timeout_s=settings.online_timeout_ms / 1e3,
            widths=taxonomy.widths,
            place_cache_s=settings.place_cache_s,
        ),
        candidates=settings.candidates,
        homes=Homes(users),
        catalogue=catalogue,
        community=community,
        safety=safety,
        own=Own(users, places, taxonomy.widths),
        guards=Guards(index_timeout_s=settings.index_timeout_ms / 1e3),
        k_anonymity=settings.k_anonymity,
        friendships=not artifact.manifest["synthetic"],  # a synthetic world's ties are people alike
        users=SourceIds("user", artifact.optional_table("user_ids"), UnknownUser),
        places=SourceIds("place", artifact.optional_table("place_ids"), UnknownPlace),
    )


def _clock(settings: Settings, artifact: Artifact, log: EventLog) -> Callable[[], datetime]:
    """The wall clock; for a synthetic world, or where a moment is set, one that goes on from there.

    It begins after the last event of the log, so that a service that starts again does not go back in time.
    """
    fixed = settings.now
    if fixed is None and artifact.manifest["synthetic"]:
        fixed = datetime.fromisoformat(artifact.manifest["until"])
    if fixed is None:
        return lambda: datetime.now(UTC)
    moment = fixed if fixed.tzinfo else fixed.replace(tzinfo=UTC)
    begin = max(moment.astimezone(UTC), _EPOCH + timedelta(microseconds=log.latest_us + 1))
    started = time.monotonic_ns()
    return lambda: begin + timedelta(microseconds=(time.monotonic_ns() - started) // 1_000)


def _say(error: Exception | None) -> None:
    if error is None:
        _LOG.info("events are folded again")
    else:
        _LOG.warning("events wait in the log", error=type(error).__name__, detail=str(error))
