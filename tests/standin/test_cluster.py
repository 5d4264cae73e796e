"""Three servers and a worker, looked at and left alone."""

from __future__ import annotations

import json

import pytest

from tests.standin.conftest import Cluster
from tests.standin.machines import wait_for

pytestmark = pytest.mark.lab


def test_three_servers_are_three_voters_for_each_of_them(shared_cluster: Cluster) -> None:
    for server in shared_cluster.servers:
        assert server.voters() == ["k1", "k2", "k3"]


def test_all_servers_serve_one_cluster(shared_cluster: Cluster) -> None:
    assert len({server.uid() for server in shared_cluster.servers}) == 1


def test_every_node_is_ready_and_the_servers_vote(shared_cluster: Cluster) -> None:
    voting = {"Ready": "True", "EtcdIsVoter": "True"}
    expected = {"k1": voting, "k2": voting, "k3": voting, "k4": {"Ready": "True"}}
    wait_for("the nodes say so", lambda: shared_cluster.servers[2].nodes() == expected)


def test_joined_servers_have_the_first_ones_authorities(shared_cluster: Cluster) -> None:
    names = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
    files = [*(f"{n}.crt" for n in names), *(f"{n}.key" for n in names), "service.key"]
    first, *joined = (server.data / "server" / "tls" for server in shared_cluster.servers)
    for tls in joined:
        assert all((tls / f).read_bytes() == (first / f).read_bytes() for f in files)


def test_joined_servers_write_the_same_tokens(shared_cluster: Cluster) -> None:
    assert len({server.token for server in shared_cluster.servers}) == 1
    assert len({server.agent_token for server in shared_cluster.servers}) == 1


def test_cluster_init_beside_server_joins(shared_cluster: Cluster) -> None:
    # The third server was given both.
    assert "Managed etcd cluster initializing" not in shared_cluster.programs[2].log
    assert "Starting etcd to join cluster" in shared_cluster.programs[2].log


def test_the_worker_learns_all_servers(shared_cluster: Cluster) -> None:
    assert wait_for("all three", shared_cluster.worker_knows_all_servers)


def test_a_worker_gets_a_certificate_for_its_own_business_only(shared_cluster: Cluster) -> None:
    worker, server = shared_cluster.machines[3], shared_cluster.servers[0]
    kubelet = worker.data / "agent" / "client-kubelet.crt"
    codes = {
        path: server.ask(path, certificate=kubelet).status
        for path in ("/api/v1/nodes", "/v1-k3s/config", "/api/v1/configmaps", "/db/info")
    }
    assert codes == {
        "/api/v1/nodes": 403,
        "/v1-k3s/config": 200,
        "/api/v1/configmaps": 403,
        "/db/info": 403,
    }


def test_a_second_program_on_the_machine_ends(shared_cluster: Cluster) -> None:
    server = shared_cluster.servers[0]
    program = server.start("server", "--token", "abc", "--agent-token", "agt")
    assert program.exit_code() == 1
    assert "bind: address already in use" in program.log
    assert server.ready()


def test_a_taken_node_name_keeps_a_worker_out(shared_cluster: Cluster) -> None:
    stranger = shared_cluster.site.machine()
    server = shared_cluster.servers[0]
    joining = ("--server", server.url, "--token", server.agent_token)
    program = stranger.start("agent", *joining, "--node-name", "k4")
    rejected = "Node password rejected, duplicate hostname"
    wait_for("it says so", lambda: rejected in program.log)
    assert program.running
    assert "unable to verify password for node k4: hash does not match" in (
        shared_cluster.programs[0].log
    )


def test_a_manifest_is_applied_and_changed_and_never_deleted(shared_cluster: Cluster) -> None:
    server = shared_cluster.servers[1]
    file = server.data / "server" / "manifests" / "greeting.yaml"
    path = "/api/v1/namespaces/kube-system/configmaps/greeting"

    def write(text: str) -> None:
        metadata = {"name": "greeting", "namespace": "kube-system"}
        file.write_text(
            json.dumps(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"t": text}}
            )
        )

    def shown() -> str | None:
        answer = server.ask(path, admin=True)
        return str(answer.json()["data"]["t"]) if answer.status == 200 else None

    write("hello")
    wait_for("applied", lambda: shown() == "hello")
    write("good day")
    wait_for("changed", lambda: shown() == "good day")
    file.unlink()
    write_again = server.data / "server" / "manifests" / "marker.yaml"
    write_again.write_text(
        json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "marker"}})
    )
    marker = "/api/v1/namespaces/marker"
    wait_for("the folder was read again", lambda: server.ask(marker, admin=True).status == 200)
    assert shown() == "good day"
