"""What this process has done, for Prometheus: `GET /metrics`. The only module that uses prometheus_client.

What the parts count themselves (degradations, breakers, the cache, events, impressions) is read from them when it is
asked for; only requests, stages and answers are observed here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from api.fleet import Fleet
from api.state import State
from recsys.impressions import Kind
from recsys.recommend.engine import Engine
from recsys.recommend.fallback import DEGRADATIONS
from recsys.recommend.newcomer import WITHOUT

_REQUEST_S: Final = (
    .001, .002, .003, .004, .005, .006, .008, .01, .0125, .015, .02, .025, .03, .04, .05, .075, .1, .15, .25, .5, 1,
    2.5,
)  # fmt: skip
_STAGE_S: Final = (.0001, .0002, .0005, .001, .002, .003, .004, .006, .01, .015, .02, .03, .05, .1, .25, 1)  # fmt: skip
_AGE_S: Final = (.01, .1, .25, .5, .75, 1, 2, 5, 15, 60, 300, 3_600)  # fmt: skip
_SCORE: Final = (.01, .02, .05, .1, .2, .3, .4, .5, .6, .7, .8, .9, .95, .98)  # fmt: skip
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_STATES: Final = ("closed", "open", "half_open")

router = APIRouter()


class Metrics:
    """Of one app.

    Args:
        fleet: what answers; asked when metrics are.
        shadows_dropped: requests that a version in the shadow did not compute.
        worker: which of several processes that answer on one port this is; every series says so. None: the only one.
    """

    def __init__(
        self, fleet: Callable[[], Fleet], shadows_dropped: Callable[[], int], *, worker: int | None = None
    ) -> None:
        self._registry, self.worker = CollectorRegistry(), worker
        self._requests = self._histogram(
            "request_seconds", "Requests, and how long each took", _REQUEST_S, "method", "route", "status"
        )
        self._stages = self._histogram(
            "stage_seconds", "What answering requests spent in each stage", _STAGE_S, "route", "stage"
        )
        self._ages = self._histogram(
            "features_age_seconds", "How old the oldest features were that an answer was ranked with", _AGE_S
        )
        self._scores = self._histogram("score", "Scores of what was answered", _SCORE, "kind", "model_version")
        self._registry.register(_Counted(fleet, shadows_dropped))
        ProcessCollector(registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, about, labels, namespace="recsys", buckets=buckets, registry=self._registry)

    def requested(self, method: str, route: str, status: int, seconds: float, stages: Mapping[str, float]) -> None:
        """Note a request that was answered.

        Args:
            route: its template, not its path: a path of each user would be a series of each user.
            status: 0 where whoever asked had gone.
            seconds: how long it took. stages: of that, by stage.
        """
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)
        for name, spent in stages.items():
            self._stages.labels(route, name).observe(spent)

    def answered(self, kind: Kind, version: str, scores: Sequence[float], features_age_s: float) -> None:
        """Note an answer: the scores of its items, and the age of its features."""
        of = self._scores.labels(kind, version)
        for score in scores:
            of.observe(score)
        self._ages.observe(features_age_s)

    def collect(self) -> Iterator[Metric]:
        """Everything, each series with its worker where there are several, and without the moment that it began."""
        said = {} if self.worker is None else {"worker": str(self.worker)}
        for metric in self._registry.collect():
            samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            metric.samples = [sample._replace(labels={**sample.labels, **said}) for sample in samples]
            yield metric


class _Counted(Collector):
    """What the parts of the app count, as they count it at this moment."""

    def __init__(self, fleet: Callable[[], Fleet], shadows_dropped: Callable[[], int]) -> None:
        self._fleet, self._shadows_dropped = fleet, shadows_dropped

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not ask for the parts: they are not there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the parts."""
        fleet = self._fleet()
        state = fleet.current
        ready = GaugeMetricFamily("recsys_ready", "Whether a version is loaded")
        ready.add_metric([], state.engine is not None)
        troubles = GaugeMetricFamily("recsys_troubles", "Versions that should serve and cannot be loaded; see /ready")
        troubles.add_metric([], len(state.troubles))
        yield from (ready, troubles, _versions(fleet))
        yield from _engines(state)
        yield from _events(state)
        written = CounterMetricFamily("recsys_impression_rows_written", "Items shown that are on disk")
        dropped = CounterMetricFamily(
            "recsys_impression_answers_dropped", "Answers of which it was not kept what they showed"
        )
        if state.impressions is not None:
            written.add_metric([], state.impressions.written)
            dropped.add_metric([], state.impressions.dropped)
        shadows = CounterMetricFamily("recsys_shadow_requests_dropped", "Requests that the shadow did not compute")
        shadows.add_metric([], self._shadows_dropped())
        yield from (written, dropped, shadows)


