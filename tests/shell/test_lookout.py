"""What a daemon sees of its own machine, and when it says so."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from meshd.config import KubeVip
from meshd.daemon import _lookout
from meshd.daemon._lookout import (
    SLOW_WRITE_S,
    Lookout,
    address_item,
    moved_item,
    ports_problem,
    slow_disk_item,
    somebody_answers,
    taken_ports_item,
    vip_item,
)
from meshd.listeners import port_holder, taken_ports
from tests.cluster.bench import N1, SETTINGS, plan

if TYPE_CHECKING:
    from meshd.cluster import K3sCluster


def test_a_port_on_which_somebody_listens_is_found_with_its_holder_and_free_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ((found, holder),) = taken_ports([port])
        assert found == port
        assert holder is not None
        assert holder == port_holder(port)
        assert f"process {os.getpid()} (" in holder
    assert taken_ports([port]) == ()
    assert port_holder(port) is None


def test_an_ipv6_listener_counts_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert [found for found, _ in taken_ports([1, port])] == [port]


def test_a_connection_is_no_listener() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert taken_ports([client.getsockname()[1]]) == ()


def test_taken_ports_are_named_with_who_has_them() -> None:
    assert ports_problem([]) is None
    assert taken_ports_item([]) == ()
    assert ports_problem([(6443, "process 7 (nginx)")]) == (
        "k3s' port on it is taken: 6443 by process 7 (nginx)"
    )
    (item,) = taken_ports_item([(2379, "process 7 (etcd)"), (10250, None)])
    assert (item.code, item.severity) == ("MESH-3110", "error")
    assert "2379 by process 7 (etcd), 10250 by a program" in item.message


def test_no_address_and_an_address_on_the_wrong_net_are_different_things() -> None:
    assert address_item(None, has_address=True) == ()
    (none,) = address_item("no interface has an address", has_address=False)
    (wrong,) = address_item("none of its subnets holds 10.0.0.50", has_address=True)
    assert [none.code, wrong.code] == ["MESH-3111", "MESH-3113"]
    assert "p2p.meshd.interface" in wrong.fix


def test_a_lost_address_is_named_until_it_is_back() -> None:
    assert moved_item(None, {"10.0.0.77"}) == ()
    assert moved_item("10.0.0.12", {"10.0.0.12", "10.0.0.77"}) == ()
    (moved,) = moved_item("10.0.0.12", {"10.0.0.77"})
    assert moved.message == (
        "the cluster knows this machine at 10.0.0.12, but it has 10.0.0.77 now"
    )
    (gone,) = moved_item("10.0.0.12", set())
    assert gone.message.endswith("has none now")


def test_a_write_is_slow_after_five_seconds_and_the_sentence_does_not_change_with_each() -> None:
    folder = Path("/var/lib/meshd")
    assert slow_disk_item(0.0, folder) == slow_disk_item(SLOW_WRITE_S - 0.1, folder) == ()
    (item,) = slow_disk_item(SLOW_WRITE_S, folder)
    assert (item.code, item.severity) == ("MESH-2030", "error")
    assert "/var/lib/meshd" in item.message
    assert slow_disk_item(600.0, folder) == (item,)


async def test_an_address_is_taken_if_its_machine_accepts_or_refuses_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(_lookout, "API_PORT", server.getsockname()[1])
        assert await somebody_answers("127.0.0.1")
    assert await somebody_answers("127.0.0.1")  # Now it refuses.
    assert not await somebody_answers("255.255.255.255")  # No connection leads there.


def test_a_taken_virtual_address_is_named() -> None:
    (item,) = vip_item("10.0.0.50")
    assert (item.code, item.severity) == ("MESH-3114", "error")
    assert "10.0.0.50 is taken" in item.message


class Idle:
    """k3s that was never ordered."""

    has_begun = False
    is_installed = True

    def frozen_address(self) -> str | None:
        return None


def test_a_taken_virtual_address_holds_a_machine_back_until_there_is_a_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SETTINGS, kubevip=KubeVip(address="10.0.0.50"))
    lookout = Lookout(settings=settings, cluster=cast("K3sCluster", Idle()), node=N1, is_new=False)
    monkeypatch.setattr(_lookout, "taken_ports", lambda _: ())
    monkeypatch.setattr(_lookout, "read_address_problem", lambda **_: None)
    assert lookout.blocked(None) is None
    assert lookout.health(None) == ()
    lookout.vip_answers = True
    assert "10.0.0.50 is taken" in str(lookout.blocked(None))
    assert [item.code for item in lookout.health(None)] == ["MESH-3114"]
    assert lookout.blocked(plan()) is None  # Now it is the cluster's own.
    assert "MESH-3114" not in [item.code for item in lookout.health(plan())]
