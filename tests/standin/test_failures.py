"""What breaks, breaks as with k3s: killed servers, cut links, lost majorities, lost databases."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.standin.conftest import QUICK, Cluster
from tests.standin.machines import VIP, Machine, Site, vip_manifest, wait_for

pytestmark = pytest.mark.lab


def _holder(machines: list[Machine]) -> Machine:
    """Wait until exactly one of the machines holds the address; returns it."""

    def holders() -> list[Machine]:
        found = [machine for machine in machines if machine.has_vip()]
        return found if len(found) == 1 else []

    return wait_for("one machine holds the address", holders)[0]


def _lease_holder(server: Machine) -> str:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock"
    answer = server.ask(path, admin=True)
    return str(answer.json()["spec"]["holderIdentity"]) if answer.status == 200 else ""


def _with_vip(cluster: Cluster) -> Machine:
    """Write kube-vip's manifest on one server; returns the machine that took the address."""
    manifests = cluster.servers[0].data / "server" / "manifests"
    (manifests / "kube-vip.yaml").write_text(json.dumps(vip_manifest()))
    holder = _holder(cluster.servers)
    assert cluster.servers[0].ask("/ping", address=VIP).text == "pong"
    assert _lease_holder(cluster.servers[0]) == holder.name
    return holder


def _writable(server: Machine, name: str) -> bool:
    """Create a ConfigMap through the virtual address."""
    made = {"metadata": {"name": name}, "data": {"by": server.name}}
    answer = server.ask(
        "/api/v1/namespaces/default/configmaps",
        admin=True,
        method="POST",
        body=made,
        address=VIP,
    )
    return answer.status in {201, 409}


def test_the_address_moves_when_its_holder_is_killed(cluster: Cluster) -> None:
    holder = _with_vip(cluster)
    others = cluster.others(holder)
    cluster.program(holder).kill()
    wait_for("etcd died with its stand-in", holder.empty)
    successor = _holder(others)
    wait_for("the cluster takes writes there", lambda: _writable(successor, "after-kill"))
    # Nobody was left to remove it, as seen with kube-vip.
    assert holder.has_vip()
    cluster.restart(holder)
    wait_for("the stale address goes at restart", lambda: not holder.has_vip())
    assert successor.has_vip()
    wait_for("it votes again", lambda: holder.ready() and holder.voters() == ["k1", "k2", "k3"])


def test_the_address_moves_when_its_holder_is_cut_off(cluster: Cluster) -> None:
    holder = _with_vip(cluster)
    others = cluster.others(holder)
    holder.link("down")
    wait_for("the cut server lets go by itself", lambda: not holder.has_vip())
    successor = _holder(others)
    wait_for("the cluster takes writes there", lambda: _writable(successor, "after-cut"))
    assert cluster.program(holder).exit_code(60) == 1
    assert "leaderelection lost" in cluster.program(holder).log
    holder.link("up")
    cluster.restart(holder)
    wait_for("it is back", holder.ready)
    assert holder.uid() == successor.uid()
    assert not holder.has_vip()


def test_a_stopped_server_hands_the_address_over(cluster: Cluster) -> None:
    holder = _with_vip(cluster)
    assert cluster.program(holder).terminate() == 0
    assert not holder.has_vip()
    assert holder.empty()
    assert _holder(cluster.others(holder)).ready()


def test_without_a_majority_a_server_ends_and_then_waits(cluster: Cluster) -> None:
    last, *others = cluster.servers
    before = last.uid()
    for server in others:
        cluster.program(server).kill()
    answer = wait_for("no member list", lambda: _member_list_failure(last))
    assert answer == "failed to get etcd MemberList: context deadline exceeded"
    assert last.ask("/ping").status == 200
    assert cluster.program(last).exit_code(60) == 1
    assert "leaderelection lost" in cluster.program(last).log
    program = cluster.restart(last)
    wait_for("it waits", lambda: _says_not_ready(last))
    assert program.running
    cluster.restart(others[0])
    wait_for("two of three serve", last.ready)
    assert last.uid() == before


def _says_not_ready(server: Machine) -> bool:
    answer = server.ask("/readyz", admin=True)
    return answer.status == 503 and answer.message == "apiserver not ready"


