"""Traces of a request where OpenTelemetry is set up: in a process of its own, since a provider is set once."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CALLER = "0af7651916cd43dd8448eb211c80319c"
SCRIPT = f"""
import asyncio, json, sys
from pathlib import Path

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.app import create_app
from api.state import State
from recsys.settings import Settings
from tests.parts import NOW, make_engine

async def main(engine):
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    app = create_app(Settings(), ready=State(engine, lambda: NOW))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        headers = {{"traceparent": "00-{CALLER}-b7ad6b7169203331-01"}}
        answer = await client.post("/recommend/places", json={{"user_id": 4}}, headers=headers)
        assert answer.status_code == 200
        engine.features.down = True
        await client.post("/recommend/places", json={{"user_id": 4}})
    spans = [json.loads(span.to_json()) for span in kept.get_finished_spans()]
    Path(sys.argv[1], "spans.json").write_text(json.dumps(spans))

asyncio.run(main(make_engine(Path(sys.argv[1]) / "index")))
"""


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(tmp_path: Path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, env=environment, check=True, timeout=120)
    spans = json.loads((tmp_path / "spans.json").read_text())
    mine = [span for span in spans if span["context"]["trace_id"] == f"0x{CALLER}"]
    (request,) = [span for span in mine if span["kind"] == "SpanKind.SERVER"]
    assert request["name"] == "POST /recommend/places"
    assert request["parent_id"] == "0xb7ad6b7169203331"
    said = request["attributes"]
    assert (said["http.route"], said["http.response.status_code"]) == ("/recommend/places", 200)
    assert said["recsys.model_version"] == "test-1"
    assert "recsys.degraded" not in said
    by_id = {span["context"]["span_id"]: span for span in mine}
    stages = [span for span in mine if span["name"].startswith("recsys.")]
    assert {span["name"].removeprefix("recsys.") for span in stages} == {
        "user", "retrieve", "features", "score", "policy", "profiles", "explain",
    }  # fmt: skip
    for span in stages:
        assert request["start_time"] <= span["start_time"] <= span["end_time"] <= request["end_time"]
        above = span
        while above is not request:  # also those of threads
            above = by_id[above["parent_id"]]
            assert not above["name"].startswith("recsys."), "a stage holds no stage"
    (second,) = [span for span in spans if span["kind"] == "SpanKind.SERVER" and span is not request]
    assert second["attributes"]["recsys.degraded"], "what it had to do without"
