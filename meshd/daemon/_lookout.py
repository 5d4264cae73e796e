"""What is wrong with this machine itself, as far as it changes while the daemon runs.

Each finding is made anew at every look, so it goes by itself once its cause is gone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from ledger import NodeId
from meshd.clock import read_moment
from meshd.cluster import API_PORT, SERVER_PORTS, K3sCluster, is_here
from meshd.config import Network, Settings, day_of, judge_expiry
from meshd.daemon._vip import vip_items
from meshd.errors import ConfigError
from meshd.events import Health
from meshd.listeners import taken_ports
from meshd.machine import read_address_problem, read_interfaces, read_node_ip
from meshd.schema import CLOCK_MIN_MS
from roles import ClusterPlan

TakenPorts = Sequence[tuple[int, str | None]]

VIP_INTERVAL_S = 5.0
VIP_TIMEOUT_S = 4.0  # The kernel gives up on an address that nobody has after 3 s (arp(7)).


@dataclass(slots=True, kw_only=True)
class Lookout:
    """Looks at this machine.

    Args:
        settings: the daemon's.
        cluster: k3s here, whose ports are its own once it has begun.
        node: this one.
        is_new: this machine had no identity when the daemon started.
        vip_answers: whether somebody has the virtual address before there is a cluster.
    """

    settings: Settings
    cluster: K3sCluster
    node: NodeId
    is_new: bool
    vip_answers: bool = False

    def node_ip(self) -> str | None:
        """Return the address that k3s would use now."""
        return read_node_ip(wanted=self.settings.interface, vip=self.settings.vip)

    def blocked(self, plan: ClusterPlan | None) -> str | None:
        """Return why this machine cannot be a server, as a clause; None if it can, or is."""
        if self.cluster.has_begun:
            return None
        if not self.cluster.is_installed:
            return "k3s is not installed on it"
        taken = self.vip_answers and plan is None
        return (
            ports_problem(taken_ports(SERVER_PORTS))
            or self._address_problem()
            or (vip_problem(self.settings.vip) if taken else None)
        )

    async def watch_vip(self, plan: Callable[[], ClusterPlan | None]) -> None:
        """Ask until there is a plan whether somebody has the virtual address already.

        Afterwards it is the cluster's own. Whoever answers neither with a connection nor with a
        refusal is not noticed: a firewall that swallows everything looks like that, too.
        """
        vip = self.settings.vip
        if vip is None or self.settings.role in ("worker", "none"):
            return
        if not self.is_new:
            await trio.sleep(VIP_INTERVAL_S)  # Until the plan on its disk was read.
        while plan() is None:
            self.vip_answers = not is_here(vip) and await somebody_answers(vip)
            await trio.sleep(VIP_INTERVAL_S)

    def health(self, plan: ClusterPlan | None) -> tuple[Health, ...]:
        """Return what is wrong now, under the decided plan."""
        settings = self.settings
        items: list[Health] = []
        if self.is_new:
            items += unjudged_token(settings.network, wall_ms=read_moment().wall_ms)
        if settings.role == "none":
            return tuple(items)
        seat = plan.seat_of(self.node) if plan is not None else None
        planned = seat.node_ip if seat is not None else self.cluster.frozen_address()
        if plan is not None and seat is not None and settings.kubevip is not None:
            names = [name for _, name in socket.if_nameindex()]
            items += vip_items(settings.kubevip, plan, names)
        if planned is not None:
            items += moved_item(planned, _held_addresses())
        elif (problem := self._address_problem()) is not None:
            items += address_item(problem, has_address=self.node_ip() is not None)
        if not self.cluster.has_begun:
            items += taken_ports_item(taken_ports(SERVER_PORTS))
        if not self.cluster.is_installed:
            items.append(NO_K3S)
        if self.vip_answers and plan is None:
            items += vip_item(self.settings.vip)
        return tuple(items)

    def _address_problem(self) -> str | None:
        return read_address_problem(wanted=self.settings.interface, vip=self.settings.vip)


NO_K3S = Health(
    code="MESH-3312",
    severity="error",
    message="k3s is not installed on this machine: it gets no seat, and cannot work either",
    fix="put k3s at /usr/local/bin/k3s, or name it in MESHD_K3S_BIN; meshd finds it by itself",
)


async def somebody_answers(address: str) -> bool:
    """Whether a TCP connection to the API's port at `address` is accepted or refused."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with trio.move_on_after(VIP_TIMEOUT_S), trio.socket.socket(family) as sock:
        try:
            await sock.connect((address, API_PORT))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # Nobody has it, or there is no way to it.
        return True
    return False


def vip_problem(vip: str | None) -> str:
    """Return what is wrong with a virtual address that somebody has, as a clause."""
    return f"the virtual address {vip} is taken: a machine answers there already"


