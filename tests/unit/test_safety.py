"""Blocks and hidden places: what a plain model says, from every process, whatever dies in between."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.atomic import locked
from recsys.errors import DataError, SafetyUnavailable
from recsys.safety import Safety
from tests.conftest import ROOT

NOW = datetime(2024, 3, 25, tzinfo=UTC)
FILE = "safety.jsonl"
person = st.integers(0, 4)
decisions = st.lists(
    st.one_of(
        st.tuples(st.just("block"), person, st.lists(person, min_size=1, max_size=3), st.booleans()),
        st.tuples(st.just("hide"), person, st.none(), st.booleans()),
    ),
    max_size=25,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "safety" / "w"


def said(safety: Safety) -> tuple[list[list[int]], list[set[int]], list[int]]:
    safety.refresh()
    everyone = range(6)
    return (
        [safety.blocks(u) for u in everyone],
        [set(safety.apart(u)) for u in everyone],
        safety.hidden().tolist(),
    )


@given(decisions)
def test_two_processes_and_a_third_that_comes_late_say_what_a_plain_model_says(
    tmp_path_factory: pytest.TempPathFactory, made: list
):
    folder = tmp_path_factory.mktemp("s") / "safety" / "w"
    one, two = Safety(folder), Safety(folder)
    pairs: list[tuple[int, int]] = []
    hidden: set[int] = set()
    for turn, (rule, who, others, on) in enumerate(made):
        writer = (one, two)[turn % 2]
        if rule == "hide":
            writer.hide(who, NOW, on=on)
            (hidden.add if on else hidden.discard)(who)
            continue
        writer.block(who, others, NOW, on=on)
        for other in others:
            if on and (who, other) not in pairs:
                pairs.append((who, other))
            elif not on and (who, other) in pairs:
                pairs.remove((who, other))
    expected = (
        [[b for a, b in pairs if a == u] for u in range(6)],
        [{b for a, b in pairs if a == u} | {a for a, b in pairs if b == u} for u in range(6)],
        sorted(hidden),
    )
    assert said(one) == said(two) == said(Safety(folder)) == expected


def test_nothing_is_made_before_the_first_decision_and_none_is_written_twice(folder: Path):
    safety = Safety(folder)
    assert said(safety) == ([[]] * 6, [set()] * 6, [])
    assert not folder.exists()
    for _ in range(2):
        safety.block(1, [2, 2, 3], NOW)
        safety.hide(4, NOW)
    safety.block(1, [5], NOW, on=False)
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    assert [(e["seq"], e["rule"], e["id"], e["other"], e["on"]) for e in lines] == [
        (1, "block", 1, 2, True), (2, "block", 1, 3, True), (3, "hide", 4, None, True),
    ]  # fmt: skip
    assert {e["at"] for e in lines} == {NOW.isoformat()}


def test_it_is_flushed_before_it_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size))
    Safety(folder).hide(1, NOW)
    assert sizes[-1] == (folder / FILE).stat().st_size


def test_what_a_killed_process_left_half_written_is_cut_off_by_the_next_writer(folder: Path):
    reader, writer = Safety(folder), Safety(folder)
    writer.hide(1, NOW)
    with (folder / FILE).open("ab") as file:
        file.write(b'{"seq": 2, "at": "2024-03-25", "rule": "hide", "id": 9')
    assert said(reader)[2] == said(Safety(folder))[2] == [1]
    Safety(folder).hide(2, NOW)
    assert said(reader)[2] == said(writer)[2] == said(Safety(folder))[2] == [1, 2]


@pytest.mark.parametrize(
    "spoilt",
    [b"{}\n", b"\n", b"\xff\n", b"[1]\n", b'{"seq": 7, "rule": "hide", "id": 9, "other": null, "on": true}\n'],
)
def test_damage_is_an_error_and_not_an_empty_list(folder: Path, spoilt: bytes):
    known = Safety(folder)
    known.hide(1, NOW)
    with (folder / FILE).open("ab") as file:
        file.write(spoilt)
    for ask in (lambda: Safety(folder), known.refresh, known.refresh, lambda: known.hide(3, NOW)):
        with pytest.raises(DataError, match=rf"{FILE} is damaged at byte \d+ \(got"):
            ask()


def test_what_is_known_stays_known_when_the_file_goes(folder: Path):
    safety = Safety(folder)
    safety.block(1, [2], NOW)
    (folder / FILE).unlink()
    assert said(safety)[0][1] == [2]
    (folder / FILE).write_bytes(b"")
    assert said(safety)[0][1] == [2]
    with pytest.raises(DataError, match="was cut off: put it back"):
        safety.hide(3, NOW)


@pytest.mark.parametrize("written", [0, 30, None])
def test_a_disk_that_refuses_is_an_error_and_asking_again_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
):
    """Nothing, half a line or the whole of it reached the file: whoever reads sees the same, and no damage."""
    safety, other = Safety(folder), Safety(folder)
    safety.hide(1, NOW)
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if written == 0 or len(data) < 60:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:written])

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "fsync", broken)
        with pytest.raises(SafetyUnavailable, match=r"No space left|Input/output"):
            safety.hide(2, NOW)
    expected = [1, 2] if written is None else [1]
    assert said(safety)[2] == said(other)[2] == said(Safety(folder))[2] == expected
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), sync(fd)))
    safety.hide(2, NOW)
    assert synced[-1] == (folder / FILE).stat().st_size, (
        "what was read before it was flushed is flushed before it is told"
    )
    other.hide(3, NOW)
    assert said(safety)[2] == said(other)[2] == said(Safety(folder))[2] == [1, 2, 3]


def test_a_lock_that_another_process_holds_is_waited_for_with_a_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch):
    safety = Safety(folder)
    monkeypatch.setattr("recsys.safety._LOCK_S", 0.02)
    with locked(folder / ".safety.lock", 1.0, SafetyUnavailable), pytest.raises(SafetyUnavailable, match="is held by"):
        safety.hide(2, NOW)
    safety.hide(2, NOW)
    assert said(Safety(folder))[2] == [2]


def test_threads_decide_and_read_at_once(folder: Path):
    safety = Safety(folder)

    def decide(place: int) -> bool:
        safety.hide(place, NOW)
        safety.refresh()
        return bool(safety.is_hidden(np.array([place]))[0])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(decide, range(60)))
    assert said(safety)[2] == said(Safety(folder))[2] == list(range(60))


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from recsys.safety import Safety
safety, number = Safety(Path(sys.argv[1])), int(sys.argv[2])
for i in range(number, 10**6, 2):
    safety.hide(i, datetime.now(UTC))
    print(i, flush=True)
"""


def test_whatever_was_told_survives_kill_9_of_two_writers(folder: Path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(i)], cwd=ROOT, stdout=subprocess.PIPE)
        for i in range(2)
    ]
    told: set[int] = set()
    for writer in writers:
        assert writer.stdout is not None
        told.update(int(writer.stdout.readline()) for _ in range(40))
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        assert writer.stdout is not None
        told.update(int(line) for line in writer.stdout.read().splitlines())
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
    found = set(said(Safety(folder))[2])
    assert told <= found
    assert len(found - told) <= 2, "decisions on disk that nobody was told of yet: one a writer"
