"""What happens at any moment of a start, moment by moment: found first by seeds of the search."""

from __future__ import annotations

import pytest

from roles import Bounds
from simulations.model.runs import MESHD, run_seed
from simulations.model.scenario import calm
from simulations.model.world import World

DECADES_MS = -30 * 365 * 24 * 3_600_000


def test_a_clock_that_jumps_back_at_any_moment_between_started_and_k3s_starts_none() -> None:
    for hundredths in range(40):
        world = World(calm(Bounds.bounded(control_plane=1, nodes_max=3), 3), MESHD)
        world.faulty = False
        while not world.checkers.decided("started"):
            world.timeline.run_until(world.timeline.now + 0.01)
        world.timeline.run_until(world.timeline.now + hundredths / 100)
        for machine in world.machines:
            if not machine.k3s.running:
                world.set_clock(machine, DECADES_MS)
        world.timeline.run_until(world.timeline.now + 5.0)  # The checkers see every start.


@pytest.mark.parametrize("seed", [6616, 7445, 18750, 19134])
def test_seeds_that_failed_once_do_not_any_more(seed: int) -> None:
    """6616: the only server of a cluster was lost while DONE was voted for: nothing is to be had.

    7445: a lost machine got a seat in generation 3, as a neighbour's old register had it.

    18750 and 19134: an order rested on what the clock had shown at an earlier moment.
    """
    assert run_seed(seed, MESHD).failure is None
