"""Spans, where OpenTelemetry is set up. The only module that imports it: FastAPI itself makes the span of a request."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from opentelemetry import trace

from recsys.stages import Stages

_TRACER: Final = trace.get_tracer("recsys")


class Trace:
    """Of the current request.

    Attributes:
        stages: hears its stages; each is a span where the request's own span is recorded.
    """

    def __init__(self) -> None:
        self._span = trace.get_current_span()
        self.stages = Stages(_around if self._span.is_recording() else None)

    def describe(self, said: Mapping[str, Any]) -> None:
        """Say in the request's span what its log line says; before the answer is out, with which the span ends."""
        if self._span.is_recording():
            self._span.set_attributes({f"recsys.{name}": value for name, value in said.items()})


def _around(name: str) -> AbstractContextManager[object]:
    return _TRACER.start_as_current_span(f"recsys.{name}")
