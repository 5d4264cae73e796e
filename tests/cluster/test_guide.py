"""Which server a worker's agent is told to join, and when it is started again for another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from meshd.cluster.course import RUNS_S
from meshd.cluster.guide import PATIENCE_S, Guide
from meshd.cluster.hostinit import Held
from meshd.cluster.plan import Launch, url_of
from meshd.events import ClusterOrder
from tests.cluster.bench import ADDRESSES, N1, N2, N3, k3s_paths, server, worker

FIRST, SECOND, THIRD = (ADDRESSES[node] for node in (N1, N2, N3))
ORDER = replace(worker(), join=(FIRST, SECOND))


def running(address: str) -> Held:
    return Held(pid=7, exits=0, last_exit=None, blocked=None, server=url_of(address))


def launch(address: str) -> Launch:
    return Launch(incarnation="c1/agent", argv=(), environment=(), needs=(), server=url_of(address))


def told(guide: Guide, order: ClusterOrder, address: str, hangs_s: float) -> str:
    """Return the server that is to be tried by an agent that tries `address`."""
    return guide.turned(order, running(address), hangs_s).join[0]


def test_a_server_that_is_gone_is_left_as_soon_as_the_agent_hangs(tmp_path: Path) -> None:
    guide = Guide(k3s_paths(tmp_path))
    order = replace(ORDER, join=(SECOND,))
    assert guide.astray(order, running(FIRST), launch(SECOND), RUNS_S - 1) is None
    assert guide.astray(order, running(FIRST), launch(SECOND), RUNS_S) == 7


def test_a_server_that_serves_is_not_left_because_another_is_better(tmp_path: Path) -> None:
    guide = Guide(k3s_paths(tmp_path))
    order = replace(ORDER, join=(SECOND, FIRST))
    assert guide.astray(order, running(FIRST), launch(SECOND), 10 * RUNS_S) is None


def test_one_that_lets_only_this_node_not_in_is_left_for_the_next_in_turn(tmp_path: Path) -> None:
    guide = Guide(k3s_paths(tmp_path))
    assert told(guide, ORDER, FIRST, PATIENCE_S - 1) == FIRST
    assert told(guide, ORDER, FIRST, PATIENCE_S) == SECOND
    assert guide.astray(ORDER, running(FIRST), launch(SECOND), PATIENCE_S) == 7
    assert told(guide, ORDER, SECOND, 2 * PATIENCE_S - 1) == SECOND
    assert told(guide, ORDER, SECOND, 2 * PATIENCE_S) == FIRST
    assert guide.astray(ORDER, running(SECOND), launch(FIRST), 2 * PATIENCE_S) == 7


def test_an_agent_that_has_joined_once_finds_the_others_by_itself(tmp_path: Path) -> None:
    paths = k3s_paths(tmp_path)
    paths.agent.mkdir(parents=True)
    (paths.agent / "client-kubelet.crt").touch()
    assert told(Guide(paths), ORDER, FIRST, 100 * PATIENCE_S) == FIRST


def test_servers_and_workers_with_one_server_are_left_alone(tmp_path: Path) -> None:
    guide = Guide(k3s_paths(tmp_path))
    alone = replace(ORDER, join=(FIRST,))
    assert guide.turned(alone, running(FIRST), 100 * PATIENCE_S) == alone
    member = replace(server(formed=True), join=(SECOND, THIRD))
    assert guide.turned(member, running(FIRST), 100 * PATIENCE_S) == member
    assert guide.astray(member, running(FIRST), launch(SECOND), 100 * PATIENCE_S) is None