def _member_list_failure(server: Machine) -> str:
    answer = server.ask("/db/info", user="server:abc", timeout_s=20)
    return answer.message if answer.status == 500 else ""


def test_a_worker_moves_on_when_its_server_dies(cluster: Cluster) -> None:
    first, second = cluster.servers[:2]
    wait_for("the worker knows all three", cluster.worker_knows_all_servers)
    cluster.program(first).kill()
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/k4"

    def renewed() -> str:
        answer = second.ask(lease, admin=True)
        return str(answer.json()["spec"]["renewTime"]) if answer.status == 200 else ""

    before = wait_for("the others answer", renewed)
    wait_for("the worker reports to them", lambda: renewed() > before)
    assert cluster.programs[3].running


def test_deleting_a_node_removes_its_member(cluster: Cluster) -> None:
    first, gone = cluster.servers[0], cluster.servers[2]
    wait_for("it votes", lambda: first.nodes().get("k3", {}).get("EtcdIsVoter") == "True")
    assert first.ask("/api/v1/nodes/k3", admin=True, method="DELETE").status == 200
    wait_for("its member is gone", lambda: first.voters() == ["k1", "k2"])
    wait_for("it noticed", lambda: "etcd exited: server is stopping" in cluster.programs[2].log)
    assert cluster.programs[2].running
    assert gone.ask("/ping").status == 200
    assert "k3" not in first.nodes()


def test_a_restarted_server_needs_no_flags(site: Site) -> None:
    server = site.machine()
    first = server.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("ready", server.ready)
    before = server.uid()
    assert first.terminate() == 0
    # The log on disk decides, not the flags: the other server does not even exist.
    again = server.start("server", "--server", "https://10.99.0.99:6443", "--token", "abc", *QUICK)
    wait_for("ready again", server.ready)
    assert server.uid() == before
    assert again.running


def test_a_restart_with_another_token_is_fatal(site: Site) -> None:
    server = site.machine()
    first = server.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("ready", server.ready)
    assert first.terminate() == 0
    again = server.start("server", "--cluster-init", "--token", "other")
    assert again.exit_code() == 1
    assert "encrypted with different token" in again.log


def test_cluster_init_after_a_lost_database_makes_another_cluster(site: Site) -> None:
    # The trap that meshd exists to avoid: same member id, same authorities, another cluster.
    server = site.machine()
    first = server.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("ready", server.ready)
    before = server.uid(), server.ask("/db/info", user="server:abc").json()["members"][0]["ID"]
    authority = server.ask("/cacerts").text
    first.kill()
    wait_for("all ended", server.empty)
    shutil.rmtree(server.data / "server" / "db")
    server.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("ready again", server.ready)
    after = server.uid(), server.ask("/db/info", user="server:abc").json()["members"][0]["ID"]
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert server.ask("/cacerts").text == authority


def test_a_joiner_may_come_before_the_first_server(site: Site) -> None:
    first, worker = site.machine(), site.machine()
    authority = first.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("its token", (first.data / "server" / "token").is_file)
    token = first.token
    authority.kill()
    wait_for("all ended", first.empty)
    waiting = worker.start("agent", "--server", first.url, "--token", token)
    wait_for("it waits", lambda: "failed to get CA certs" in waiting.log)
    first.start("server", "--cluster-init", "--token", "abc", *QUICK)
    wait_for("it is in", lambda: first.nodes().get("k2", {}).get("Ready") == "True")
    assert waiting.running


def test_a_silent_node_is_not_ready(site: Site) -> None:
    server, worker = site.machine(), site.machine()
    flags = ("--cluster-init", "--token", "abc", *QUICK)
    server.start("server", *flags, STANDIN_NODE_GRACE_S="12")
    wait_for("ready", server.ready)
    agent = worker.start("agent", "--server", server.url, "--token", server.token)
    wait_for("it is in", lambda: server.nodes().get("k2", {}).get("Ready") == "True")
    agent.kill()
    wait_for("it is missed", lambda: server.nodes()["k2"]["Ready"] == "Unknown")
    assert server.nodes()["k1"]["Ready"] == "True"
