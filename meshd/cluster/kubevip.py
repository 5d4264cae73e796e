"""The virtual address on this node: whether it answers, and that it never stays where it must not.

kube-vip does not fence: killed, it leaves the address on the interface beside the new owner's (seen
for over 20 s); and it keeps the address on a node whose k3s was stopped, as long as that is down.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import trio

from meshd.cluster.k3s import Lease, client_for, get, trusting
from meshd.cluster.paths import API_PORT
from meshd.cluster.plan import url_of
from meshd.holder import processes

API_DEAD_S = 5.0
"""How long this node's API may be silent before the address is taken from the node."""

PROBE_TIMEOUT_S = 1.0


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an interface, as `ip -json address` has it."""

    local: str = ""
    prefixlen: int = 0


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface of this machine with its addresses in the kernel's order."""

    ifname: str
    addr_info: tuple[Address, ...] = ()


@dataclass(slots=True)
class Guardian:
    """Decides when the address must leave this node. Pure; times are seconds of one clock.

    Args:
        node_name: ours, as it stands in the Lease.
        lease_duration_s: after which a holder that renews is the only one.
    """

    node_name: str
    lease_duration_s: float
    _other_since: float | None = None
    _renewed: str = ""
    _dead_since: float | None = None

    def verdict(self, *, lease: Lease | None, api_answers: bool, now: float) -> str | None:
        """Return why the address must not be here, or None. Call it at every look."""
        if api_answers:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = now
        if self._dead_since is not None:
            self._other_since = None
            dead_s = now - self._dead_since
            return f"k3s here is silent for {dead_s:.0f} s" if dead_s >= API_DEAD_S else None
        if lease is None or lease.holder == self.node_name:
            self._other_since = None
            return None
        if self._other_since is None:
            self._other_since, self._renewed = now, lease.renewed
        elapsed_s = now - self._other_since
        if elapsed_s >= self.lease_duration_s and lease.renewed != self._renewed:
            return f"{lease.holder} holds the Lease for {elapsed_s:.0f} s"
        return None


class VipProbe:
    """Asks the address whether a k3s API answers there, over a kept connection."""

    def __init__(self, address: str, authority: Path, *, port: int = API_PORT) -> None:
        self._base = url_of(address, port)
        self._authority = authority
        self._client: httpx.AsyncClient | None = None

    async def answers(self) -> bool:
        """Whether `/ping` at the address is answered by a server of this cluster."""
        if self._client is None:
            try:
                context = trusting(self._authority)
            except OSError:  # The authority is not there yet; ssl.SSLError is an OSError.
                return False
            self._client = client_for(self._base, context, timeout_s=PROBE_TIMEOUT_S)
        for _ in range(2):  # A kept connection breaks when the address moves: that is no answer.
            answer = await get(self._client, "/ping")
            if isinstance(answer, httpx.Response):
                return answer.status_code == httpx.codes.OK
        return False

    async def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            await self._client.aclose()
        self._client = None


def is_here(address: str) -> bool:
    """Whether this machine has the address; costs no process, and may be wrong towards True.

    A program may bind to an address that the machine has (or to any, with `ip_nonlocal_bind`).
    Whatever else forbids it, such as too many open files, says nothing about the address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        # EAFNOSUPPORT: a kernel without IPv6 has no address of it.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


async def interfaces() -> tuple[Interface, ...]:
    """Return this machine's interfaces with their addresses, as `ip` lists them.

    Raises:
        OSError: `ip` is missing or failed.
    """
    return msgspec.json.decode(
        await _ip("-json", "address", "show"), type=tuple[Interface, ...], strict=False
    )


def interface_of(interfaces: tuple[Interface, ...], address: str | None) -> str | None:
    """Return the name of the interface that has the address."""
    for interface in interfaces:
        if any(held.local == address for held in interface.addr_info):
            return interface.ifname
    return None


def flannel_interface(interfaces: tuple[Interface, ...], node_ip: str | None) -> str | None:
    """Return the interface to name to flannel: the one whose first address is the node's.

    Without a name flannel takes the one with the default route; with one it takes its first
    address, which a left-over VIP can be.
    """
    if node_ip is None:
        return None
    for interface in interfaces:
        same_family = [a.local for a in interface.addr_info if (":" in a.local) == (":" in node_ip)]
        if same_family[:1] == [node_ip]:
            return interface.ifname
    return None


async def remove_address(address: str) -> bool:
    """Take kube-vip's address (a single one: /32 or /128) from this machine; False: it has none.

    Raises:
        OSError: `ip` is missing or failed.
    """
    single = 128 if ":" in address else 32
    removed = False
    for interface in await interfaces():
        for held in interface.addr_info:
            if held.local == address and held.prefixlen == single:
                await _ip("address", "del", f"{address}/{single}", "dev", interface.ifname)
                removed = True
    return removed


def stop_kube_vip() -> int:
    """Ask kube-vip in this machine's network to end and give up its Lease; return how many.

    Only of use while k3s is down: its kubelet would start it again.
    """
    stopped = 0
    for pid, _ in processes.all_processes():
        try:
            named = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "kube-vip"
            if named and processes.shares_network(pid):
                os.kill(pid, signal.SIGTERM)
                stopped += 1
        except OSError:
            continue  # It ended meanwhile, or is no business of ours.
    return stopped


async def _ip(*arguments: str) -> bytes:
    try:
        done = await trio.run_process(
            ["ip", *arguments], capture_stdout=True, capture_stderr=True, check=True
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise OSError(errno.EIO, f"ip {' '.join(arguments)}: {said}") from error
    return done.stdout
