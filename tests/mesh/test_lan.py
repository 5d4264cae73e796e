"""Meshes on a LAN of network namespaces: discovery, a cut link, moving addresses, idle traffic."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

PROGRAM = Path(__file__).with_name("lan_program.py")
PATIENCE_S = 40.0

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and iproute2, for network namespaces",
    ),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Lan:
    """A switch and machines on it, each a network namespace."""

    def __init__(self) -> None:
        self._prefix = f"mesh-{secrets.token_hex(3)}"
        self._machines: list[str] = []
        self._has_second = False
        self.switch = f"{self._prefix}-sw"
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", self.switch, "link", "set", "br0", "up")

    def add(self, name: str) -> str:
        """Plug in a machine, without an IPv4 address."""
        namespace = f"{self._prefix}-{name}"
        ip("netns", "add", namespace)
        self._machines.append(namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        ends = ("eth0", "netns", namespace, "type", "veth", "peer", "name", name)
        ip("link", "add", *ends, "netns", self.switch)
        ip("-n", self.switch, "link", "set", name, "master", "br0", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        return namespace

    def add_card(self, namespace: str, name: str) -> None:
        """Give a machine a second card, on a switch of its own."""
        if not self._has_second:
            ip("-n", self.switch, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0")
            ip("-n", self.switch, "link", "set", "br1", "up")
            self._has_second = True
        ends = ("eth1", "netns", namespace, "type", "veth", "peer", "name", f"{name}-1")
        ip("link", "add", *ends, "netns", self.switch)
        ip("-n", self.switch, "link", "set", f"{name}-1", "master", "br1", "up")
        ip("-n", namespace, "link", "set", "eth1", "up")

    def unplug(self, name: str) -> None:
        """Drop every packet of a machine, in silence."""
        ip("-n", self.switch, "link", "set", name, "nomaster")

    def plug(self, name: str) -> None:
        ip("-n", self.switch, "link", "set", name, "master", "br0")

    def remove(self) -> None:
        for namespace in [*self._machines, self.switch]:
            ip("netns", "del", namespace)


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan()
    try:
        yield made
    finally:
        made.remove()


class Node:
    """A running `lan_program.py`."""

    def __init__(self, namespace: str, process: trio.Process) -> None:
        self.namespace = namespace
        self.process = process
        self.node_id = ""
        self._lines: list[list[str]] = []
        self.seen: list[list[str]] = []
        self._held = b""

    async def until(self, *words: str) -> list[str]:
        """Return the next line that begins with `words`; lines before it are gone."""
        with trio.fail_after(PATIENCE_S):
            while True:
                while self._lines:
                    line = self._lines.pop(0)
                    self.seen.append(line)
                    if tuple(line[: len(words)]) == words:
                        return line
                assert self.process.stdout is not None
                self._held += await self.process.stdout.receive_some()
                *whole, self._held = self._held.split(b"\n")
                self._lines += [json.loads(line) for line in whole]

    async def cpu_s(self) -> float:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"?\n")
        return float((await self.until("cpu"))[1])

    async def health(self) -> list[str]:
        """Return what is wrong with its mesh, a sentence each."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"?\n")
        return (await self.until("health"))[1:]

    async def until_health(self, suits: Callable[[list[str]], bool]) -> list[str]:
        """Ask until the answer suits, and return it."""
        with trio.fail_after(PATIENCE_S):
            while not suits(said := await self.health()):
                await trio.testing.wait_all_tasks_blocked(0.2)
            return said

    def received_bytes(self) -> int:
        counter = "/sys/class/net/eth0/statistics/rx_bytes"
        command = ["ip", "netns", "exec", self.namespace, "cat", counter]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)


async def start(nursery: trio.Nursery, namespace: str, name: str, *seeds: str) -> Node:
    command = ["ip", "netns", "exec", namespace, sys.executable, str(PROGRAM), name, *seeds]
    pipe = subprocess.PIPE
    process = await nursery.start(
        partial(trio.run_process, command, stdin=pipe, stdout=pipe, check=False)
    )
    return Node(namespace, process)


async def begin(*nodes: Node) -> None:
    for node in nodes:
        node.node_id = (await node.until("up"))[1]


