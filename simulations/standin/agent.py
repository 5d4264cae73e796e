"""k3s agent: waits for ever for its server, registers its Node, reports every ten seconds.

What it does not do is run anything: there are no pods.
"""

from __future__ import annotations

import asyncio
import json
import platform
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simulations.standin.addresses import node_address
from simulations.standin.balancer import PORT, Balancer
from simulations.standin.kube import stamp, with_condition
from simulations.standin.layout import Layout, write
from simulations.standin.log import fatal, log, note
from simulations.standin.options import VERSION, Options
from simulations.standin.supervisor import Supervisor, Untrusted, refusal
from simulations.standin.tokens import Token, parse_token
from simulations.standin.wire import Answer, Client, Unreachable

HEARTBEAT_INTERVAL_S = 10.0
_LEARN_INTERVAL_S = 5.0  # k3s watches the list of servers and learns at once.
_RETRY_INTERVAL_S = 2.0
_ASK_LIMIT_S = 5.0
_NODES = "/api/v1/nodes"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the Node object says about its machine."""

    name: str
    address: str
    labels: tuple[str, ...]
    taints: tuple[str, ...]
    server: bool


async def run_agent(options: Options) -> None:
    """Be a worker, for ever."""
    if options.token is None:
        raise fatal("Error: --token is required")
    if options.server is None:
        raise fatal("Error: --server is required")
    target = urlsplit(options.server)
    first = f"{target.netloc}" if target.port else f"{target.netloc}:6443"
    state = options.layout.agent / "etc" / "k3s-agent-load-balancer.json"
    balancer = Balancer(first, state)
    facts = node_facts(options, server=False)
    with closing(await balancer.listen()):  # As in server.py: waits for no client.
        agent = Agent(
            layout=options.layout,
            facts=facts,
            token=parse_token(options.token),
            balancer=balancer,
            shown_url=options.server,
        )
        await agent.run(f"https://127.0.0.1:{PORT}")


def node_facts(options: Options, *, server: bool) -> NodeFacts:
    """Collect what this machine's Node will say."""
    return NodeFacts(
        name=options.node_name,
        address=node_address(options.node_ips, options.flannel_iface),
        labels=options.node_labels,
        taints=options.node_taints,
        server=server,
    )


class Agent:
    """One node's reports to whichever server the balancer reaches."""

    def __init__(
        self,
        *,
        layout: Layout,
        facts: NodeFacts,
        token: Token,
        balancer: Balancer | None,
        shown_url: str,
    ) -> None:
        self._layout = layout
        self._facts = facts
        self._token = token
        self._balancer = balancer
        self._shown_url = shown_url

    async def run(self, url: str) -> None:
        """Register through the server at `url`, then report, for ever."""
        supervisor = await self._trusted(url)
        await self._configured(supervisor)
        await self._certified(supervisor)
        kubelet = _Kubelet(self._layout, url)
        while not await kubelet.registered(self._facts):
            self._move_on()
            await asyncio.sleep(_RETRY_INTERVAL_S)
        note(f"node {self._facts.name} is registered")
        report_at = time.monotonic()
        while True:
            # A new connection each time, so that a silent server is noticed and left.
            served = await self._learned(supervisor)
            if served and time.monotonic() >= report_at:
                served = await _Kubelet(self._layout, url).reported(self._facts)
                report_at = time.monotonic() + HEARTBEAT_INTERVAL_S
            if not served:
                self._move_on()
                report_at = time.monotonic()
            await asyncio.sleep(_LEARN_INTERVAL_S if served else _RETRY_INTERVAL_S)

    async def _trusted(self, url: str) -> Supervisor:
        while True:
            try:
                return await Supervisor.trust(url, self._token)
            except Untrusted as error:
                where = self._shown_url
                log("error", f"Failed to validate connection to cluster at {where}: {error}")
                self._move_on()
            await asyncio.sleep(_RETRY_INTERVAL_S)

    async def _configured(self, supervisor: Supervisor) -> None:
        waiting = "Waiting to retrieve agent configuration; server is not ready"
        while True:
            problem = await _problem(supervisor, "/v1-k3s/config")
            if problem is None:
                return
            log("info", f"{waiting}: failed to retrieve configuration from server: {problem}")
            self._move_on()
            await asyncio.sleep(_RETRY_INTERVAL_S)

    async def _certified(self, supervisor: Supervisor) -> None:
        """Fetch the kubelet's certificate with this node's own password."""
        headers = {
            "K3s-Node-Name": self._facts.name,
            "K3s-Node-Password": _node_password(self._layout.node_password),
        }
        agent = self._layout.agent
        waiting = "Waiting to retrieve agent configuration; server is not ready"
        while True:
            try:
                answer = await supervisor.ask(
                    "/v1-k3s/client-kubelet.crt", user="node", method="POST", headers=headers
                )
                if answer.status == 200:
                    write(agent / "server-ca.crt", supervisor.ca)
                    end = b"-----END CERTIFICATE-----\n"
                    certificate, _, key = answer.body.rpartition(end)
                    write(agent / "client-kubelet.key", key)
                    write(agent / "client-kubelet.crt", certificate + end)
                    return
                problem = _certificate_problem(answer)
            except Unreachable as error:
                problem = str(error)
            log("info", f"{waiting}: {problem}")
            self._move_on()
            await asyncio.sleep(_RETRY_INTERVAL_S)

    async def _learned(self, supervisor: Supervisor) -> bool:
        """Ask for the list of servers; returns whether the server in use serves."""
        if self._balancer is None:
            return True
        supervisor.close()
        try:
            answer = await supervisor.ask("/v1-k3s/apiservers", user="node", timeout_s=_ASK_LIMIT_S)
        except Unreachable as error:
            log("warning", f"Failed to list servers: {error}")
            return False
        if answer.status == 200:
            self._balancer.learn(answer.json())
        return answer.status == 200

    def _move_on(self) -> None:
        if self._balancer is not None:
            self._balancer.move_on()


