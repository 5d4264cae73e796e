"""What meshd relies on in k3s, asked of the stand-in and, where there is one, of a real k3s.

One server with authorities made beforehand and without an agent; then programs that may not join.
"""

from __future__ import annotations

import hashlib
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.standin.conftest import command_of, needs_namespaces
from tests.standin.machines import Machine, Program, Site, in_namespace, wait_for

pytestmark = pytest.mark.lab

_AUTHORITIES = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
_WITHOUT_PODS = ("--disable-agent", "--flannel-backend", "none", "--disable-network-policy")
_DISABLED = ("--disable", "coredns,traefik,servicelb,metrics-server,local-storage")
_KUBERNETES = ("/readyz", "/livez", "/healthz", "/version", "/metrics", "/api/v1/nodes")
_AGENTS = (
    "/v1-k3s/readyz",
    "/v1-k3s/config",
    "/v1-k3s/apiservers",
    "/v1-k3s/server-ca.crt",
    "/v1-k3s/client-ca.crt",
)
_SERVERS = ("/v1-k3s/server-bootstrap", "/db/info")


@dataclass(frozen=True, slots=True)
class Subject:
    """The program under test, its one server, and a second machine to try things from."""

    command: tuple[str, ...]
    server: Machine
    other: Machine
    seeded: dict[str, bytes]

    def started_anew(self, *arguments: str) -> Program:
        """Start a program on the other machine, whose files are removed first."""
        subprocess.run(["rm", "-rf", str(self.other.data)], check=True)
        if arguments[0] == "server":
            arguments = (*arguments, *_WITHOUT_PODS, *_DISABLED)
        return self.other.start(*arguments, command=self.command)


@pytest.fixture(
    scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.k3s)], autouse=True
)
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    needs_namespaces()
    command = command_of(request.param)
    site = Site(tmp_path_factory.mktemp(request.param))
    try:
        server = site.machine()
        seeded = _seed(server.data / "server" / "tls")
        secrets = ("--token", "abc", "--agent-token", "agt")
        san = ("--tls-san", "10.99.0.100", "--tls-san", "cluster.example")
        arguments = ("--cluster-init", *secrets, *san, *_WITHOUT_PODS, *_DISABLED)
        server.start("server", *arguments, command=command)
        wait_for("the API server is ready", server.ready, 120)
        wait_for("k3s says so", lambda: server.ask("/v1-k3s/readyz", user="node:agt").status == 200)
        yield Subject(command, server, site.machine(), seeded)
    finally:
        site.close()


