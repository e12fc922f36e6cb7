"""The embedded server, for real: started, found, left alone, stopped, killed."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import redis

from recsys.errors import ServiceError
from recsys.services import COMPACT, running, start, stop
from tests.conftest import free_port


@pytest.fixture
def url():
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def folder(tmp_path: Path, url: str):
    yield tmp_path / "redis"
    stop(url, tmp_path / "redis")


def test_start_is_idempotent_and_stop_keeps_the_data(url: str, folder: Path):
    first = start(url, folder)
    assert first.started
    again = start(url, folder)
    assert (again.pid, again.started) == (first.pid, False)
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    assert stop(url, folder)
    assert running(url, folder) is None
    assert not stop(url, folder), "there is nothing to stop any more"
    assert start(url, folder).started
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_what_was_answered_survives_kill_9(url: str, folder: Path):
    server = start(url, folder)
    with redis.Redis.from_url(url) as client:
        for i in range(2_000):
            client.set(f"k{i}", i)
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    os.waitpid(server.pid, 0)
    assert running(url, folder) is None
    assert start(url, folder).started
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 2_000


def test_a_strangers_server_is_refused_unless_it_was_named(url: str, folder: Path, tmp_path: Path):
    stranger = start(url, folder)
    other = tmp_path / "other"
    with pytest.raises(ServiceError, match=f"got process {stranger.pid}"):
        start(url, other)
    used = start(url, other, named=True)
    assert (used.pid, used.started) == (stranger.pid, False)
    assert not stop(url, other), "what we did not start is not ours to stop"
    assert running(url, folder) is not None


def test_a_port_that_speaks_something_else_is_an_error_with_its_reason(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        closer = threading.Thread(target=_hang_up, args=(listener,), daemon=True)
        closer.start()
        with pytest.raises(ServiceError, match="ended at once"):
            start(f"redis://127.0.0.1:{port}/0", folder)


def _hang_up(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()


def test_an_address_elsewhere_is_only_asked(folder: Path):
    with pytest.raises(ServiceError, match="no Redis server answers at"):
        start(f"redis://localhost.invalid:{free_port()}/0", folder)
    assert not folder.exists()


def test_a_large_file_may_take_its_time_to_be_read(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    start(url, folder)
    with redis.Redis.from_url(url) as client:
        client.eval("for i = 1, 25000 do redis.call('set', i, 'x') end return 1", 0)
    stop(url, folder)
    # the server's own switch: as slow as with a large file
    slow = ("--key-load-delay", "100")
    monkeypatch.setattr("recsys.services.COMPACT", (*COMPACT, *slow))
    monkeypatch.setattr("recsys.services._START_S", 1.5)
    began = time.monotonic()
    assert start(url, folder).started
    assert time.monotonic() - began > 2.0
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 25_000
