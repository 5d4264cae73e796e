"""What the core finds wrong, in words that say what it means for the cluster."""

from __future__ import annotations

import pytest

from ledger import NodeId
from meshd.node import Directory
from meshd.node._health import health_items
from roles import GenesisState

SERVERS = tuple(NodeId(f"12D3KooWserver{number}") for number in range(1, 6))


def findings(*, servers: int, lost: int) -> list[tuple[str, str, str]]:
    directory = Directory(SERVERS[0])
    for node in SERVERS[1 : 1 + lost]:
        directory[node].link = "failed"
    items = health_items(
        directory,
        state=GenesisState(
            phase="discovering",
            generation=1,
            plan=None,
            may_initialise=False,
            waiting_for=None,
            votes=0,
            kube_system_uid=None,
            slots=(),
            excluded=(),
            problems=(),
        ),
        rejected={},
        contradictions={},
        vip=None,
        servers=SERVERS[:servers],
    )
    return [(item.code, item.severity, item.message) for item in items]


@pytest.mark.parametrize(
    ("servers", "lost", "severity", "meaning"),
    [
        (3, 1, "warning", "2 of 3 servers are left, etcd cannot lose another"),
        (5, 1, "warning", "4 of 5 servers are left, etcd can lose 1 more"),
        (3, 2, "error", "etcd has no majority: the cluster cannot be changed"),
    ],
)
def test_a_lost_server_is_named_with_what_it_means_for_the_majority(
    servers: int, lost: int, severity: str, meaning: str
) -> None:
    ((code, found, message),) = findings(servers=servers, lost=lost)
    assert (code, found) == ("MESH-3305", severity)
    assert "server2" in message
    assert meaning in message


def test_a_lost_worker_or_an_unformed_cluster_is_no_finding() -> None:
    assert findings(servers=1, lost=2) == []
    assert findings(servers=0, lost=1) == []
    assert findings(servers=3, lost=0) == []