def _seed(tls: Path) -> dict[str, bytes]:
    """Make k3s' eleven files beforehand, with openssl, and return them."""
    (tls / "etcd").mkdir(parents=True, mode=0o700)
    for name in _AUTHORITIES:
        line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        line += ["-nodes", "-days", "3650", "-subj", f"/CN=made-before-{name.replace('/', '-')}"]
        line += ["-addext", "keyUsage=critical,keyCertSign,digitalSignature,keyEncipherment"]
        line += ["-keyout", str(tls / f"{name}.key"), "-out", str(tls / f"{name}.crt")]
        subprocess.run(line, check=True, capture_output=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tls / "service.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return {str(p.relative_to(tls)): p.read_bytes() for p in tls.rglob("*") if p.is_file()}


def _codes(machine: Machine, path: str) -> tuple[int, int, int, int]:
    """Return the codes for nobody, the agent's password, the server's, the admin certificate."""
    return (
        machine.ask(path).status,
        machine.ask(path, user="node:agt").status,
        machine.ask(path, user="server:abc").status,
        machine.ask(path, admin=True).status,
    )


@pytest.mark.parametrize("path", ["/ping", "/cacerts"])
def test_public_paths_answer_everybody(subject: Subject, path: str) -> None:
    assert _codes(subject.server, path) == (200, 200, 200, 200)


@pytest.mark.parametrize("path", _KUBERNETES)
def test_the_api_server_takes_certificates_only(subject: Subject, path: str) -> None:
    assert _codes(subject.server, path) == (401, 401, 401, 200)


@pytest.mark.parametrize("path", _AGENTS)
def test_agents_paths_are_closed_to_servers_and_administrators(subject: Subject, path: str) -> None:
    assert _codes(subject.server, path) == (403, 200, 403, 403)


@pytest.mark.parametrize("path", _SERVERS)
def test_servers_paths_are_closed_to_agents_and_administrators(subject: Subject, path: str) -> None:
    assert _codes(subject.server, path) == (403, 403, 200, 403)


@pytest.mark.parametrize("path", [*_AGENTS, *_SERVERS])
@pytest.mark.parametrize("user", ["server:nope", "node:nope", "node:abc"])
def test_a_wrong_password_is_not_the_same_as_none(subject: Subject, path: str, user: str) -> None:
    answer = subject.server.ask(path, user=user)
    assert (answer.status, answer.message) == (401, "not authorized")


def test_messages_say_who_is_refused(subject: Subject) -> None:
    server = subject.server
    assert server.ask("/v1-k3s/config").message == "forbidden"
    assert server.ask("/api/v1/nodes").message == "Unauthorized"
    assert server.ask("/ping").text == "pong"
    assert server.ask("/readyz", admin=True).text == "ok"


def test_the_member_list_names_node_and_addresses(subject: Subject) -> None:
    (member,) = subject.server.ask("/db/info", user="server:abc").json()["members"]
    node, _, suffix = member["name"].rpartition("-")
    assert node == "k1"
    assert len(bytes.fromhex(suffix)) == 4
    assert member["peerURLs"] == ["https://10.99.0.1:2380"]
    assert member["clientURLs"] == ["https://10.99.0.1:2379"]
    assert not member.get("isLearner")


def test_a_lone_first_server_has_the_member_id_it_has_in_every_cluster(subject: Subject) -> None:
    # Cluster and member id follow from the address alone, so they tell no two clusters apart.
    (member,) = subject.server.ask("/db/info", user="server:abc").json()["members"]
    assert member["ID"] == 0xECA9A4E1A64D463


def test_the_api_server_list_holds_the_node_address(subject: Subject) -> None:
    listed = wait_for(
        "listed", lambda: subject.server.ask("/v1-k3s/apiservers", user="node:agt").json()
    )
    assert listed == ["10.99.0.1:6443"]


def test_there_are_no_nodes_without_an_agent(subject: Subject) -> None:
    assert subject.server.nodes() == {}


def test_authorities_made_beforehand_are_kept(subject: Subject) -> None:
    tls = subject.server.data / "server" / "tls"
    assert len(subject.seeded) == 11
    assert {name: (tls / name).read_bytes() for name in subject.seeded} == subject.seeded
    assert subject.server.ask("/cacerts").text.encode() == subject.seeded["server-ca.crt"]


def test_token_files_are_as_documented(subject: Subject) -> None:
    folder = subject.server.data / "server"
    digest = hashlib.sha256(subject.seeded["server-ca.crt"]).hexdigest()
    assert subject.server.token == f"K10{digest}::server:abc"
    assert subject.server.agent_token == f"K10{digest}::node:agt"
    assert (folder / "node-token").readlink() == folder / "token"
    rows = (folder / "cred" / "passwd").read_text().splitlines()
    assert sorted(rows) == ["abc,server,server,k3s:server", "agt,node,node,k3s:agent"]
    for name in ("token", "agent-token", "cred/passwd"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_the_files_that_meshd_reads_are_there(subject: Subject) -> None:
    server = subject.server
    assert stat.S_IMODE((server.folder / "k3s.yaml").stat().st_mode) == 0o600
    assert "server: https://127.0.0.1:6443" in (server.folder / "k3s.yaml").read_text()
    assert (server.data / "server" / "db" / "etcd" / "member" / "wal").is_dir()
    name = (server.data / "server" / "db" / "etcd" / "name").read_text()
    (member,) = server.ask("/db/info", user="server:abc").json()["members"]
    assert name.strip() == member["name"]


def test_objects_conflict_on_an_old_resource_version(subject: Subject) -> None:
    server, path = subject.server, "/api/v1/namespaces/default/configmaps"
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    created = server.ask(path, admin=True, method="POST", body=made)
    assert created.status == 201
    again = server.ask(path, admin=True, method="POST", body=made)
    assert (again.status, again.json()["reason"]) == (409, "AlreadyExists")
    first = created.json() | {"data": {"a": "2"}}
    assert server.ask(f"{path}/c", admin=True, method="PUT", body=first).status == 200
    late = server.ask(f"{path}/c", admin=True, method="PUT", body=first)
    assert (late.status, late.json()["reason"]) == (409, "Conflict")
    read = server.ask(f"{path}/c", admin=True).json()
    assert read["data"] == {"a": "2"}
    assert read["metadata"]["uid"] == created.json()["metadata"]["uid"]
    listed = server.ask(path, admin=True).json()
    assert listed["kind"] == "ConfigMapList"
    assert "c" in [item["metadata"]["name"] for item in listed["items"]]
    assert server.ask(f"{path}/c", admin=True, method="DELETE").status == 200
    gone = server.ask(f"{path}/c", admin=True)
    assert (gone.status, gone.json()["reason"]) == (404, "NotFound")


def test_namespaces_have_a_uid_and_unknown_ones_take_no_objects(subject: Subject) -> None:
    assert len(subject.server.uid()) == 36
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    path = "/api/v1/namespaces/nowhere/configmaps"
    assert subject.server.ask(path, admin=True, method="POST", body=made).status == 404


def test_leases_are_kept_as_written(subject: Subject) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    spec = {
        "holderIdentity": "k1",
        "leaseDurationSeconds": 5,
        "renewTime": "2026-01-02T03:04:05.678901Z",
    }
    made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "mine"}}
    created = subject.server.ask(path, admin=True, method="POST", body=made | {"spec": spec})
    assert created.status == 201
    read = subject.server.ask(f"{path}/mine", admin=True).json()
    assert {key: read["spec"][key] for key in spec} == spec


