"""The checks look at what a disk holds now, not at what it ever held."""

from __future__ import annotations

import pytest

from simulations.model import outages
from simulations.model.checkers import Violation
from simulations.model.outages import Image
from tests.model.stage import Play, formed, play

ALL_READY = Play(nodes=3, quorum=2, control_plane=3, ready=range(3))


def test_an_order_that_rests_on_what_the_disk_forgot_is_seen() -> None:
    world = play(ALL_READY, without=None, until_s=0.0)
    machine = world.machines[1]
    image: Image = outages.copy_disk(machine)
    world.timeline.run_until(200.0)
    assert formed(world)
    order = machine.k3s.order
    assert order is not None
    assert order.formed
    world.checkers.ordered(machine.node, order, machine.disk)
    outages.put_back(world, image, down_s=1.0)
    with pytest.raises(Violation, match="an order for a formed cluster before DONE"):
        world.checkers.ordered(machine.node, order, machine.disk)


def test_a_row_that_is_damaged_holds_no_decision() -> None:
    world = play(ALL_READY, without=None, until_s=200.0)
    assert formed(world)
    machine = world.machines[0]
    order = machine.k3s.order
    assert order is not None
    world.checkers.ordered(machine.node, order, machine.disk)
    row = "decided/1/started"
    machine.disk.votes[row] = machine.disk.votes[row][:-1]
    with pytest.raises(Violation, match="is ordered to start a cluster before STARTED"):
        world.checkers.ordered(machine.node, order, machine.disk)