async def test_a_cut_link_is_noticed_and_a_mended_one_found_again(
    lan: Lan, nursery: trio.Nursery
) -> None:
    machines = [lan.add(name) for name in ("n1", "n2")]
    for number, machine in enumerate(machines, start=1):
        ip("-n", machine, "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
    one, other = [await start(nursery, machine, machine) for machine in machines]
    await begin(one, other)
    await one.until("connected", other.node_id)
    await other.until("connected", one.node_id)
    await one.until("observed", other.node_id, "alive")
    lan.unplug("n2")
    cut_at = trio.current_time()
    await one.until("observed", other.node_id, "suspect")
    assert 1.5 < trio.current_time() - cut_at < 4.5
    await one.until("observed", other.node_id, "failed")
    assert trio.current_time() - cut_at < 8
    await other.until("observed", one.node_id, "failed")
    lan.plug("n2")
    healed_at = trio.current_time()
    await one.until("connected", other.node_id)
    await other.until("connected", one.node_id)
    assert trio.current_time() - healed_at < 10
    for node in (one, other):
        node.process.terminate()


async def test_link_local_addresses_are_enough_and_new_ones_are_published(
    lan: Lan, nursery: trio.Nursery
) -> None:
    machines = [lan.add(name) for name in ("n1", "n2")]
    one, other = [await start(nursery, machine, machine) for machine in machines]
    await begin(one, other)
    await one.until("connected", other.node_id)
    ip("-n", machines[0], "addr", "add", "10.9.0.1/24", "dev", "eth0")
    ip("-n", machines[0], "addr", "add", "10.9.0.50/32", "dev", "eth0")
    assert await one.until("addresses") == ["addresses", "/ip4/10.9.0.1/tcp/7946"]
    for node in (one, other):
        node.process.terminate()


HOLD_BEACON_PORT = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 7946))
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def beacon_port_taken(namespace: str) -> Iterator[None]:
    """Have a program hold the beacon's port for IPv4 on a machine."""
    hold = ["ip", "netns", "exec", namespace, sys.executable, "-c", HOLD_BEACON_PORT]
    pipe = subprocess.PIPE
    with subprocess.Popen(hold, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        yield
        holder.communicate()


def cannot_be_called(namespace: str, card: str) -> None:
    """Let a machine call over a card, and nobody call it."""
    for rule in (
        "add table inet t",
        "add chain inet t in { type filter hook input priority 0; }",
        f"add rule inet t in iifname {card} tcp dport 7946 drop",
    ):
        subprocess.run(["ip", "netns", "exec", namespace, "nft", *rule.split(" ")], check=True)


def can_be_called_again(namespace: str) -> None:
    command = ["ip", "netns", "exec", namespace, "nft", "delete", "table", "inet", "t"]
    subprocess.run(command, check=True)


async def test_a_taken_beacon_port_is_named_and_used_once_it_is_free(
    lan: Lan, nursery: trio.Nursery
) -> None:
    machines = [lan.add(name) for name in ("n1", "n2")]
    for number, machine in enumerate(machines, start=1):
        ip("-n", machine, "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
    with beacon_port_taken(machines[0]):
        one, other = [await start(nursery, machine, machine) for machine in machines]
        await begin(one, other)
        await one.until("connected", other.node_id)  # Over IPv6 they find each other all the same.
        (said,) = await one.until_health(bool)
        assert "UDP port 7946 (IPv4): Address already in use" in said
        assert await other.health() == []
    await one.until_health(lambda items: not items)
    for node in (one, other):
        node.process.terminate()


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nftables")
async def test_two_cards_are_one_peer_and_one_of_them_is_enough(
    lan: Lan, nursery: trio.Nursery
) -> None:
    machines = [lan.add(name) for name in ("n1", "n2")]
    for number, machine in enumerate(machines, start=1):
        lan.add_card(machine, f"n{number}")
        ip("-n", machine, "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
        ip("-n", machine, "addr", "add", f"10.8.0.{number}/24", "dev", "eth1")
    for machine in machines:
        cannot_be_called(machine, "eth0")  # So that the first connection is over the other card.
    one, other = [await start(nursery, machine, machine) for machine in machines]
    await begin(one, other)
    await one.until("connected", other.node_id)
    await other.until("connected", one.node_id)
    can_be_called_again(machines[0])
    lan.unplug("n2-1")
    await one.until("connected", other.node_id)
    await other.until("connected", one.node_id)
    # What each ever heard of was one peer.
    assert {line[1] for line in one.seen if line[0] == "connected"} == {other.node_id}
    assert {line[1] for line in other.seen if line[0] == "connected"} == {one.node_id}
    for node in (one, other):
        node.process.terminate()


@pytest.mark.timeout(180)
async def test_an_idle_neighbour_costs_under_a_quarter_kilobyte_a_second(
    lan: Lan, nursery: trio.Nursery
) -> None:
    machines = [lan.add(name) for name in ("n1", "n2", "n3")]
    for number, machine in enumerate(machines, start=1):
        ip("-n", machine, "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
    seeds = [f"/ip4/10.9.0.{number}/tcp/7946" for number in (1, 2, 3)]
    nodes = [await start(nursery, machine, machine, *seeds) for machine in machines]
    await begin(*nodes)
    for node in nodes:
        for peer in nodes:
            if peer is not node:
                await node.until("observed")
    await trio.sleep(4)  # IPv6 looks for duplicates and routers when an interface is new.
    before = [(node.received_bytes(), await node.cpu_s()) for node in nodes]
    await trio.sleep(8)  # The measured time.
    after = [(node.received_bytes(), await node.cpu_s()) for node in nodes]
    rates = [(new[0] - old[0]) / 8 / 2 for old, new in zip(before, after, strict=True)]
    # Of 250 B/s, 40 are left to the ledger's anti-entropy and to beacons.
    assert max(rates) < 210
    assert sum(rates) / 3 < 180
    assert max(new[1] - old[1] for old, new in zip(before, after, strict=True)) < 0.08
    for node in nodes:
        node.process.terminate()