class _Kubelet:
    """The Node's own calls to the API server, with its client certificate."""

    def __init__(self, layout: Layout, url: str) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(layout.agent / "server-ca.crt")
        agent = layout.agent
        tls.load_cert_chain(agent / "client-kubelet.crt", agent / "client-kubelet.key")
        self._client = Client(tls)
        self._url = url

    async def registered(self, facts: NodeFacts) -> bool:
        """Create or refresh the Node; returns whether that worked."""
        if not await self.reported(facts):
            return False
        node = _node(facts)
        answer = await self._ask("POST", _NODES, node)
        if answer is not None and answer.status == 409:
            patch = {"metadata": {"labels": node["metadata"]["labels"]}, "spec": node["spec"]}
            answer = await self._ask("PATCH", f"{_NODES}/{facts.name}", patch)
        return answer is not None and answer.status in {200, 201}

    async def reported(self, facts: NodeFacts) -> bool:
        """Renew the node's lease; returns whether that worked."""
        spec = {"holderIdentity": facts.name, "leaseDurationSeconds": 40}
        fields = {
            "metadata": {"name": facts.name},
            "spec": {**spec, "renewTime": stamp(micro=True)},
        }
        answer = await self._ask("PUT", f"{_LEASES}/{facts.name}", fields)
        if answer is not None and answer.status == 404:
            answer = await self._ask("POST", _LEASES, fields)
        self._client.close()
        return answer is not None and answer.status in {200, 201}

    async def _ask(self, method: str, path: str, fields: Mapping[str, Any]) -> Answer | None:
        try:
            answer = await self._client.request(
                method,
                self._url + path,
                headers={"Content-Type": "application/json"},
                body=json.dumps(fields).encode(),
                timeout_s=_ASK_LIMIT_S,
            )
        except Unreachable as error:
            log("warning", f"Failed to report to the API server: {error}")
            return None
        if answer.status >= 500:
            log("warning", f"Failed to report to the API server: {refusal(answer)}")
        return answer


async def _problem(supervisor: Supervisor, path: str) -> str | None:
    """Ask as `node`; returns None if the answer was 200, else what was wrong."""
    try:
        answer = await supervisor.ask(path, user="node", timeout_s=_ASK_LIMIT_S)
    except Unreachable as error:
        return str(error)
    return None if answer.status == 200 else refusal(answer)


def _certificate_problem(answer: Answer) -> str:
    if answer.status == 403:
        return (
            "Node password rejected, duplicate hostname or contents of"
            " '/etc/rancher/node/password' may not match server node-passwd entry, try enabling"
            " a unique node name with the --with-node-id flag"
        )
    return refusal(answer)


def _node_password(path: Path) -> str:
    if not path.is_file():
        write(path, secrets.token_hex(16) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _node(facts: NodeFacts) -> dict[str, Any]:
    labels = {
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
        "node.kubernetes.io/instance-type": "k3s-stand-in",
    }
    if facts.server:
        labels["node-role.kubernetes.io/control-plane"] = "true"
        labels["node-role.kubernetes.io/etcd"] = "true"
    labels |= dict(label.split("=", 1) for label in facts.labels if "=" in label)
    node: dict[str, Any] = {
        "metadata": {"name": facts.name, "labels": labels, "annotations": {}},
        "spec": {"taints": [_taint(text) for text in facts.taints]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": facts.address},
                {"type": "Hostname", "address": socket.gethostname()},
            ],
            "nodeInfo": _node_system(),
        },
    }
    return with_condition(node, "Ready", "True", "KubeletReady", "the stand-in reports")


def _node_system() -> dict[str, str]:
    """Return all fields of NodeSystemInfo, which the Kubernetes clients insist on."""
    return {
        "architecture": _architecture(),
        "bootID": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "containerRuntimeVersion": "none://stand-in",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": VERSION,
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "stand-in, not k3s",
        "systemUUID": "",
    }


def _architecture() -> str:
    """Return Go's name of this machine's architecture."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}
