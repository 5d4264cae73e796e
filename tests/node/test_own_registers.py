"""What a node publishes of its links: who is there at once, round trips in their own time."""

from __future__ import annotations

import msgspec

from ledger import Instant, NodeId
from meshd.node._directory import Directory
from meshd.node._registers import LINKS_QUIET_S, NEIGHBOURS_QUIET_S, OwnRegisters
from meshd.schema import K3sRecord, LinkRecord

ME, OTHER = NodeId("12D3KooWme"), NodeId("12D3KooWother")
RECORD = K3sRecord(state="absent", seat="none", cluster_id="", generation=0)


class Table:
    """A node's registers, and what it wrote."""

    def __init__(self) -> None:
        self.directory = Directory(ME)
        self.registers = OwnRegisters(ME)
        self.written: list[tuple[float, tuple[LinkRecord, ...]]] = []
        self.look(0.0)

    def look(self, now: float) -> None:
        for key, value in self.registers.due(self.directory, RECORD, Instant(now)):
            if key.endswith("/links"):
                links = msgspec.msgpack.decode(value, type=tuple[LinkRecord, ...])
                self.directory[ME].neighbours = links
                self.written.append((now, links))

    def run_until(self, end: float) -> None:
        while self.registers.deadline <= end:
            self.look(self.registers.deadline)


def test_a_new_neighbour_is_published_before_a_person_notices_its_absence() -> None:
    table = Table()
    table.run_until(100.0)
    table.directory[OTHER].connected = True
    table.look(100.0)
    table.run_until(200.0)
    at, links = table.written[-1]
    assert at == 100.0 + NEIGHBOURS_QUIET_S
    assert [link.peer for link in links] == [OTHER]


def test_a_round_trip_alone_waits_and_is_hurried_by_a_neighbour() -> None:
    table = Table()
    table.directory[OTHER].connected = True
    table.look(0.0)
    table.run_until(100.0)
    count = len(table.written)
    table.directory[OTHER].rtt_ms = 800.0
    table.look(100.0)
    table.run_until(100.0 + LINKS_QUIET_S / 2)
    assert len(table.written) == count
    table.directory[OTHER].connected = False
    table.look(103.0)
    table.run_until(200.0)
    assert table.written[-1] == (103.0 + NEIGHBOURS_QUIET_S, ())
    assert len(table.written) == count + 1


def test_a_bunch_of_neighbours_is_one_write() -> None:
    table = Table()
    table.run_until(100.0)
    for number in range(6):
        table.directory[NodeId(f"12D3KooW{number}")].connected = True
        table.look(100.0 + number * 0.01)
    table.run_until(200.0)
    assert len(table.written[-1][1]) == 6
    assert len(table.written) == 1
