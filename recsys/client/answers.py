"""What the API answers, as it says in `docs/openapi.json`; what a newer server adds is left aside."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Strategy = Literal["least_misery", "average"]
Outcome = Literal["recommended", "ranked_below", "not_retrieved", "dropped"]


class Answer(BaseModel):
    """What all have in common: read only."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Named(Answer):
    """What the team's own data call it; both None in data without ids of their own."""

    source: str | None = None
    source_id: str | None = None


class User(Named):
    """A user by both ids."""

    user_id: int


class Place(Named):
    """A place by both ids."""

    place_id: int


class PlaceRecommendation(Place):
    """One place, and why.

    Attributes:
        score: 0 to 1; the order.
        sources: what named it as a candidate.
        score_parts: with `explain="parts"`: log-odds that the score would lose without each kind of input.
    """

    score: float
    explanations: list[str]
    name: str
    neighborhood_name: str
    sources: list[str]
    score_parts: dict[str, float] | None = None


class Page(Answer):
    """A page of a list.

    Attributes:
        features_age_s: how old the oldest of the candidates' features is, seconds.
        next_cursor: with which the list goes on; None where it ends.
        degraded: what the answer had to do without; empty: nothing.
        model_version: the version that it is from.
        request_id: finds it in the server's log.
    """

    city_id: int
    city_name: str
    features_age_s: float
    next_cursor: str | None
    degraded: list[str]
    model_version: str
    request_id: str


class Places(Page):
    """Places for one user.

    Attributes:
        user: None for somebody without an id, or whose id nobody knows.
    """

    user: User | None
    recommendations: list[PlaceRecommendation]


class PersonRecommendation(User):
    """One person, and why.

    Attributes:
        compat_score: probability that the two match.
        attend_prob: probability that they would come.
        combined_score: 0.7 of the one and 0.3 of the other; the order.
        sources: what named them as a candidate.
    """

    compat_score: float
    attend_prob: float
    combined_score: float
    explanations: list[str]
    name: str
    sources: list[str]


class People(Page):
    """People for one user to go with."""

    user: User
    recommendations: list[PersonRecommendation]


class GroupMember(User):
    """What a place is to one of them."""

    score: float
    explanations: list[str]


class GroupRecommendation(Place):
    """One place, and what it is to each.

    Attributes:
        score: that of the strategy; the order.
        least_misery: the lowest of the members' scores.
        average: their mean.
    """

    score: float
    least_misery: float
    average: float
    members: list[GroupMember]
    name: str
    neighborhood_name: str


class Groups(Page):
    """Places for several users at once."""

    users: list[User]
    strategy: Strategy
    recommendations: list[GroupRecommendation]


class Standing(Answer):
    """Where it stood in one source: rank from 1 among `of`; None: not named, or not told."""

    source: str
    rank: int | None
    of: int


class Broken(Answer):
    """A rule that it breaks."""

    rule: str
    said: str


class Explanation(Answer):
    """What became of one place or person in a list.

    Attributes:
        rank: from 1 among the candidates; None: it was none.
        score_parts: log-odds that the score would lose if a kind of input were what is usual among the candidates.
        words: the same in sentences.
    """

    user: User
    outcome: Outcome
    broken: list[Broken]
    retrieval: list[Standing]
    rank: int | None
    candidates: int
    score: float | None
    score_parts: dict[str, float]
    words: list[str]
    city_id: int
    city_name: str
    model_version: str
    request_id: str


class EventRejected(Answer):
    """One event that was not taken, by its position in the request."""

    index: int
    id: str
    reason: str


class EventsTaken(Answer):
    """What became of events; what is accepted is on the server's disk.

    Attributes:
        duplicates: taken before, under the same id.
        online: the next answer counts them; False: they count as soon as the online store can.
    """

    accepted: int
    duplicates: int
    rejected: list[EventRejected]
    online: bool
    model_version: str
    request_id: str


class Blocks(Answer):
    """Whom somebody blocked, in the order of blocking."""

    user: User
    blocks: list[User]
    request_id: str


class Hidden(Answer):
    """Whether a place is hidden from everybody."""

    place: Place
    hidden: bool
    request_id: str


class Taxonomy(Answer):
    """What positions mean in the live version: names in order; of each tag, the position of its category."""

    categories: list[str]
    tags: list[str]
    tag_category: list[int]
    vibes: list[str]
    model_version: str


class Root(Answer):
    """What the server is; `model_version` is None while nothing is published."""

    name: str
    version: str
    model_version: str | None
    links: dict[str, str]


class Health(Answer):
    """The process answers."""

    status: Literal["alive"]


class Ready(Answer):
    """Requests may come; degraded: answers do without a part."""

    status: Literal["ready", "degraded"]
    model_version: str
    parts: dict[str, str]


class FieldError(Answer):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(Answer):
    """An error, as RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] = []
