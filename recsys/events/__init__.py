"""What the API is told, made to count: a log on disk first, then the states online, each event exactly once."""

from recsys.events.event import AHEAD, KINDS, LATE, Event, Kind
from recsys.events.folder import Folder, fold_pending
from recsys.events.intake import Intake, Receipt
from recsys.events.landing import landable
from recsys.events.log import REMEMBERED, EventLog
from recsys.events.reader import last_position

__all__ = [
    "AHEAD",
    "KINDS",
    "LATE",
    "REMEMBERED",
    "Event",
    "EventLog",
    "Folder",
    "Intake",
    "Kind",
    "Receipt",
    "fold_pending",
    "landable",
    "last_position",
]
