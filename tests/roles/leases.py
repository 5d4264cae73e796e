"""Leases at a table: what several tests of them do."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import Instant
from roles import Bounds, GenesisState, K3sReading
from roles._messages import LeaseMessage, read_frame
from roles._state import LeaseState
from tests.roles.table import THREE, Table
from tests.roles.world import signer_of

ALL_OF_THREE = Bounds.bounded(control_plane=3, nodes_max=3)


def leased(bounds: Bounds = THREE, size: int = 3) -> Table:
    """Return a table at which STARTED of a leased plan is decided, and the lease begins."""
    table = Table(bounds)
    table.seat(*range(1, size + 1), fuse=True)
    table.look_around()
    if not table.posted:
        table.wait(1.6)
    table.settle()
    return table


def state(table: Table, number: int) -> GenesisState:
    return table.machines[number].state


def lease(table: Table, number: int) -> LeaseState:
    found = state(table, number).lease
    assert found is not None
    return found


def pass_time(table: Table, seconds: float, *, silent: Sequence[int] = ()) -> None:
    """Let time pass in small steps; what `silent` nodes send or should get is lost."""
    end = table.now + seconds
    while table.now < end:
        table.wait(min(0.5, end - table.now))
        for _ in range(8):
            table.posted = [p for p in table.posted if not {p.sender, p.to} & set(silent)]
            table.deliver()


def run_split(table: Table, seconds: float, apart: Sequence[int]) -> None:
    """Let time pass; what crosses the line between `apart` and the others is lost."""
    end = table.now + seconds
    while table.now < end:
        table.wait(min(0.5, end - table.now))
        for _ in range(8):
            whole = [p for p in table.posted if (p.sender in apart) == (p.to in apart)]
            table.posted = whole
            table.deliver()


def stop_k3s(table: Table, *numbers: int) -> None:
    """Let the shell say that k3s of the present plan is down."""
    for number in numbers:
        plan = state(table, number).plan
        assert plan is not None
        reading = K3sReading(stopped=(plan.cluster_id,))
        machine = table.machines[number]
        table.perform(number, machine.observe(reading, Instant(table.now)))


def part(table: Table, *alone: int) -> None:
    """Let everyone see that these nodes are not connected any more."""
    for number, machine in table.machines.items():
        there = [n for n in table.machines if n != number and (n in alone) == (number in alone)]
        peers = [signer_of(n).node_id for n in there]
        candidates = list(table.candidates.values())
        table.perform(number, machine.update(candidates, peers, Instant(table.now)))


def messages(table: Table, kind: type[LeaseMessage]) -> list[tuple[int, int]]:
    """Return (sender, to) of what is under way of this kind."""
    found = []
    for post in table.posted:
        message = getattr(read_frame(post.frame), "message", None)
        if isinstance(message, kind):
            found.append((post.sender, post.to))
    return found
