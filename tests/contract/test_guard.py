"""Before the endpoints: API keys, roles, rates, requests at work, origins. Off unless configured, one error shape."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from api.app import create_app
from api.guard import Bucket, Shed
from api.keys import Key, Keys, Operator, make
from api.middleware import RequestContext
from api.state import State
from recsys.errors import ConfigError
from recsys.recommend.fallback import HURRIED
from recsys.settings import Settings
from tests.conftest import ROOT
from tests.contract.test_api import assert_problem
from tests.parts import NOW, make_engine

SECRET, PLAIN = make("shop")
MASTER, OPERATES = make("night-shift", operator=True)
BOTH = f"{PLAIN.entry}, {OPERATES.entry}"
ASK = {"user_id": 4, "top_k": 3}
OPEN = (
    "/", "/health", "/ready", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", "/console",
    "/console/static/console.css",
)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(make_engine(tmp_path / "index"), lambda: NOW)


def configured(**settings: object) -> Settings:
    return Settings(_env_file=None, **settings)


def app_with(state: State, **settings: object) -> FastAPI:
    app = create_app(configured(**settings), ready=state)

    @app.post("/operate")
    async def operate(key: Operator) -> str:
        return key.name

    return app


@contextmanager
def client_of(state: State, **settings: object) -> Iterator[TestClient]:
    with TestClient(app_with(state, **settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(State(make_engine(tmp_path_factory.mktemp("index")), lambda: NOW), api_keys=BOTH) as client:
        yield client


def ask(client: TestClient, **headers: str) -> httpx.Response:
    return client.post("/recommend/places", json=ASK, headers=headers)


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


class TestKeys:
    def test_without_a_key_401_with_a_wrong_one_403_with_one_an_answer(self, keyed: TestClient):
        refused = ask(keyed)
        assert_problem(refused, 401)
        assert refused.headers["www-authenticate"] == 'Bearer realm="recsys"'
        for wrong in (SECRET[:-1], SECRET + "x", PLAIN.sha256, "shop", "\u00e9", "x" * 10_000):
            assert_problem(ask(keyed, **{"x-api-key": wrong.encode()}), 403)
        assert_problem(ask(keyed, authorization=bearer("wrong")), 403)
        for empty in ({"x-api-key": ""}, {"authorization": "Bearer "}, {"authorization": f"Basic {SECRET}"}):
            assert_problem(ask(keyed, **empty), 401)
        for secret in (SECRET, MASTER):
            assert ask(keyed, **{"x-api-key": secret}).status_code == 200
            assert ask(keyed, authorization=bearer(secret)).status_code == 200
            assert ask(keyed, authorization=f"bearer  {secret} ").status_code == 200

    def test_what_load_balancers_and_readers_ask_needs_none(self, keyed: TestClient):
        for path in OPEN:
            assert keyed.get(path).status_code == 200, path

    @pytest.mark.parametrize("path", ["/taxonomy", "/nowhere", "/metrics", "/health/", "/docsx", "/a/health"])
    def test_everything_else_does_also_what_is_not_there(self, keyed: TestClient, path: str):
        assert_problem(keyed.get(path), 401)

    def test_a_body_is_not_read_for_somebody_without_a_key(self, keyed: TestClient):
        heard = []

        async def receive() -> Message:
            raise AssertionError("it was read")

        async def send(message: Message) -> None:
            heard.append(message)

        scope = {"type": "http", "path": "/events", "method": "POST", "headers": [(b"content-length", b"9")]}
        asyncio.run(keyed.app(scope, receive, send))
        assert heard[0]["status"] == 401

    def test_the_log_names_the_key_and_holds_no_secret(self, keyed: TestClient, capsys: pytest.CaptureFixture[str]):
        ask(keyed, **{"x-api-key": SECRET})
        ask(keyed, authorization=bearer(MASTER))
        ask(keyed, **{"x-api-key": SECRET + "wrong"})
        keyed.get("/health")
        out = capsys.readouterr().out
        lines = [json.loads(line) for line in out.splitlines()]
        assert [(line["status"], line.get("key")) for line in lines if line["event"] == "request"] == [
            (200, "shop"), (200, "night-shift"), (403, None), (200, None),
        ]  # fmt: skip
        assert SECRET not in out
        assert MASTER not in out
        assert PLAIN.sha256 not in out

    def test_operating_takes_the_role(self, keyed: TestClient):
        assert_problem(keyed.post("/operate"), 401)
        refused = assert_problem(keyed.post("/operate", headers={"x-api-key": SECRET}), 403)
        assert refused["detail"] == "this needs an API key with the role operator"
        assert keyed.post("/operate", headers={"x-api-key": MASTER}).json() == "night-shift"

    def test_without_keys_everybody_may_ask_and_nobody_operate(self, state: State):
        with client_of(state) as free:
            assert ask(free).status_code == 200
            for headers in ({}, {"x-api-key": MASTER}):
                said = assert_problem(free.post("/operate", headers=headers), 403)["detail"]
                assert "set RECSYS_API_KEYS" in said

    def test_openapi_says_how(self, state: State):
        ways = [{"ApiKey": []}, {"Bearer": []}]
        for settings, general in (({"api_keys": BOTH}, ways), ({}, [{}, *ways])):
            schema = app_with(state, **settings).openapi()
            schemes = schema["components"]["securitySchemes"]
            assert schemes["ApiKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            assert schemes["Bearer"] == {"type": "http", "scheme": "bearer"}
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    expected = None if path in OPEN else ways if path == "/operate" else general
                    assert operation.get("security") == expected, path
                    if path not in (*OPEN, "/operate"):  # whose answers are those of the test
                        assert {"401", "403", "429", "503"} <= set(operation["responses"])

    def test_a_file_of_keys(self, state: State, tmp_path: Path):
        path = tmp_path / "keys"
        path.write_text(f"# who\n\n{PLAIN.entry}\n  {OPERATES.entry}  \n")
        with client_of(state, api_keys_file=path) as client:
            assert_problem(ask(client), 401)
            assert ask(client, **{"x-api-key": SECRET}).status_code == 200
            assert client.post("/operate", headers={"x-api-key": MASTER}).status_code == 200
        third, key = make("third")
        keys = Keys.of(configured(api_keys=key.entry, api_keys_file=path))
        assert keys is not None
        assert {keys.find(s.encode()).name for s in (SECRET, MASTER, third)} == {"shop", "night-shift", "third"}

    @pytest.mark.parametrize(
        "entries",
        [
            "shop", SECRET, f"shop:{SECRET}", f"{PLAIN.entry}:", f"{PLAIN.entry}:admin", f"{PLAIN.entry}:operator:",
            f":{PLAIN.sha256}", f"a b:{PLAIN.sha256}", f"shop:{PLAIN.sha256.upper()}", f"{BOTH},x",
        ],
    )  # fmt: skip
    def test_what_is_no_entry_is_refused_at_start_and_not_repeated(self, entries: str):
        with pytest.raises(ConfigError, match=r"RECSYS_API_KEYS: entry [13] must be NAME:SHA256") as refused:
            create_app(configured(api_keys=entries))
        assert SECRET not in str(refused.value)
        assert PLAIN.sha256 not in str(refused.value)

    def test_two_of_a_name_or_of_a_secret_and_a_file_without_any_are_refused(self, tmp_path: Path):
        other = Key("shop", OPERATES.sha256)
        twin = Key("shop-2", PLAIN.sha256, operator=True)
        for second, what in ((other, "name"), (twin, "sha256")):
            with pytest.raises(ConfigError, match=f"two API keys have the same {what}"):
                Keys.of(configured(api_keys=f"{PLAIN.entry},{second.entry}"))
        empty = tmp_path / "empty"
        empty.write_text("# nobody yet\n")
        with pytest.raises(ConfigError, match="RECSYS_API_KEYS_FILE has no key"):
            Keys.of(configured(api_keys_file=empty))
        with pytest.raises(ConfigError, match="RECSYS_API_KEYS_FILE cannot be read"):
            Keys.of(configured(api_keys_file=tmp_path / "none"))
        assert Keys.of(configured(api_keys=" , ")) is None

    def test_the_command_makes_one_that_works(self, state: State, tmp_path: Path):
        command = [sys.executable, "-m", "jobs", "key", "cli-made", "--operator"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        said = dict(line.split() for line in done.stdout.splitlines())
        assert set(said) == {"secret", "entry"}
        assert said["secret"] not in done.stderr
        with client_of(state, api_keys=said["entry"]) as client:
            assert client.post("/operate", headers={"x-api-key": said["secret"]}).json() == "cli-made"
        assert make("a")[0] != make("a")[0]
        for name in ("", "a b", "a:b", "x" * 65):
            with pytest.raises(ConfigError, match="a key's name must be"):
                make(name)


class TestRates:
    def test_a_key_over_its_rate_gets_429_and_the_others_do_not(self, state: State):
        with client_of(state, api_keys=BOTH, rate_limit=0.01, rate_burst=3) as client:
            assert [ask(client, **{"x-api-key": SECRET}).status_code for _ in range(3)] == [200] * 3
            refused = ask(client, **{"x-api-key": SECRET})
            assert assert_problem(refused, 429)["detail"] == (
                "this key may ask 0.01 times a second, and 3 times at once"
            )
            assert 90 <= int(refused.headers["retry-after"]) <= 100
            assert ask(client, **{"x-api-key": MASTER}).status_code == 200
            for _ in range(10):
                assert client.get("/health").status_code == 200
                assert_problem(ask(client), 401)

    def test_a_rate_without_keys_is_refused_at_start(self):
        with pytest.raises(ConfigError, match="RECSYS_RATE_LIMIT counts by API key: set RECSYS_API_KEYS"):
            create_app(configured(rate_limit=5))

    def test_the_bucket_by_hand(self):
        bucket = Bucket(rate=10, burst=3)
        assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 0]
        assert bucket.take(100.0) == pytest.approx(0.1)
        assert bucket.take(100.05) == pytest.approx(0.05)  # being refused costs nothing
        assert bucket.take(100.1) == 0
        assert bucket.take(100.1) == pytest.approx(0.1)
        assert [bucket.take(1_000.0) for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]  # never more than a burst
        steady = Bucket(rate=3, burst=1)
        assert [steady.take(n / 3) for n in range(300)] == [0] * 300


class TestAtWork:
    def test_what_is_too_much_gets_503_at_once_and_the_rest_its_answer(self, state: State):
        """The endpoint is held open by the test: how many are at work is exact."""

        async def scenario() -> None:
            app = app_with(state, max_in_flight=2)
            arrived, go = asyncio.Semaphore(0), asyncio.Event()

            @app.get("/held")
            async def held() -> str:
                arrived.release()
                await go.wait()
                return "done"

            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://app") as client,
            ):
                first = [asyncio.create_task(client.get("/held")) for _ in range(2)]
                for _ in first:
                    await arrived.acquire()
                event = {"id": "e", "user_id": 1, "place_id": 1, "kind": "view"}
                for refused in (
                    await client.get("/held"),
                    await client.post("/recommend/places", json=ASK),
                    await client.post("/events", json={"events": [event]}),
                ):
                    assert assert_problem(refused, 503)["detail"] == "too many requests at once"
                    assert refused.headers["retry-after"] == "1"
                for path in ("/health", "/ready", "/", "/openapi.json"):
                    assert (await client.get(path)).status_code == 200
                go.set()
                assert [(await task).json() for task in first] == ["done"] * 2
                assert (await client.post("/recommend/places", json=ASK)).status_code == 200
                for _ in range(5):  # an answer that fails gives its place back
                    assert (await client.post("/recommend/places", json={"user_id": 10**6})).status_code == 404
                assert (await client.get("/held")).json() == "done"

        asyncio.run(scenario())

    def test_the_last_third_is_answered_in_a_hurry_and_says_so(self, state: State):
        async def scenario() -> None:
            app = app_with(state, max_in_flight=3)
            arrived, go = asyncio.Semaphore(0), asyncio.Event()

            @app.get("/held")
            async def held() -> bool:
                arrived.release()
                await go.wait()
                return HURRIED.get()

            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://app") as client,
            ):
                tasks = []
                for without in ([], [], ["load"]):
                    said = (await client.post("/recommend/places", json=ASK)).json()["degraded"]
                    assert [what for what in said if what == "load"] == without
                    tasks.append(asyncio.create_task(client.get("/held")))
                    await arrived.acquire()
                assert_problem(await client.post("/recommend/places", json=ASK), 503)
                go.set()
                assert [(await task).json() for task in tasks] == [False, False, True]
                said = (await client.post("/recommend/places", json=ASK)).json()["degraded"]
                assert "load" in said, "one was refused just now"
                async with asyncio.timeout(5):
                    while (await client.post("/recommend/places", json=ASK)).json()["degraded"]:
                        await asyncio.sleep(0.01)

        asyncio.run(scenario())

    def test_a_request_that_breaks_off_gives_its_place_back(self):
        async def scenario() -> None:
            started = asyncio.Event()

            async def app(scope, receive, send) -> None:
                started.set()
                await asyncio.Event().wait()

            shed = Shed(app, 1)

            async def refuse(_) -> None:
                raise AssertionError("it was answered")

            scope = {"type": "http", "path": "/recommend/places", "method": "POST", "headers": []}
            scope["app"] = create_app(Settings(_env_file=None))  # which counts what was asked
            for _ in range(3):
                started.clear()
                task = asyncio.create_task(RequestContext(shed)(scope, refuse, refuse))
                await started.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(scenario())


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


class TestOrigins:
    def test_off_unless_configured(self, keyed: TestClient):
        assert_problem(keyed.options("/recommend/places", headers={"origin": "https://a.example"} | PREFLIGHT), 401)
        answer = ask(keyed, **{"x-api-key": SECRET, "origin": "https://a.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_pages_of_the_origins_may_ask_and_read_refusals(self, state: State):
        with client_of(state, api_keys=BOTH, cors_origins="https://a.example, http://localhost:3000") as client:
            for origin in ("https://a.example", "http://localhost:3000"):
                before = client.options("/recommend/places", headers={"origin": origin} | PREFLIGHT)
                assert before.status_code == 200
                assert before.headers["access-control-allow-origin"] == origin
                for answer in (ask(client, origin=origin), ask(client, **{"x-api-key": SECRET, "origin": origin})):
                    assert answer.headers["access-control-allow-origin"] == origin
                    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
                    assert "access-control-allow-credentials" not in answer.headers
            for origin in ("https://b.example", "https://a.example.evil", "null"):
                refused = client.options("/recommend/places", headers={"origin": origin} | PREFLIGHT)
                assert "origin" in assert_problem(refused, 400)["detail"]
                assert "access-control-allow-origin" not in refused.headers
                assert (
                    "access-control-allow-origin" not in ask(client, **{"x-api-key": SECRET, "origin": origin}).headers
                )

    def test_a_fault_is_read_by_the_page_too(self, state: State, monkeypatch: pytest.MonkeyPatch):
        def explode(*_: object) -> None:
            raise ZeroDivisionError

        assert state.engine is not None
        monkeypatch.setattr(state.engine.features, "rank_places", explode)
        with client_of(state, cors_origins="*") as client:
            answer = ask(client, origin="https://a.example")
        assert_problem(answer, 500)
        assert answer.headers["access-control-allow-origin"] == "*"

    @pytest.mark.parametrize(
        "origins", ["a.example", "https://a.example/", "ftp://a.example", "https://", "https://a/b"]
    )
    def test_what_is_no_origin_is_refused_at_start(self, origins: str):
        with pytest.raises(ConfigError, match="RECSYS_CORS_ORIGINS must be origins"):
            create_app(configured(cors_origins=f"https://ok.example,{origins}"))