def _versions(fleet: Fleet) -> Metric:
    """Which versions are in memory, and what each is there for."""
    state = fleet.current
    out = GaugeMetricFamily("recsys_model_version", "Versions in memory", labels=("model_version", "role"))
    split = state.split.engine if state.split is not None else None
    roles = {"live": state.engine, "split": split, "shadow": state.shadow}
    for role, engine in roles.items():
        if engine is not None:
            out.add_metric([engine.version, role], 1)
    for version in fleet.loaded:
        if all(version.engine is not engine for engine in roles.values()):
            out.add_metric([version.name, "kept"], 1)
    return out


def _engines(state: State) -> Iterator[Metric]:
    engines: list[Engine] = [] if state.engine is None else [state.engine]
    engines += [version.engine for version in state.versions if version.engine is not state.engine]
    guards = list({id(engine.guards): engine.guards for engine in engines}.values())
    degraded = CounterMetricFamily(
        "recsys_degraded_answers", "Answers by what they had to do without", labels=("what",)
    )
    for what in (*DEGRADATIONS, WITHOUT):
        degraded.add_metric([what], sum(guard.degradations[what] for guard in guards))
    breakers = GaugeMetricFamily(
        "recsys_breaker", "1: the state of the circuit breaker before a part", labels=("part", "state")
    )
    for part in ("online_store", "index"):
        now = {guard.online.status if part == "online_store" else guard.index.status for guard in guards}
        for status in _STATES:
            breakers.add_metric([part, status], status in now)
    read = CounterMetricFamily(
        "recsys_candidate_features", "Features of candidates: at hand, or read", labels=("model_version", "source")
    )
    for engine in engines:
        for source, count in zip(("cache", "store"), engine.features.cached(), strict=True):
            read.add_metric([engine.version, source], count)
    yield from (degraded, breakers, read)


def _events(state: State) -> Iterator[Metric]:
    taken = CounterMetricFamily("recsys_events_taken", "Events that this process wrote to the log")
    again = CounterMetricFamily("recsys_events_duplicate", "Events whose ids were in the log already")
    behind = GaugeMetricFamily(
        "recsys_events_waiting", "Events that wait for the log, or in it for the online store", labels=("for",)
    )
    if (events := state.events) is not None:
        taken.add_metric([], events.taken)
        again.add_metric([], events.duplicates)
        behind.add_metric(["log"], events.waiting)
        if events.folded is not None:
            behind.add_metric(["online_store"], max(0, events.last - events.folded))
    yield from (taken, again, behind)


@router.get("/metrics", include_in_schema=False)  # the contract is docs/openapi.json; this format is Prometheus' own
async def metrics(request: Request) -> Response:
    """What this process has done, in Prometheus' text format (OpenMetrics where it is asked for)."""
    said: Metrics = request.app.state.metrics
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # A connection stays with one of several workers: the next time may be another's turn.
    headers = {} if said.worker is None else {"connection": "close"}
    return Response(encode(said), headers=headers, media_type=content_type)
