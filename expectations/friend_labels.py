"""What a label of a pair must be."""

from expectations.rules import Bounds, known, known_since, less, present, unique, within
from recsys.quality import Suite
from recsys.schemas import FRIEND_LABELS


def suite(bounds: Bounds) -> Suite:
    """Rules for `friend_labels`."""
    t = FRIEND_LABELS
    return Suite(
        t,
        (
            *present(t, *t.columns, why="The contract has no empty cell: a model would read it as NaN."),
            *known(t, "user_u", "user_v", why="There is nothing to learn of a person who is not there."),
            less(
                "user_u",
                "user_v",
                why="A pair is labelled once, the smaller id first: else the same pair could be both yes and no.",
            ),
            unique(t, why="A pair that comes twice could say yes and no; its first row stays."),
            *within(t, "label_compat", "label_attend", why="A label is 0 or 1: the losses take nothing else."),
            less(
                "label_attend",
                "label_compat",
                or_equal=True,
                why="Who would come is asked of pairs that match; for the others the answer is 0 (seed, section 2.6).",
            ),
            known_since(bounds),
        ),
    )