def test_a_server_with_a_wrong_password_ends_with_1(subject: Subject) -> None:
    token = subject.server.token.replace(":abc", ":nope")
    program = subject.started_anew("server", "--server", subject.server.url, "--token", token)
    assert program.exit_code() == 1
    assert "failed to bootstrap cluster data: not authorized" in program.log


def test_a_server_with_a_wrong_bare_password_ends_with_1(subject: Subject) -> None:
    program = subject.started_anew("server", "--server", subject.server.url, "--token", "nope")
    assert program.exit_code() == 1
    assert "failed to bootstrap cluster data: not authorized" in program.log
    assert "the token does not include a CA hash" in program.log


def test_a_server_with_the_agent_token_ends_with_1(subject: Subject) -> None:
    token = subject.server.agent_token
    program = subject.started_anew("server", "--server", subject.server.url, "--token", token)
    assert program.exit_code() == 1
    assert "failed to bootstrap cluster data: not authorized" in program.log


def test_a_server_with_a_wrong_authority_ends_with_1(subject: Subject) -> None:
    token = "K10" + "f" * 64 + "::server:abc"
    program = subject.started_anew("server", "--server", subject.server.url, "--token", token)
    assert program.exit_code() == 1
    assert "token CA hash does not match the Cluster CA certificate hash: ffff" in program.log


def test_a_server_before_a_closed_port_ends_with_1(subject: Subject) -> None:
    url = f"https://{subject.other.address}:6443"
    program = subject.started_anew("server", "--server", url, "--token", subject.server.token)
    assert program.exit_code() == 1
    assert "failed to validate token: failed to get CA certs:" in program.log
    assert "connection refused" in program.log