def vip_item(vip: str | None) -> tuple[Health, ...]:
    """Say that no cluster may begin with this virtual address."""
    return (
        Health(
            code="MESH-3114",
            severity="error",
            message=f"no cluster is begun: {vip_problem(vip)}",
            fix="set kubevip.eip to a free address on all machines, or take it from that machine "
            f"(`ip neigh show {vip}` has its hardware address)",
        ),
    )


def _held_addresses() -> frozenset[str]:
    return frozenset(
        str(address.ip) for interface in read_interfaces() for address in interface.addresses
    )


def refuse_expired_token(network: Network, *, wall_ms: int) -> None:
    """Keep a machine that is new to the network from joining with an expired token.

    For machines without an identity: one that has joined before goes on with its token.

    Raises:
        ConfigError: the token's last day is over, by a clock that was set.
    """
    if judge_expiry(network.expires, wall_ms=wall_ms, wall_ms_min=CLOCK_MIN_MS) != "expired":
        return
    raise ConfigError(
        "MESH-1070",
        f"the token of network {network.network_id} expired on {network.expires}: this machine, "
        "which has not joined it before, does not start to",
        cause=f"this machine's clock says {day_of(wall_ms)}",
        fix="put a new token into the file, made with `meshd token join --expires 7d` on a machine "
        "of that network; or set the clock, if it is wrong",
    )


def unjudged_token(network: Network, *, wall_ms: int) -> tuple[Health, ...]:
    """Say that a new machine joined with a token whose last day its clock cannot judge."""
    if judge_expiry(network.expires, wall_ms=wall_ms, wall_ms_min=CLOCK_MIN_MS) != "unknown":
        return ()
    return (
        Health(
            code="MESH-1071",
            severity="warning",
            message=f"this machine joined with a token that is for use until {network.expires}, "
            f"and cannot tell whether that day is over: its clock says {day_of(wall_ms)}",
            fix="set the clock; if the token had expired, and this machine should not be here, "
            "take it away",
        ),
    )


def ports_problem(taken: TakenPorts) -> str | None:
    """Return which ports of k3s other programs have, as a clause; None if they are free."""
    if not taken:
        return None
    each = [f"{port} by {holder or 'a program'}" for port, holder in taken]
    plural = "s" if len(taken) > 1 else ""
    return f"k3s' port{plural} on it {'are' if plural else 'is'} taken: {', '.join(each)}"


def taken_ports_item(taken: TakenPorts) -> tuple[Health, ...]:
    """Say that k3s could not listen here."""
    problem = ports_problem(taken)
    if problem is None:
        return ()
    return (
        Health(
            code="MESH-3110",
            severity="error",
            message=f"this machine gets no seat in the control plane: {problem}",
            fix="stop that program, or give it another port; meshd looks again every few seconds",
        ),
    )


def address_item(problem: str | None, *, has_address: bool) -> tuple[Health, ...]:
    """Say what is wrong with this machine's address."""
    if problem is None:
        return ()
    if not has_address:
        return (
            Health(
                code="MESH-3111",
                severity="error",
                message=f"this machine has no address that k3s could use: {problem}",
                fix="connect a network, or wait for DHCP; it goes on by itself once there is one",
            ),
        )
    return (
        Health(
            code="MESH-3113",
            severity="error",
            message=f"this machine gets no seat in the control plane: {problem}",
            fix="connect that network, or correct kubevip.eip; if this is meant to be so, name the "
            "interface for k3s at p2p.meshd.interface",
        ),
    )


def moved_item(planned: str | None, held: Collection[str]) -> tuple[Health, ...]:
    """Say that this machine lost the address by which the cluster knows it."""
    if planned is None or planned in held:
        return ()
    now = f"has {', '.join(sorted(held))} now" if held else "has none now"
    return (
        Health(
            code="MESH-3112",
            severity="error",
            message=f"the cluster knows this machine at {planned}, but it {now}",
            fix=f"give it {planned} back (a fixed address, or a reservation in DHCP): etcd and the "
            "other nodes keep to it, and k3s goes on by itself then. If the servers' addresses are "
            "gone for good: `meshd bootstrap reset --readdress`, docs/reset.md",
        ),
    )


SLOW_WRITE_S = 5.0
"""A guess: cards and USB sticks were seen to take one or two seconds now and then."""


def slow_disk_item(slow_s: float, folder: Path) -> tuple[Health, ...]:
    """Say that the write under way does not end."""
    if slow_s < SLOW_WRITE_S:
        return ()
    return (
        Health(
            code="MESH-2030",
            severity="error",
            message=f"the disk that holds {folder} has not finished a write for over "
            f"{SLOW_WRITE_S:.0f} s: this node neither votes nor publishes anything meanwhile",
            fix="look at the disk (dmesg, smartctl) and at what else keeps it busy; the node goes "
            "on by itself as soon as the write ends",
        ),
    )
