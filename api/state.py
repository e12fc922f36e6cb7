"""What one request holds from start to end: a version's engine and what goes with it, so that no answer mixes two."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from recsys.aggregates.states import Ints
from recsys.errors import NotReady
from recsys.events import Intake
from recsys.impressions import Impressions
from recsys.recommend.engine import Engine

if TYPE_CHECKING:
    from api.traffic import Split
    from api.version import Version

_NOBODY: Ints = np.empty(0, dtype=np.int64)


@dataclass
class State:
    """Attributes:
    engine: the version that serves; None while nothing is published.
    now: the moment the service believes in.
    warm_user: someone of that version, for the first requests at start-up.
    events: takes events; None while nothing is published.
    known_users, known_places: ids of that version, ascending; who came later is in the feature store.
    held: closed at the end, after everything else.
    split: some users are answered by another version. shadow: a version that computes answers nobody sees.
    impressions: takes what was shown; None: it is not kept.
    degraded: what every answer has to do without. troubles: why, and what else is not as it was asked for.
    versions: the loaded versions that are in use here.
    leases: how many requests hold this.
    """

    engine: Engine | None
    now: Callable[[], datetime]
    warm_user: int = 0
    events: Intake | None = None
    known_users: Ints = field(default_factory=lambda: _NOBODY)
    known_places: Ints = field(default_factory=lambda: _NOBODY)
    held: ExitStack = field(default_factory=ExitStack)
    split: "Split | None" = None
    shadow: Engine | None = None
    impressions: Impressions | None = None
    degraded: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    versions: "Sequence[Version]" = ()
    leases: int = 0

    def require(self) -> Engine:
        """The engine, or NotReady with what to run."""
        if self.engine is None:
            raise NotReady(self.troubles[0] if self.troubles else "no version is published: run `recsys publish`")
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
