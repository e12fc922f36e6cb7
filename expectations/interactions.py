"""What an interaction must be."""

from expectations.rules import Bounds, after_known, equal, in_horizon, known, not_to_come, present, unique, within
from recsys.constants import TIME_OF_DAY_BY_HOUR
from recsys.quality import Expectation, Suite
from recsys.schemas import INTERACTIONS

_BUCKETS = (
    "One map leads from a moment to its buckets, in training and serving alike; a row that disagrees teaches noise."
)
_EARLY = "As of that event nobody knew of them: they have no features then, and training passes it over."


def suite(bounds: Bounds) -> Suite:
    """Rules for `interactions`."""
    t = INTERACTIONS
    return Suite(
        t,
        (
            *present(t, *t.columns, why="The contract has no empty cell: a model would read it as NaN."),
            *known(t, "user_id", "place_id", why="An edge of the graph needs both of its ends."),
            unique(t, why="The same event sent twice would count twice; its first row stays."),
            *within(t, "dwell_time", why="Seconds on one visit: none is negative or longer than a day."),
            *within(t, "num_likes", "num_saves", "num_shares", why="Counts of what happened."),
            *within(
                t, "implicit_rating", why="The rating's formula ends in [1, 5]; what is outside was not made by it."
            ),
            in_horizon(
                "timestamp",
                bounds,
                why="Everything is split by time: an event outside the data's days leaks or is lost.",
            ),
            not_to_come("timestamp", bounds),
            after_known(t, "user_id", moment="timestamp", why=_EARLY),
            after_known(t, "place_id", moment="timestamp", why=_EARLY),
            *within(t, "time_of_day_bucket", "day_of_week_bucket", why=_BUCKETS),
            *(() if bounds.local_time else _clock()),
        ),
    )


def _clock() -> tuple[Expectation, Expectation]:
    hour = f'{list(TIME_OF_DAY_BY_HOUR)}[hour("timestamp") + 1]'
    return (
        equal("time_of_day_bucket", "timestamp", hour, why=_BUCKETS),
        equal("day_of_week_bucket", "timestamp", '(isodow("timestamp") >= 6)::INT', why=_BUCKETS),
    )
