"""`meshd wait`: it ends when it is so, or says what is missing."""

import socket
import threading

import pytest

from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, WAITING, FakeDaemon, Json

SEEN = "2 of 3 voters seen (n1, n2): one more machine must be reachable"
HERE = {**FORMED, "vip": {"address": "127.0.0.1", "holder": "n1"}}


@pytest.mark.parametrize("goal", ["joined", "formed", "role", "ready", "nodes=4"])
def test_what_is_already_so_needs_no_waiting(meshd: Meshd, daemon: FakeDaemon, goal: str) -> None:
    ran = meshd("wait", "--for", goal, "--timeout", "0")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize(
    ("goal", "missing"),
    [
        ("joined", f"another node: {SEEN}; no seed answers [MESH-3102]"),
        ("formed", f"another node: {SEEN}"),
        ("role", f"another node: {SEEN}"),
        (
            "vip",
            "a virtual address in the configuration: no virtual address is configured",
        ),
        ("ready", f"another node: {SEEN}"),
        ("nodes=2", f"another node: {SEEN}"),
    ],
)
def test_a_timeout_is_exit_5_with_what_is_still_missing(
    meshd: Meshd, daemon: FakeDaemon, goal: str, missing: str
) -> None:
    daemon.status = WAITING
    ran = meshd("wait", "--for", goal, "--timeout", "0s")
    assert ran.code == 5
    assert ran.err.startswith(f"error[MESH-7016]: after 0s, still waiting for {missing}")
    assert "\n  cause: until then: the daemon after 0s" in ran.err
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


def test_a_peer_whose_ledger_has_not_arrived_is_not_joined(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    daemon.status = {**FORMED, "ledger": {**FORMED["ledger"], "synchronised_with": []}}
    ran = meshd("wait", "--for", "joined", "--timeout", "0")
    assert ran.code == 5
    assert "its ledger: the exchange of ledgers with n2 is not complete" in ran.err


def test_without_a_connection_that_is_said(meshd: Meshd, daemon: FakeDaemon) -> None:
    daemon.status = {**FORMED, "nodes": [FORMED["nodes"][1]]}
    ran = meshd("wait", "--for", "joined", "--timeout", "0")
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
    assert ran.err == (
        f"waiting for another node: {SEEN}; no seed answers [MESH-3102]\n"
        "waiting for another node: OK\n"
        "waiting for a plan: OK\n"
        "waiting for the cluster to form: OK\n"
    )


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"genesis": WAITING["genesis"]}, "a plan: genesis is discovering"),
        (
            {"genesis": {**FORMED["genesis"], "phase": "started"}},
            "the cluster to form: genesis is started",
        ),
        ({}, "the control plane to be Ready: 2 of 3 control-plane nodes are Ready"),
    ],
)
def test_the_first_step_that_is_not_done_is_the_diagnosis(
    meshd: Meshd, daemon: FakeDaemon, changes: Json, first: str
) -> None:
    two = {**FORMED["cluster"], "control_plane_ready": 2}
    daemon.status = {**FORMED, "cluster": two, **changes}
    ran = meshd("wait", "--for", "ready", "--timeout", "0")
    assert ran.err.startswith(f"error[MESH-7016]: after 0s, still waiting for {first}")


def test_one_machine_that_is_the_whole_network_forms_and_never_joins(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    alone = {**FORMED["network"], "nodes_max": 1, "control_plane": 1}
    daemon.status = {**WAITING, "network": alone}
    ran = meshd("wait", "--for", "formed", "--timeout", "0")
    assert "still waiting for a plan: genesis is discovering" in ran.err
    ran = meshd("wait", "--for", "joined", "--timeout", "0")
    assert "this network is of one machine: there is nobody to join" in ran.err


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
