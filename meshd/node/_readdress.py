"""`meshd bootstrap reset --readdress`: the seats, once their machines' addresses changed.

Pure. Invariant: a seat's address is the one that its node itself publishes now; what cannot be one
of an etcd member, or of this cluster, is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from meshd.errors import MeshdError
from meshd.node._directory import Directory
from roles import ClusterPlan, Seat
from roles.resets import moved_seats


def seats_now(directory: Directory, plan: ClusterPlan, seats: Sequence[Seat]) -> tuple[Seat, ...]:
    """Return the seats of nodes that are heard, each at the address that its node has now.

    Raises:
        MeshdError: why one of them cannot be taken over so.
    """
    now = tuple(_seat_now(directory, plan, seat) for seat in seats)
    at: dict[str, Seat] = {}
    for seat in now:
        other = at.setdefault(seat.node_ip, seat)
        if other is not seat:
            raise _refusal(
                f"{directory.name(other.node)} and {directory.name(seat.node)} both say that "
                f"their address is {seat.node_ip}",
                fix="give each machine its own",
            )
    if not moved_seats(seats, now):
        raise _refusal(
            "no server that is heard has another address than the cluster knows",
            fix="leave --readdress out",
        )
    return now


def _seat_now(directory: Directory, plan: ClusterPlan, seat: Seat) -> Seat:
    facts, name = directory[seat.node].facts, directory.name(seat.node)
    address = facts.node_ip if facts is not None else None
    if address is None:
        raise _refusal(
            f"{name} has no address that k3s could use now",
            fix="connect its network; `meshd status` there says what is missing",
        )
    if address == plan.vip:
        raise _refusal(
            f"{name} says that its address is {address}, which is the cluster's virtual one",
            fix="give that machine another address",
        )
    if ip_address(address).version != ip_address(seat.node_ip).version:
        raise _refusal(
            f"{name} was at {seat.node_ip} and is at {address} now, of the other IP version: the "
            "cluster's ranges for pods and services are of the first one, for good",
            fix=f"give it an address of IP version {ip_address(seat.node_ip).version}",
        )
    return replace(seat, node_ip=address)


def _refusal(what: str, *, fix: str) -> MeshdError:
    return MeshdError("MESH-4035", what, fix=fix)
