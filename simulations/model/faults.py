"""What goes wrong in a run, drawn from its seed: cuts, crashes, power cuts, k3s, clocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from simulations.model.world import World

TEN_YEARS_MS = 315_360_000_000


class Faults:
    """Lets faults happen until the scenario's end of them, and then undoes them."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._kinds: tuple[tuple[int, str, Callable[[], None]], ...] = (
            (4, "partition", self._partition),
            (3, "one-way cut", self._one_way),
            (4, "one machine cut off", self._isolate),
            (2, "bridge", self._bridge),
            (18, "heal", self._open),
            (4, "crash", partial(self._crash, power_cut=False)),
            (4, "power", partial(self._crash, power_cut=True)),
            (1, "site power cut", self._site_power_cut),
            (2, "k3s killed", self._kill_k3s),
            (1, "clock jump", self._clock_jump),
        )

    def schedule(self) -> None:
        """Let the first fault happen, before all else or later; each schedules the next."""
        scenario, timeline = self._world.scenario, self._world.timeline
        if scenario.bridged:
            self._world.on_vote_crash = self._cut_anew
            self._bridge()
            self._next()
        elif scenario.cut_at_start:
            # The machines come up before the network between them does.
            self._partition()
            timeline.after(self._rng.uniform(0.2, 0.9) * scenario.faults_until_s, self._strike)
        else:
            self._next()

    def _next(self) -> None:
        delay_s = self._rng.expovariate(1.0 / self._world.scenario.fault_gap_s)
        if self._world.timeline.now + delay_s < self._world.scenario.faults_until_s:
            self._world.timeline.after(delay_s, self._strike)

    def heal(self) -> None:
        """End all faults: links open, weather calm, clocks right, every machine up soon."""
        world = self._world
        world.faulty = False
        world.say(None, "all faults end")
        world.network.open_all()
        world.network.calm()
        for machine in world.machines:
            world.set_clock(machine, 0)
            if machine.peer is None and machine.spec.boots_at_s <= world.timeline.now:
                world.timeline.after(self._rng.uniform(0.0, 5.0), partial(world.boot, machine))
        world.links_changed()

    def _strike(self) -> None:
        bridged = self._world.scenario.bridged
        weights = [
            weight * (5 if bridged and name == "bridge" else 1) for weight, name, _ in self._kinds
        ]
        _, name, strike = self._rng.choices(self._kinds, weights)[0]
        self._world.say(None, f"fault: {name}")
        self._world.checkers.reached[name] += 1
        strike()
        self._world.links_changed()
        self._next()

    def _some(self) -> list[int]:
        """Return a random part of the machines, neither none nor all if there are two or more."""
        size = len(self._world.machines)
        return self._rng.sample(range(size), self._rng.randint(1, max(1, size - 1)))

    def _partition(self) -> None:
        self._world.network.separate(self._some())

    def _one_way(self) -> None:
        self._world.network.separate(self._some(), both_ways=False)

    def _isolate(self) -> None:
        self._world.network.separate([self._rng.randrange(len(self._world.machines))])

    def _bridge(self) -> None:
        """Two groups that see each other only through the machines in neither."""
        order = self._rng.sample(range(len(self._world.machines)), len(self._world.machines))
        third = max(1, len(order) // 3)
        self._world.network.bridge(order[:third], order[-third:])

    def _cut_anew(self) -> None:
        """Whoever counts on the vote is cut off from the voter before that comes back."""
        if self._world.faulty:
            self._world.network.open_all()
            self._bridge()
            self._world.links_changed()

    def _open(self) -> None:
        self._world.network.open_all()

    def _crash(self, *, power_cut: bool) -> None:
        machine = self._rng.choice(self._world.machines)
        down_s = self._rng.choice((0.5, 3.0, 10.0, 40.0))
        self._world.crash(machine, power_cut=power_cut, down_s=down_s)

    def _site_power_cut(self) -> None:
        for machine in self._world.machines:
            self._world.crash(machine, power_cut=True, down_s=self._rng.uniform(5.0, 20.0))

    def _kill_k3s(self) -> None:
        machine = self._rng.choice(self._world.machines)
        if machine.k3s.running:
            machine.k3s.kill(power_cut=False)

    def _clock_jump(self) -> None:
        machine = self._rng.choice(self._world.machines)
        self._world.set_clock(machine, self._rng.randint(-TEN_YEARS_MS, TEN_YEARS_MS))
