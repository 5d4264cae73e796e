"""What meshd relies on in a whole cluster of k3s, asked of the stand-in and of a real one.

Three servers and a worker that meshd formed, and a fifth machine to try things from. What one
server without pods shows is asked in tests/standin/test_contract.py.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshd.errors import MeshdError
from simulations.lab import cloudconfig, pods, tour
from simulations.lab.kernel import inside_network
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces
from simulations.lab.servers import Unanswered, server_on
from tests.lab.conftest import Bench, made_bench

pytestmark = pytest.mark.lab

_STRANGER = "n5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The cluster under test."""

    bench: Bench
    built: Laboratory
    servers: tuple[NodePlaces, ...]
    worker: NodePlaces

    def items(self, path: str) -> list[dict[str, Any]]:
        """Return the objects at a path."""
        with closing(server_on(self.servers[0])) as server:
            items: list[dict[str, Any]] = server.get(path)["items"]
        return items

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the Node objects by the laboratory's names."""
        found = self.items("/api/v1/nodes")
        return {node["metadata"]["name"].rpartition("-")[0]: node for node in found}

    def password(self, user: str) -> str:
        """Return the cluster's password for `server` or `node`."""
        name = {"server": "token", "node": "agent-token"}[user]
        text = (self.servers[0].k3s_folder / "server" / name).read_text(encoding="ascii")
        return text.strip().rpartition(f"::{user}:")[2]

    def ask(self, node: NodePlaces, path: str, user: str) -> Any:
        """Return what a server's own port answers to basic auth, which must be 200."""
        word = base64.b64encode(f"{user}:{self.password(user)}".encode()).decode()
        headers = {"Authorization": f"Basic {word}"}
        status, text = _ask(node, (node.address, 6443), path, headers=headers)
        assert status == 200, text
        return json.loads(text)

    def try_on_stranger(self, *arguments: str) -> None:
        """Start k3s on the fifth machine, whose disk is emptied first."""
        self.built.kill(_STRANGER)
        self.built.wipe(_STRANGER)
        stranger = self.built.node(_STRANGER)
        stranger.log.unlink(missing_ok=True)
        stranger.exits.unlink(missing_ok=True)
        self.built.start(_STRANGER, program=(str(self.built.places.binaries / "k3s"), *arguments))

    def stranger_log(self) -> str:
        return self.built.node(_STRANGER).log.read_text(encoding="utf-8", errors="replace")

    def stranger_exits(self) -> list[int]:
        """Return the codes with which the fifth machine's program ended so far."""
        file = self.built.node(_STRANGER).exits
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def _ask(
    inside: NodePlaces,
    at: tuple[str, int],
    path: str,
    *,
    headers: dict[str, str] | None = None,
    certificate: Path | None = None,
) -> tuple[int, str]:
    """Ask from within a node, whatever authority the answer is signed by."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with inside_network(inside.namespace_file):
        connection = http.client.HTTPSConnection(*at, timeout=10, context=tls)
        connection.connect()
    with closing(connection):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture(
    scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.k3s)], autouse=True
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    wanted: dict[str, Any] = {"nodes": 5, "boots": False}
    if request.param == "real":
        binary, images = os.environ.get("MESHD_K3S_BIN"), os.environ.get("MESHD_K3S_IMAGES")
        if not binary:
            pytest.skip("MESHD_K3S_BIN names no k3s")
        wanted |= {"k3s": Path(binary), "images": Path(images) if images else None}
        try:
            pods.find_runtime(wanted["k3s"], wanted["images"])
        except MeshdError as error:
            pytest.skip(error.render())
    with made_bench() as bench:
        bench.may_exit.add(_STRANGER)
        built = bench.up(**wanted)
        for name in built.known.names():
            if name != _STRANGER:
                built.start(name)
        bench.wait_until("a cluster with the VIP", lambda: _is_whole(built), limit_s=300)
        running = [node for node in built.nodes() if node.name != _STRANGER]
        servers = tuple(n for n in running if (n.k3s_folder / "server" / "db").is_dir())
        (worker,) = set(running) - set(servers)
        yield Subject(bench=bench, built=built, servers=servers, worker=worker)


def _is_whole(built: Laboratory) -> bool:
    """Whether four Nodes are Ready, of which three say that they vote, and the VIP answers."""
    if tour.holder_that_answers(built) is None:
        return False
    try:
        with closing(server_on(built.node(str(tour.holder_that_answers(built))))) as server:
            nodes = server.get("/api/v1/nodes")["items"]
    except Unanswered:
        return False
    said = [(one["type"], one["status"]) for n in nodes for one in n["status"]["conditions"]]
    return said.count(("Ready", "True")) == 4 and said.count(("EtcdIsVoter", "True")) == 3


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_servers_are_labelled_and_vote_and_a_worker_does_neither(subject: Subject) -> None:
    roles = {"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd"}
    found = subject.nodes()
    for node in subject.servers:
        labels = found[node.name]["metadata"]["labels"]
        assert {labels[role] for role in roles} == {"true"}
    worker = found[subject.worker.name]
    assert not roles & set(worker["metadata"]["labels"])
    assert "EtcdIsVoter" not in {one["type"] for one in worker["status"]["conditions"]}


def test_a_node_says_its_address_and_its_name(subject: Subject) -> None:
    for name, node in subject.nodes().items():
        said = {one["type"]: one["address"] for one in node["status"]["addresses"]}
        assert said["InternalIP"] == subject.built.node(name).address
        # A real k3s' kubelet says the Node's name, until its controller says the machine's (seen).
        assert said["Hostname"] in (name, node["metadata"]["name"])
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == node["metadata"]["name"]


def test_a_servers_node_names_its_member_of_etcd(subject: Subject) -> None:
    members = subject.ask(subject.servers[0], "/db/info", "server")["members"]
    for node in subject.servers:
        notes = subject.nodes()[node.name]["metadata"]["annotations"]
        (member,) = [m for m in members if m["peerURLs"] == [f"https://{node.address}:2380"]]
        assert notes["etcd.k3s.cattle.io/node-name"] == member["name"]
        assert notes["etcd.k3s.cattle.io/node-address"] == node.address


def test_every_server_lists_all_members_and_all_servers(subject: Subject) -> None:
    addresses = sorted(f"{node.address}:6443" for node in subject.servers)
    for node in subject.servers:
        members = subject.ask(node, "/db/info", "server")["members"]
        assert len(members) == 3
        assert not any(member.get("isLearner") for member in members)
        assert sorted(subject.ask(node, "/v1-k3s/apiservers", "node")) == addresses


def test_the_lease_names_the_node_that_has_the_address(subject: Subject) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock"
    with closing(server_on(subject.servers[1])) as server:
        before = server.get(path)["spec"]
        assert before["leaseDurationSeconds"] == 5
        holder = before["holderIdentity"].rpartition("-")[0]
        assert tour.holder_that_answers(subject.built) == holder
        subject.bench.wait_until(
            "the Lease to be renewed",
            lambda: server.get(path)["spec"]["renewTime"] != before["renewTime"],
        )


def test_meshds_manifests_are_objects_of_the_cluster(subject: Subject) -> None:
    (kube_vip,) = subject.items("/apis/apps/v1/namespaces/kube-system/daemonsets")
    assert kube_vip["metadata"]["name"] == "kube-vip"
    assert kube_vip["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshd"
    marks = {m["metadata"]["name"]: m for m in subject.items(
        "/api/v1/namespaces/kube-system/configmaps"
    )}  # fmt: skip
    assert marks["meshd-cluster"]["data"]["generation"] == "1"
    leases = subject.items("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    assert sorted(lease["metadata"]["name"] for lease in leases) == sorted(
        node["metadata"]["name"] for node in subject.nodes().values()
    )


def test_a_workers_disk_has_a_certificate_and_no_server(subject: Subject) -> None:
    agent = subject.worker.k3s_folder / "agent"
    for name in ("client-kubelet.crt", "client-kubelet.key"):
        assert _mode(agent / name) == 0o600
    authority = (subject.servers[0].k3s_folder / "server/tls/server-ca.crt").read_bytes()
    assert (agent / "server-ca.crt").read_bytes() == authority
    assert not (subject.worker.k3s_folder / "server" / "tls" / "server-ca.key").exists()
    password = subject.worker.disk / "etc-rancher" / "node" / "password"
    assert _mode(password) == 0o600


def test_a_worker_reads_its_own_node_through_its_own_balancer(subject: Subject) -> None:
    kubelet = subject.worker.k3s_folder / "agent" / "client-kubelet.crt"
    name = subject.nodes()[subject.worker.name]["metadata"]["name"]
    other = f"/api/v1/nodes/{subject.nodes()[subject.servers[0].name]['metadata']['name']}"
    at = ("127.0.0.1", 6444)
    status, text = _ask(subject.worker, at, f"/api/v1/nodes/{name}", certificate=kubelet)
    assert status == 200, text
    assert json.loads(text)["metadata"]["name"] == name
    codes = {
        path: _ask(subject.worker, at, path, certificate=kubelet)[0]
        for path in (
            "/api/v1/nodes", other, "/api/v1/configmaps", "/v1-k3s/config", "/db/info",
        )
    }  # fmt: skip
    assert codes == {
        "/api/v1/nodes": 403,
        other: 403,
        "/api/v1/configmaps": 403,
        "/v1-k3s/config": 200,
        "/db/info": 403,
    }


def test_an_agent_of_another_nodes_name_waits_and_says_why(subject: Subject) -> None:
    url = f"https://{subject.servers[0].address}:6443"
    taken = subject.nodes()[subject.worker.name]["metadata"]["name"]
    token = ("--token", subject.password("node"))
    subject.try_on_stranger("agent", "--server", url, *token, "--node-name", taken)
    rejected = "Node password rejected, duplicate hostname or contents of"
    subject.bench.wait_until("it says so", lambda: subject.stranger_log().count(rejected) > 1)
    assert subject.stranger_exits() == []


def test_a_server_of_another_nodes_name_ends_with_0_and_leaves_no_member(
    subject: Subject,
) -> None:
    url = f"https://{subject.servers[0].address}:6443"
    taken = subject.nodes()[subject.servers[1].name]["metadata"]["name"]
    tokens = ("--token", subject.password("server"), "--agent-token", subject.password("node"))
    # Other settings than the cluster's would end it sooner, and for another reason.
    same = () if subject.built.known.standin else (*cloudconfig.SERVER_ARGS, "--disable-agent")
    joining = ("server", "--server", url, *tokens, "--node-name", taken)
    subject.try_on_stranger(*joining, *same)
    subject.bench.wait_until("it ends", lambda: bool(subject.stranger_exits()))
    assert subject.stranger_exits()[0] == 0
    said = "Shutdown request received: etcd cluster join failed: duplicate node name found"
    assert said in subject.stranger_log()
    assert len(subject.ask(subject.servers[0], "/db/info", "server")["members"]) == 3
