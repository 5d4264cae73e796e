"""`meshd wait`: it ends when it is so, or says what is missing."""

import socket
import threading

import pytest

from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, WAITING, FakeDaemon, Json

HERE = {**FORMED, "vip": {"address": "127.0.0.1", "holder": "n1"}}


@pytest.mark.parametrize("goal", ["joined", "formed", "role", "ready", "nodes=4"])
def test_what_is_already_so_needs_no_waiting(meshd: Meshd, daemon: FakeDaemon, goal: str) -> None:
    ran = meshd("wait", "--for", goal, "--timeout", "0")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize(
    ("goal", "missing"),
    [
        ("joined", "2 of 3 voters seen (n1, n2): one more machine must be reachable"),
        ("formed", "genesis is discovering: 2 of 3 voters seen (n1, n2)"),
        ("role", "2 of 3 voters seen (n1, n2)"),
        ("vip", "no virtual address is configured (kubevip.eip)"),
        ("ready", "genesis is discovering: 2 of 3 voters seen (n1, n2)"),
        ("nodes=2", "0 of 2 nodes are Ready"),
    ],
)
def test_a_timeout_is_exit_5_with_what_is_still_missing(
    meshd: Meshd, daemon: FakeDaemon, goal: str, missing: str
) -> None:
    daemon.status = WAITING
    ran = meshd("wait", "--for", goal, "--timeout", "0s")
    assert ran.code == 5
    assert ran.err.startswith(f"error[MESH-7016]: after 0s: {missing}")
    assert "  fix: " in ran.err


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"cluster": {**FORMED["cluster"], "control_plane_ready": 2}}, "2 of 3 control-plane"),
        (
            {"nodes": [{**FORMED["nodes"][1], "k3s": "starting", "waiting_for": "etcd"}]},
            "k3s on this node is starting: etcd",
        ),
        ({"nodes": []}, "k3s on this node is unknown"),
    ],
)
def test_ready_means_the_control_plane_and_this_node(
    meshd: Meshd, daemon: FakeDaemon, changes: Json, missing: str
) -> None:
    daemon.status = {**FORMED, **changes}
    assert missing in meshd("wait", "--for", "ready", "--timeout", "0").err


def test_a_node_without_role_needs_no_k3s_to_be_ready(meshd: Meshd, daemon: FakeDaemon) -> None:
    daemon.status = {**FORMED, "node": {**FORMED["node"], "role": "none"}, "nodes": []}
    assert meshd("wait", "--for", "ready", "--timeout", "0").code == 0


def test_a_peer_whose_facts_have_not_arrived_is_not_joined(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    daemon.status = {**FORMED, "nodes": [{**FORMED["nodes"][0], "node_ip": None}]}
    ran = meshd("wait", "--for", "joined", "--timeout", "0")
    assert ran.code == 5
    assert "no other node of this network is connected" in ran.err


def test_vip_asks_the_address_itself(
    meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.status = HERE
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("meshd.cli.wait.KUBERNETES_PORT", port)
        assert meshd("wait", "--for", "vip", "--timeout", "0").code == 0
    ran = meshd("wait", "--for", "vip", "--timeout", "0")
    assert ran.code == 5
    assert f"127.0.0.1 does not answer on {port}: Connection refused" in ran.err


def test_it_goes_on_as_soon_as_it_is_so_and_says_each_reason_once(
    meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.cli.wait.POLL_INTERVAL_S", 0.0)
    answers = iter([WAITING, WAITING, FORMED])
    daemon.status = lambda: next(answers)
    ran = meshd("wait", "--for", "formed")
    assert ran.code == 0
    assert ran.err.count("waiting: genesis is discovering") == 1


def test_a_daemon_that_never_answers_is_exit_3(meshd: Meshd) -> None:
    assert meshd("wait", "--for", "formed", "--timeout", "0").code == 3


def test_a_daemon_may_still_be_starting(
    meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.cli.wait.POLL_INTERVAL_S", 0.0)
    daemon.broken = None
    first = threading.Event()
    connect = socket.socket.connect

    def connect_later(sock: socket.socket, address: str) -> None:
        if not first.is_set():
            first.set()
            raise FileNotFoundError(2, "No such file or directory")
        connect(sock, address)

    monkeypatch.setattr("socket.socket.connect", connect_later)
    assert meshd("wait", "--for", "formed", "--timeout", "1m").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--for", "happiness"),
        ("--for", "nodes=0"),
        ("--for", "nodes=x"),
        ("--for", "formed", "--timeout", "soon"),
        (),
    ],
)
def test_what_it_cannot_wait_for_is_a_usage_error(meshd: Meshd, arguments: tuple[str, ...]) -> None:
    ran = meshd("wait", *arguments)
    assert ran.code == 2
    assert ran.err.startswith("error[MESH-7010]: ")
    assert "fix: see `meshd wait --help`" in ran.err
