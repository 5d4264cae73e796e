"""`K3sCluster` against a real k3s: two servers in network namespaces, no containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import trio

from ledger import NodeId
from meshd.cluster import CandidateSecrets, prepare_secrets
from meshd.events import ClusterOrder, K3sObserved
from meshd.sealing import seal
from roles import ClusterPlan
from tests.cluster.bench import ADDRESSES, N1, N2, NAMES, plan, sealing_key

K3S = os.environ.get("MESHD_K3S_BIN")
pytestmark = [
    pytest.mark.k3s,
    pytest.mark.skipif(K3S is None, reason="MESHD_K3S_BIN names no k3s"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
]
STEP_S = 120
# k3s writes to /etc/rancher whatever it is told: here to a layer of the node's own over /etc.
PRIVATE_ETC = """
mount --make-rprivate / && mkdir -p "$0/upper" "$0/work" &&
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc && exec "$@"
"""


@dataclass
class Network:
    """A bridge and one namespace per node."""

    tag: str
    nodes: tuple[NodeId, ...] = (N1, N2)

    def namespace(self, node: NodeId) -> str:
        return f"{self.tag}n{self.nodes.index(node)}"

    def up(self) -> None:
        hub = f"{self.tag}hub"
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        for node in self.nodes:
            name = self.namespace(node)
            _ip("netns", "add", name)
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", name, "netns", hub)
            _ip("-n", hub, "link", "set", name, "master", "br0", "up")
            _ip("-n", name, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "route", "add", "default", "dev", "eth0")

    def down(self) -> None:
        for name in (*map(self.namespace, self.nodes), f"{self.tag}hub"):
            pids = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
            )
            for pid in pids.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=False)


@dataclass
class Node:
    """A `real_node` process and the last thing it said."""

    node: NodeId
    folder: Path
    network: Network
    secrets_dir: Path
    said: K3sObserved = K3sObserved(state="absent")  # noqa: RUF009 - frozen.
    order: ClusterOrder | None = None
    process: trio.Process | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it; its observations arrive in `said`."""
        assert K3S is not None
        inside = ["ip", "netns", "exec", self.network.namespace(self.node)]
        inside += ["unshare", "-m", "sh", "-c", PRIVATE_ETC, str(self.folder / "etc-layer")]
        program = [sys.executable, "-m", "tests.cluster.real_node"]
        arguments = [str(self.folder), self.node, str(self.secrets_dir)]
        environment = dict(os.environ) | {"HOME": str(self.folder), "MESHD_K3S_BIN": K3S}
        self.process = await trio.lowlevel.open_process(
            inside + program + arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self.process.stdout is not None
        nursery.start_soon(self._listen, self.process.stdout)
        if self.order is not None:
            await self.obey(self.order)

    async def kill(self) -> None:
        """End the daemon as a power cut would, with nothing of it left."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        await process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            await stream.aclose()

    async def obey(self, order: ClusterOrder) -> None:
        self.order = order
        assert self.process is not None
        assert self.process.stdin is not None
        await self.process.stdin.send_all(msgspec.json.encode(order) + b"\n")

    async def _listen(self, stream: trio.abc.ReceiveStream) -> None:
        pending = b""
        with suppress(trio.ClosedResourceError):
            async for chunk in stream:
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self.said = msgspec.json.decode(line, type=K3sObserved)

    async def until(self, condition: Callable[[K3sObserved], object]) -> None:
        with trio.move_on_after(STEP_S):
            while not condition(self.said):  # noqa: ASYNC110 - another process decides.
                await trio.sleep(0.05)
            return
        raise AssertionError(f"{self.node} still says {self.said}")

    @property
    def k3s(self) -> int:
        record = json.loads((self.folder / "state/k3s/running.json").read_bytes())
        return int(record["pid"])


@asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[tuple[Node, Node, trio.Nursery]]:
    network = Network(tag=f"mt{os.getpid()}")
    network.up()
    try:
        async with trio.open_nursery() as nursery:
            one, two = (
                Node(node, folder / NAMES[node], network, folder / "secrets") for node in (N1, N2)
            )
            try:
                yield one, two, nursery
            finally:
                with trio.CancelScope(shield=True):
                    await one.kill()
                    await two.kill()
    finally:
        network.down()


def planned(secrets: CandidateSecrets) -> ClusterPlan:
    return replace(
        plan(seats=(N1, N2)),
        ca_hash=secrets.ca_hash,
        token_commitment=secrets.token_commitment,
        vip=None,
    )


def server_order(secrets: CandidateSecrets) -> ClusterOrder:
    public = sealing_key(N2).public_key().public_bytes_raw()
    tokens = {"server-token": secrets.server_token, "agent-token": secrets.agent_token}
    sealed = tuple(
        (name, seal(token, recipient=N2, sealing_key=public, name=name))
        for name, token in tokens.items()
    )
    return ClusterOrder(
        seat="server", plan=planned(secrets), formed=False, join=(ADDRESSES[N1],), sealed=sealed
    )


async def test_two_servers_form_outlive_their_daemons_and_k3s_comes_back(tmp_path: Path) -> None:
    secrets = prepare_secrets(tmp_path / "secrets")
    both = (NAMES[N1], NAMES[N2])
    async with two_nodes(tmp_path) as (one, two, nursery):
        await one.start(nursery)
        initialise = ClusterOrder(seat="initialiser", plan=planned(secrets), formed=False)
        await one.obey(initialise)
        await one.until(lambda said: said.endpoint and said.voters == both[:1])
        await two.start(nursery)
        await two.obey(server_order(secrets))
        await one.until(lambda said: said.voters == both)
        await two.until(lambda said: said.state == "ready" and said.voters == both)
        assert one.said.kube_system_uid == two.said.kube_system_uid
        assert (one.folder / "etc/k3s.yaml").is_file()

        await one.obey(replace(initialise, formed=True, join=(ADDRESSES[N2],)))
        manifests = one.folder / "data/server/manifests"
        await one.until(lambda _: (manifests / "meshd-cluster.yaml").exists())
        drop_in = (one.folder / "etc/config.yaml.d/50-meshd.yaml").read_text()
        assert f"server: https://{ADDRESSES[N2]}:6443" in drop_in
        assert "cluster-init" not in drop_in

        before = one.k3s
        await one.kill()
        one.said = K3sObserved(state="absent")
        await one.start(nursery)
        await one.until(lambda said: said.state == "ready")
        assert one.k3s == before, "the daemon's death does not touch k3s"

        os.kill(before, signal.SIGKILL)
        await one.until(lambda said: said.state == "starting")
        await one.until(lambda said: said.state == "ready" and said.voters == both)
        assert one.k3s != before
        assert one.said.kube_system_uid == two.said.kube_system_uid


async def test_a_server_with_another_clusters_token_says_so(tmp_path: Path) -> None:
    secrets = prepare_secrets(tmp_path / "secrets")
    wrong = prepare_secrets(tmp_path / "wrong")
    forged = replace(planned(secrets), token_commitment=wrong.token_commitment)
    order = replace(server_order(secrets), plan=forged, sealed=server_order(wrong).sealed)
    async with two_nodes(tmp_path) as (one, two, nursery):
        await one.start(nursery)
        await one.obey(ClusterOrder(seat="initialiser", plan=planned(secrets), formed=False))
        await one.until(lambda said: said.state == "ready")
        await two.start(nursery)
        await two.obey(order)
        await two.until(lambda said: said.state == "failed")
        assert two.said.waiting_for == "the server refused this node's token"
        assert one.said.voters == (NAMES[N1],)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
