"""What the tests of the cluster part share: a plan, settings and orders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ledger import NodeId
from meshd.cluster.groundwork import Groundwork, Surroundings
from meshd.cluster.kubevip import Address, Interface
from meshd.cluster.paths import K3sPaths
from meshd.cluster.secrets import CandidateSecrets
from meshd.config.schema import K3sArguments, KubeVip, Network, Settings
from meshd.events import ClusterOrder
from meshd.sealing import seal
from roles import Bounds, ClusterPlan, Seat

VIP = "10.0.0.50"
N1, N2, N3, N4 = (NodeId(f"12D3KooW{name}") for name in ("one", "two", "three", "four"))
ADDRESSES = {N1: "10.0.0.11", N2: "10.0.0.12", N3: "10.0.0.13", N4: "10.0.0.14"}
NAMES = {N1: "n1-aaaaaaaa", N2: "n2-bbbbbbbb", N3: "n3-cccccccc", N4: "n4-dddddddd"}
SETTINGS = Settings(
    network=Network(network_id="oak-1", epoch=1, secret=b"", capability="vote", seeds=()),
    bounds=Bounds.bounded(control_plane=3),
    role="auto",
    kubevip=KubeVip(address=VIP),
    k3s=K3sArguments(),
    k3s_agent=K3sArguments(),
    external_db=None,
    listen=(),
    discovery=(),
    seeds=(),
    interface=None,
    overlay_asked=False,
    admins=(),
    labels=(),
    log_level="info",
    findings=(),
)
AUTHORITIES = tuple(
    sorted(
        (f"{name}.{end}", f"{name} {end}\n".encode())
        for name in (
            "client-ca",
            "etcd/peer-ca",
            "etcd/server-ca",
            "request-header-ca",
            "server-ca",
        )
        for end in ("crt", "key")
    )
)
SECRETS = CandidateSecrets(
    tls=(*AUTHORITIES, ("service.key", b"service key\n")),
    server_token="5e" * 32,
    agent_token="a9" * 32,
)


def sealing_key(node: NodeId) -> X25519PrivateKey:
    """Return the node's own X25519 key."""
    return X25519PrivateKey.from_private_bytes(node.encode().ljust(32, b".")[:32])


def plan(*, seats: tuple[NodeId, ...] = (N1, N2, N3)) -> ClusterPlan:
    """Return a plan whose initialiser has `SECRETS`."""
    return ClusterPlan(
        cluster_id="c1" * 16,
        generation=1,
        initialiser=seats[0],
        seats=tuple(Seat(node=n, node_name=NAMES[n], node_ip=ADDRESSES[n]) for n in seats),
        network="lan",
        settings_hash="5e77",
        ca_hash=SECRETS.ca_hash,
        token_commitment=SECRETS.token_commitment,
        vip=VIP,
        vip_interface="eth7",
    )


def sealed(node: NodeId, *names: str) -> tuple[tuple[str, bytes], ...]:
    """Return the named tokens of `SECRETS`, sealed to the node."""
    tokens = {"server-token": SECRETS.server_token, "agent-token": SECRETS.agent_token}
    public = sealing_key(node).public_key().public_bytes_raw()
    return tuple(
        (name, seal(tokens[name], recipient=node, sealing_key=public, name=name)) for name in names
    )


def initialiser(*, formed: bool = False) -> ClusterOrder:
    join = (ADDRESSES[N2], ADDRESSES[N3]) if formed else ()
    return ClusterOrder(seat="initialiser", plan=plan(), formed=formed, join=join)


def server(*, formed: bool = False) -> ClusterOrder:
    tokens = sealed(N2, "server-token", "agent-token")
    return ClusterOrder(
        seat="server", plan=plan(), formed=formed, join=(ADDRESSES[N1],), sealed=tokens
    )


def worker() -> ClusterOrder:
    tokens = sealed(N4, "agent-token")
    return ClusterOrder(
        seat="worker", plan=plan(), formed=True, join=(ADDRESSES[N1],), sealed=tokens
    )


def k3s_paths(folder: Path) -> K3sPaths:
    """Return k3s' folders below `folder`, with a k3s that is `true`."""
    return K3sPaths(
        config_dir=folder / "etc", data_dir=folder / "data", binary=Path("/usr/bin/true")
    )


def groundwork(node: NodeId, folder: Path, settings: Settings = SETTINGS) -> Groundwork:
    return Groundwork(
        settings=settings,
        node_id=node,
        node_name=NAMES[node],
        state_dir=folder / "state",
        paths=k3s_paths(folder),
        secrets=lambda: SECRETS,
        sealing_key=sealing_key(node),
    )


def surroundings(node: NodeId) -> Surroundings:
    interface = Interface(ifname="eth7", addr_info=(Address(local=ADDRESSES[node], prefixlen=24),))
    return Surroundings(
        node_ip=ADDRESSES[node],
        interfaces=(interface,),
        environment={"PATH": "/usr/bin"},
    )


def with_arguments(*arguments: str) -> Settings:
    return replace(SETTINGS, k3s=K3sArguments(args=arguments))


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
