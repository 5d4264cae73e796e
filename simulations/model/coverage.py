"""What runs must have met, or the faults are no faults and the checks had nothing to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulations.model.world import World

JUDGED_FROM = 2000
"""Of fewer seeds the rarest states cannot be asked for."""

_YEAR_MS = 31_536_000_000

LEAST = {
    # How far the log came under faults.
    "claim decided under faults": 1000,
    "started decided under faults": 700,
    "done decided under faults": 200,
    "generation 2": 150,
    "generation 3": 3,
    "voted to abandon": 150,
    "abandoned in slot started: its initialiser did not start it": 5,
    "abandoned in slot done: its initialiser did not renew its lease": 20,
    "abandoned in slot done: its initialiser gave it up": 15,
    "gave up: it had no lease for s": 20,
    "gave up: k3s ended by itself times": 1,
    "gave up: the control plane was not complete after s": 12,
    "gave up: meshd there was stopped times before the cluster was formed": 6,
    "gave up: no other member was heard for s": 3,
    "gave up: etcd has a member that was not heard for s": 3,
    "gave up: came back without the disk": 1,
    "a plan without a lease": 50,
    "said released": 60,
    "said down": 40,
    "said ask": 100,
    "old data set aside": 80,
    "secrets renewed": 100,
    # Where crashes met whom.
    "daemon killed, initialiser before it has data": 20,
    "daemon killed, initialiser before DONE": 100,
    "machine killed, initialiser before it has data": 20,
    "machine killed, initialiser before DONE": 100,
    "machine killed, learner before DONE": 15,
    "machine killed, server before DONE": 20,
    "died before an effect": 250,
    "died after an effect": 250,
    "site power cut": 200,
    # Disks.
    "machine lost before DONE": 20,
    "disk wiped before DONE": 10,
    "disk put back before DONE": 100,
    "disk put back, votes forgotten": 40,
    "journal torn before DONE": 5,
    # Clocks, processes, k3s, network.
    "k3s waits for the clock": 50,
    "wall clocks off by years": 25,
    "clock rates 5 % off": 300,
    "machine frozen": 100,
    "machine frozen for a minute": 50,
    "meshd alone stopped": 100,
    "meshd alone stopped for a minute": 20,
    "k3s killed": 80,
    "k3s broken, and ended by itself": 25,
    "k3s takes 4 times as long": 100,
    "partition": 300,
    "one-way cut": 200,
    "bridge": 300,
    "mesh alone cut": 100,
    "frames lost": 400,
    "frames doubled": 200,
    "frames late by over 3 s": 150,
}
"""In how many of 2000 seeds at least."""


def met_in(world: World) -> Counter[str]:
    """Return what a run met, when it is over."""
    scenario = world.scenario
    rates = [abs(machine.rate - 1.0) for machine in scenario.machines]
    offsets_ms = [abs(machine.wall_offset_ms) for machine in scenario.machines]
    circumstances = {
        "old data set aside": any(machine.k3s.aside for machine in world.machines),
        "k3s broken, and ended by itself": any(machine.k3s.broke for machine in world.machines),
        "wall clocks off by years": max(offsets_ms) > _YEAR_MS,
        "clock rates 5 % off": max(rates) > 0.05,
        "k3s takes 4 times as long": scenario.k3s_slowness >= 4.0,
    }
    reached = world.checkers.reached + world.network.met
    reached.update(what for what, is_so in circumstances.items() if is_so)
    return reached


def seldom(reached: Counter[str], seeds: int) -> list[str]:
    """Return what was met too seldom in so many seeds; nothing if there were too few to say."""
    if seeds < JUDGED_FROM:
        return []
    return [
        f"{what}: {reached[what]} of {seeds} seeds, at least {least * seeds // 2000} are needed"
        for what, least in LEAST.items()
        if reached[what] < least * seeds // 2000
    ]


def table(reached: Counter[str]) -> Iterable[str]:
    """Yield a line for each thing that was met, those that must be first, with 0 if it was not."""
    others = sorted(reached.keys() - LEAST.keys())
    for what in (*LEAST, *others):
        yield f"{reached[what]:8} {what}"