def test_a_server_with_other_network_ranges_ends_with_1(subject: Subject) -> None:
    joining = ("--server", subject.server.url, "--token", subject.server.token)
    secrets = ("--agent-token", "agt", "--cluster-cidr", "10.44.0.0/16")
    program = subject.started_anew("server", *joining, *secrets)
    assert program.exit_code() == 1
    assert "failed to validate server configuration" in program.log
    assert "critical configuration value mismatch between servers" in program.log


def test_a_server_with_a_taken_name_ends_with_0(subject: Subject) -> None:
    joining = ("--server", subject.server.url, "--token", subject.server.token)
    program = subject.started_anew("server", *joining, "--agent-token", "agt", "--node-name", "k1")
    assert program.exit_code() == 0
    assert "Shutdown request received: etcd cluster join failed: duplicate node name found" in (
        program.log
    )
    assert subject.server.voters() == ["k1"]


def test_an_agent_without_a_token_ends_with_1(subject: Subject) -> None:
    program = subject.started_anew("agent", "--server", subject.server.url)
    assert program.exit_code() == 1
    assert "--token is required" in program.log


def test_an_agent_with_a_wrong_password_waits(subject: Subject) -> None:
    token = subject.server.agent_token.replace(":agt", ":nope")
    program = subject.started_anew("agent", "--server", subject.server.url, "--token", token)
    waiting = "failed to retrieve configuration from server: not authorized"
    wait_for("it says so twice", lambda: program.log.count(waiting) >= 2, 40)
    assert program.running
    program.kill()


def test_an_agent_with_a_wrong_authority_waits(subject: Subject) -> None:
    token = "K10" + "f" * 64 + "::node:agt"
    program = subject.started_anew("agent", "--server", subject.server.url, "--token", token)
    wrong = "token CA hash does not match the Cluster CA certificate hash"
    wait_for("it says so twice", lambda: program.log.count(wrong) >= 2, 40)
    assert program.running
    program.kill()


def test_a_server_whose_etcd_cannot_start_is_a_learner_without_a_name(subject: Subject) -> None:
    joining = ("--server", subject.server.url, "--token", subject.server.token)
    with in_namespace(subject.other.namespace):
        taken = socket.create_server((subject.other.address, 2380))
    with taken:
        program = subject.started_anew("server", *joining, "--agent-token", "agt")
        learner = wait_for("a second member", lambda: _learner(subject.server))
        assert learner is not None
        assert learner["peerURLs"] == [f"https://{subject.other.address}:2380"]
        assert "name" not in learner
        assert "clientURLs" not in learner
        assert subject.server.voters() == ["k1"]
        wait_for("it says why", lambda: "bind: address already in use" in program.log)
        if program.running:
            program.kill()


def _learner(server: Machine) -> dict[str, Any] | None:
    """Return the one member that does not vote, if there is one."""
    members: list[dict[str, Any]] = server.ask("/db/info", user="server:abc").json()["members"]
    return next((member for member in members if member.get("isLearner")), None)


def test_a_second_server_joins_as_a_voter_and_stops_with_0(subject: Subject) -> None:
    # The last test of this module: one of two members is gone afterwards.
    joining = ("--server", subject.server.url, "--token", subject.server.token)
    program = subject.started_anew("server", *joining, "--agent-token", "agt")
    wait_for("two voters", lambda: subject.server.voters() == ["k1", "k2"], 120)
    wait_for("it serves", subject.other.ready, 60)
    assert subject.other.uid() == subject.server.uid()
    assert subject.other.token == subject.server.token
    tls = subject.other.data / "server" / "tls"
    assert {name: (tls / name).read_bytes() for name in subject.seeded} == subject.seeded
    assert program.terminate() == 0
