"""`meshd status`: what it shows, and what its exit code says."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from meshd.status import Status
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, WAITING, FakeDaemon, Json, running

FORMED_TABLE = """\
network  oak-7f3a9c12   up to 5 machines vote, 3 must agree   bounded
node     n1   control-plane (initialiser)   up 5m11s
phase    steady   genesis formed, generation 1
cluster  https://10.0.0.50:6443   control plane 3/3 ready, 4 nodes ready   k3s version \
v1.34.1+standin (stand-in, not k3s)
vip      10.0.0.50 held by n1
ledger   41 entries   root 9c41aabbccdd

NODE    ROLE           STATE    PATH      RTT     IP         K3S
cell-1  worker         suspect  relay n1  61.0ms  10.9.0.4   starting
n1 *    control-plane  alive    self      -       10.0.0.11  ready
n2      control-plane  alive    direct    0.9ms   10.0.0.12  ready
"""

WAITING_TABLE = """\
network  oak-7f3a9c12   up to 5 machines vote, 3 must agree   bounded
node     n1   role undecided   up 5m11s
phase    discovering   genesis discovering, generation 1
waiting  2 of 3 voters seen (n1, n2): one more machine must be reachable
cluster  no endpoint yet   control plane 0/3 ready
vip      none configured
ledger   41 entries   root 9c41aabbccdd

NODE  ROLE  STATE  PATH  RTT  IP         K3S
n1 *  -     alive  self  -    10.0.0.11  absent

# warning[MESH-3102]: no seed answers
#   fix: check p2p.meshd.seeds
"""


@pytest.mark.parametrize("recorded", [FORMED, WAITING])
def test_the_recorded_answers_are_what_the_daemon_sends(recorded: Json) -> None:
    decoded = msgspec.convert(recorded, Status)
    assert json.loads(msgspec.json.encode(decoded)) == recorded


def test_a_formed_cluster_at_a_glance(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("status")
    assert ran.out == FORMED_TABLE
    assert (ran.code, ran.err) == (0, "")


def test_waiting_names_what_it_waits_for_and_is_not_healthy(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    daemon.status = WAITING
    ran = meshd("status")
    assert ran.out == WAITING_TABLE
    assert ran.code == 1


@pytest.mark.parametrize(("severity", "code"), [("warning", 0), ("error", 1)])
def test_only_an_error_makes_a_formed_cluster_unhealthy(
    meshd: Meshd, daemon: FakeDaemon, severity: str, code: int
) -> None:
    item = {"code": "MESH-4001", "severity": severity, "message": "two clusters", "fix": "choose"}
    daemon.status = {**FORMED, "health": [item]}
    ran = meshd("status")
    assert ran.code == code
    assert ran.out.endswith(f"\n# {severity}[MESH-4001]: two clusters\n#   fix: choose\n")


def test_json_is_the_daemons_own_object(meshd: Meshd, daemon: FakeDaemon) -> None:
    assert json.loads(meshd("status", "-o", "json").out) == FORMED


def test_yaml_says_the_same(meshd: Meshd, daemon: FakeDaemon) -> None:
    assert yaml.safe_load(meshd("status", "-o", "yaml").out) == FORMED


def test_wide_adds_ids_and_reasons(meshd: Meshd, daemon: FakeDaemon) -> None:
    lines = meshd("status", "-o", "wide").out.splitlines()
    assert lines[7].endswith("K3S       ID                WAITING FOR")
    assert lines[8].endswith("starting  12D3KooWCCCC3333  a server's answer")


def test_with_ledger_the_entries_follow(meshd: Meshd, daemon: FakeDaemon) -> None:
    assert "genesis/1/claim" in meshd("status", "--ledger").out
    content = json.loads(meshd("status", "--ledger", "-o", "json").out)
    assert [entry["seq"] for entry in content["ledger_entries"]] == [7, 1]


def test_control_characters_of_others_are_not_printed(meshd: Meshd, daemon: FakeDaemon) -> None:
    evil = {**FORMED["nodes"][0], "name": "n\x1b[2J\nx"}
    daemon.status = {**FORMED, "nodes": [evil]}
    ran = meshd("status")
    assert "\x1b" not in ran.out
    assert "n?[2J?x" in ran.out


def test_colour_is_for_terminals_without_no_color(
    meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32msteady\x1b[0m" in meshd("status").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in meshd("status").out


def test_no_daemon_is_exit_3_with_a_fix(meshd: Meshd, tmp_path: Path) -> None:
    ran = meshd("status")
    assert ran.code == 3
    assert ran.out == ""
    assert ran.err == (
        f"error[MESH-7011]: no daemon answers in {tmp_path}: No such file or directory\n"
        "  fix: start it with `systemctl start meshd` or `meshd daemon`, "
        "or name its folder with --run-dir\n"
    )


def test_a_socket_that_a_dead_daemon_left_is_exit_3(meshd: Meshd, tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    assert "Connection refused" in meshd("status").err


def test_without_the_roots_socket_the_groups_is_used(meshd: Meshd, tmp_path: Path) -> None:
    with running(tmp_path, "ro.sock"):
        assert meshd("status").code == 0


def test_a_user_who_may_use_neither_socket_is_exit_4(
    meshd: Meshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    ran = meshd("status")
    assert ran.code == 4
    assert "join the group meshd" in ran.err


def test_an_error_of_the_daemon_is_exit_1_with_its_words(meshd: Meshd, daemon: FakeDaemon) -> None:
    daemon.broken = 500
    ran = meshd("status")
    assert ran.code == 1
    assert "error[MESH-7013]: the daemon answered 500 to /v1/status\n  cause: out of order" in (
        ran.err
    )
