"""What belongs to a data set rather than to a version of the model: clock, events, decisions, what was shown."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from recsys.artifacts import Artifact
from recsys.events import EventLog, Folder, Intake
from recsys.features import FeatureStore, LiveStates
from recsys.impressions import Impressions
from recsys.recommend.fallback import Guards
from recsys.safety import Safety
from recsys.settings import Settings
from recsys.taxonomy import Widths

_FOLD_TIMEOUT_S: Final = 2.0  # of one round trip: a batch of events may take longer than an answer may wait
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOG = structlog.get_logger("api")


class Clock:
    """The moment the service believes in: the wall clock, or one that goes on from a moment; never back.

    Args:
        start: where it goes on from; None: the wall clock.
        since_ns: when it was there, by `time.monotonic_ns`, which all processes of a machine share.
    """

    def __init__(self, start: datetime | None, since_ns: int) -> None:
        self._start = None if start is None else _utc(start) - timedelta(microseconds=since_ns // 1_000)

    def __call__(self) -> datetime:
        """Now."""
        if self._start is None:
            return datetime.now(UTC)
        return self._start + timedelta(microseconds=time.monotonic_ns() // 1_000)

    def at_least(self, moment: datetime) -> None:
        """Go on from a moment, unless it is past already; the wall clock is what it is."""
        if self._start is not None:
            self._start += max(timedelta(0), _utc(moment) - self())


class Dataset:
    """One data set's: open it in a thread, `start` and `stop` it on the event loop.

    Attributes:
        world: what names it.
        clock: the moment the service believes in.
        safety: who may not be shown to whom, and which places to nobody.
        events: takes events; None until it is started.
        impressions: takes what was shown.

    Args:
        writer: names the files of impressions of this process.
        since_ns: when the service started, by `time.monotonic_ns`.

    Raises:
        DataError: the log, or the list of blocks and hidden places, is damaged.
        EventLogUnavailable, SafetyUnavailable: another process holds the log; that list cannot be read.
    """

    def __init__(self, settings: Settings, artifact: Artifact, writer: str, since_ns: int) -> None:
        self.world = world_of(artifact)
        self._settings, self._log = settings, EventLog(settings.events / self.world)
        self._log.refresh()
        self.safety = Safety(settings.safety / self.world)
        self.clock = clock_of(settings, artifact, self._log, since_ns)
        self.events: Intake | None = None
        self._guards: dict[Widths, Guards] = {}
        self._live: FeatureStore | None = None
        self.impressions = Impressions(
            settings.impressions / self.world,
            writer,
            keep=timedelta(days=settings.impression_days),
            wall=wall,
            on_trouble=_not_written,
        )

    def guards(self, widths: Widths) -> Guards:
        """What goes on when versions change; by the widths of their taxonomy, since what was read last has them."""
        guards = self._guards.get(widths)
        if guards is None:
            guards = self._guards[widths] = Guards(index_timeout_s=self._settings.index_timeout_ms / 1e3)
        return guards

    def follow(self, artifact: Artifact) -> None:
        """Another version of the data set serves: its data may reach further."""
        if self._settings.now is None and artifact.manifest["synthetic"]:
            self.clock.at_least(_until(artifact))

    async def start(self) -> None:
        """Take events, and fold what an earlier process left."""
        await asyncio.to_thread(self._log.refresh)
        self._live = FeatureStore(**self._settings.feast, timeout_s=_FOLD_TIMEOUT_S, history=False)
        self.events = Intake(Folder(self._log, LiveStates(self._live), now=self.clock, wall=wall), _say)
        self.events.start()

    async def stop(self) -> None:
        """Take no more events: those that were taken reach the disk."""
        events, live, self.events, self._live = self.events, self._live, None, None
        if events is not None:
            await events.close()
        if live is not None:
            live.close()

    async def close(self) -> None:
        """Stop, and write what was shown."""
        await self.stop()
        await asyncio.to_thread(self.impressions.close)


def clock_of(settings: Settings, artifact: Artifact, log: EventLog, since_ns: int) -> Clock:
    """The wall clock; for a synthetic world, or where a moment is set, one that goes on from there.

    It is after the last event of the log, so that a service that starts again does not go back in time.
    """
    start = settings.now
    if start is None and artifact.manifest["synthetic"]:
        start = _until(artifact)
    clock = Clock(start, since_ns)
    clock.at_least(_EPOCH + timedelta(microseconds=log.latest_us + 1))
    return clock


def world_of(artifact: Artifact) -> str:
    """What names the data set that a version was trained on."""
    return str(artifact.manifest.get("world", "default"))


def _until(artifact: Artifact) -> datetime:
    return datetime.fromisoformat(artifact.manifest["until"])


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def wall() -> datetime:
    """The moment by the server's clock."""
    return datetime.now(UTC)


def _say(error: Exception | None) -> None:
    if error is None:
        _LOG.info("events are folded again")
    else:
        _LOG.warning("events wait in the log", error=type(error).__name__, detail=str(error))


def _not_written(error: OSError | None) -> None:
    if error is None:
        _LOG.info("impressions are written again")
    else:
        _LOG.warning("impressions are lost", error=type(error).__name__, detail=str(error))
