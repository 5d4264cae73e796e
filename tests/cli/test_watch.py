"""`meshd status --watch`: the picture again on a terminal, only what changed elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
import yaml

from meshd.cli.client import Client
from meshd.errors import DaemonUnreachable
from tests.cli.conftest import Meshd, Ran
from tests.cli.fake_daemon import FORMED, WAITING, FakeDaemon, Json

LATER: Json = {
    **FORMED,
    "node": {**FORMED["node"], "uptime_s": 312.2},
    "nodes": [{**node, "rtt_ms": 77.0} for node in FORMED["nodes"]],
    "at_ms": FORMED["at_ms"] + 1000,
}
"""A second later: nothing but figures that never rest are different."""

LOST: Json = {
    **FORMED,
    "vip": {"address": "10.0.0.50", "holder": "n2"},
    "nodes": [{**FORMED["nodes"][0], "state": "failed", "path": None}, *FORMED["nodes"][1:]],
    "health": [{"code": "MESH-3305", "severity": "warning", "message": "n2 is off", "fix": "on"}],
    "at_ms": FORMED["at_ms"] + 2000,
}


Watch = Callable[..., Ran]


@pytest.fixture
def watch(meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watch through these answers, then press Ctrl-C."""
    connect = FakeDaemon.answer

    def run(answers: Iterable[Json], *options: str) -> Ran:
        pending = list(answers)

        def answer(self: FakeDaemon, path: str) -> object:
            if path == "/v1/status":
                self.status = pending[0]
            return connect(self, path)

        def pause(_: float) -> None:
            pending.pop(0)
            if not pending:
                raise KeyboardInterrupt

        monkeypatch.setattr(FakeDaemon, "answer", answer)
        monkeypatch.setattr("meshd.cli.watch.time.sleep", pause)
        return meshd("status", "--watch", *options)

    return run


def test_elsewhere_the_picture_comes_once_and_then_what_changed_with_the_time(
    watch: Watch, meshd: Meshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    picture = meshd("status").out.splitlines()
    ran = watch([FORMED, LATER, LOST, FORMED])
    assert ran.code == 130
    lines = ran.out.splitlines()
    assert lines[: len(picture)] == picture
    changed = [line.split("  ", 1)[1] for line in lines[len(picture) :]]
    assert changed == [
        "vip held by: n1 -> n2",
        "n2 state: alive -> failed",
        "n2 path: direct -> -",
        "warning[MESH-3305] n2 is off: - -> so",
        "vip held by: n2 -> n1",
        "n2 state: failed -> alive",
        "n2 path: - -> direct",
        "warning[MESH-3305] n2 is off: so -> -",
    ]


def test_json_is_one_line_for_each_change(watch: Watch) -> None:
    lines = watch([WAITING, WAITING, FORMED, LATER], "-o", "json").out.splitlines()
    assert [json.loads(line) for line in lines] == [WAITING, FORMED]


def test_yaml_is_one_document_for_each_change(watch: Watch) -> None:
    documents = list(yaml.safe_load_all(watch([WAITING, WAITING, FORMED], "-o", "yaml").out))
    assert documents == [WAITING, FORMED]


def test_with_the_ledger_new_entries_are_changes(watch: Watch) -> None:
    ran = watch([FORMED, LATER], "--ledger")
    assert "genesis/1/claim" in ran.out
    assert " -> " not in ran.out


def test_a_terminal_gets_the_whole_picture_drawn_over_the_last(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    out = watch([FORMED, LATER]).out
    assert out.count("\x1b[2J") == 1  # Cleared once, then drawn over: no flicker.
    assert out.count("\x1b[H") == 2
    assert "up 5m11s\x1b[K\n" in out
    assert "up 5m12s\x1b[K\n" in out
    assert out.endswith("\x1b[J")


def test_without_a_daemon_at_the_beginning_it_is_exit_3(meshd: Meshd) -> None:
    ran = meshd("status", "--watch")
    assert (ran.code, ran.out) == (3, "")


def test_a_daemon_that_restarts_is_waited_for(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, calls = Client.get, iter(range(10))

    def sometimes(self: Client, path: str, **query: str | None) -> Json:
        if next(calls) in {1, 2}:
            raise DaemonUnreachable("MESH-7011", "no daemon answers", fix="start it")
        return get(self, path, **query)

    monkeypatch.setattr(Client, "get", sometimes)
    ran = watch([WAITING, WAITING, WAITING, FORMED])
    assert ran.code == 130
    assert ran.err.splitlines() == ["waiting: no daemon answers", ""]  # Ctrl-C ends the line.
    assert "genesis: discovering -> formed" in ran.out
