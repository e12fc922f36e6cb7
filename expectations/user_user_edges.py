"""What a social tie must be."""

from expectations.rules import Bounds, known, known_since, less, present, unique, within
from recsys.quality import Suite
from recsys.schemas import USER_USER_EDGES


def suite(bounds: Bounds) -> Suite:
    """Rules for `user_user_edges`."""
    t = USER_USER_EDGES
    return Suite(
        t,
        (
            *present(t, *t.columns, why="The contract has no empty cell: a model would read it as NaN."),
            *known(t, "user_u", "user_v", why="An edge of the graph needs both of its ends."),
            less(
                "user_u",
                "user_v",
                why="A tie has no direction and is written once, the smaller id first; nobody ties with themselves.",
            ),
            unique(t, why="A pair that comes twice would weigh twice; its first row stays."),
            *within(
                t,
                "interest_overlap_score",
                "same_neighborhood_freq",
                why="Both are similarities: from 0, nothing, to 1, the same.",
            ),
            *within(t, "co_attendance_count", why="A count of what happened."),
            known_since(bounds),
        ),
    )
