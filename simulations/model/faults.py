"""What goes wrong in a run, drawn from its seed: cuts, crashes, power cuts, k3s, clocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from ledger import NodeId
from simulations.model.machine import Machine
from simulations.model.outages import (
    Image,
    copy_disk,
    lose,
    put_back,
    sleep,
    takes_word_back,
    wake_up,
    wipe,
)
from simulations.model.world import World

TEN_YEARS_MS = 315_360_000_000


class Faults:
    """Lets faults happen until the scenario's end of them, and then undoes them.

    Each returns whether it did anything: a machine that is down cannot be frozen, and what did not
    happen is not counted.
    """

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._kinds: tuple[tuple[int, str, Callable[[], bool]], ...] = (
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
            (2, "meshd alone stopped", partial(self._sleep, whole=False)),
            (3, "machine frozen", partial(self._sleep, whole=True)),
            (2, "daemon dead for long", self._daemon_dead),
            (2, "one link cut", self._cut_pair),
            (2, "mesh alone cut", self._mesh_cut),
            (1, "k3s broken", self._break_k3s),
            (1, "machine lost before DONE", self._lose),
            (1, "disk wiped before DONE", self._wipe),
            (2, "disk put back before DONE", self._put_back),
            (1, "journal torn before DONE", self._tear),
        )
        self._sieges: tuple[tuple[int, str, Callable[[], bool]], ...] = (
            (6, "initialiser or member cut off", self._cut_off),
            (3, "one link cut", self._cut_pair),
            (2, "partition", self._partition),
            (1, "heal", self._open),
            (3, "machine frozen", partial(self._sleep, whole=True)),
            (2, "meshd alone stopped", partial(self._sleep, whole=False)),
            (3, "daemon dead for long", self._daemon_dead),
            (3, "power", partial(self._crash, power_cut=True)),
            (1, "k3s killed", self._kill_k3s),
            (1, "machine lost before DONE", self._lose),
        )
        self._lost = 0
        self._wiped = 0  # Disks put back to an older copy count, too.
        self._images: dict[int, Image] = {}

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
        world.network.mend()
        world.network.calm()
        for machine in world.machines:
            world.set_clock(machine, 0)
            machine.k3s.broken = False
            wake_up(world, machine)
            if machine.peer is None and machine.spec.boots_at_s <= world.timeline.now:
                world.timeline.after(self._rng.uniform(0.0, 5.0), partial(world.boot, machine))
        world.links_changed()

    def _strike(self) -> None:
        kinds = self._sieges if self._world.scenario.siege else self._kinds
        weights = [self._weight(weight, name) for weight, name, _ in kinds]
        if not self._world.faulty:
            return
        self._copy_a_disk()
        _, name, strike = self._rng.choices(kinds, weights)[0]
        self._world.say(None, f"fault: {name}")
        self._world.checkers.reached[name] += strike()
        self._world.links_changed()
        self._next()

    def _weight(self, weight: int, name: str) -> float:
        scenario = self._world.scenario
        if scenario.bridged and name == "bridge":
            return weight * 5
        if scenario.relapses and name in ("disk put back before DONE", "disk wiped before DONE"):
            return weight * 4
        # Where outages are long, so are the cuts between them.
        return weight / 6 if scenario.long and name == "heal" else weight

    def _span(self) -> float:
        """Return how long an outage lasts: seconds, or minutes in a long scenario."""
        if self._world.scenario.long and self._rng.random() < 0.7:
            return self._rng.uniform(40.0, 200.0)
        return self._rng.choice((0.5, 3.0, 10.0, 40.0))

    def _victim(self) -> Machine:
        """Return a machine, in long scenarios mostly one that has a seat."""
        seats = self._world.checkers.newest_seats
        if self._world.scenario.long and seats and self._rng.random() < 0.7:
            seat = seats[0] if self._rng.random() < 0.5 else self._rng.choice(seats)
            return self._world.by_node[NodeId(seat)]
        return self._rng.choice(self._world.machines)

    def _some(self) -> list[int]:
        """Return a random part of the machines, neither none nor all if there are two or more."""
        size = len(self._world.machines)
        return self._rng.sample(range(size), self._rng.randint(1, max(1, size - 1)))

    def _partition(self) -> bool:
        return self._world.network.separate(self._some())

    def _one_way(self) -> bool:
        return self._world.network.separate(self._some(), both_ways=False)

    def _isolate(self) -> bool:
        return self._world.network.separate([self._rng.randrange(len(self._world.machines))])

    def _bridge(self) -> bool:
        """Two groups that see each other only through the machines in neither."""
        order = self._rng.sample(range(len(self._world.machines)), len(self._world.machines))
        third = max(1, len(order) // 3)
        return self._world.network.bridge(order[:third], order[-third:])

    def _cut_anew(self) -> None:
        """Whoever counts on the vote is cut off from the voter before that comes back."""
        if self._world.faulty:
            self._world.network.open_all()
            self._bridge()
            self._world.links_changed()
            if self._rng.random() < 0.5:
                self._world.checkers.reached["disk put back before DONE"] += self._put_back()

    def _open(self) -> bool:
        return self._world.network.open_all()

    def _crash(self, *, power_cut: bool) -> bool:
        return self._dies(self._victim(), power_cut=power_cut, down_s=self._span())

    def _dies(self, machine: Machine, *, power_cut: bool, down_s: float) -> bool:
        life = machine.life
        self._world.crash(machine, power_cut=power_cut, down_s=down_s)
        return machine.life > life

    def _site_power_cut(self) -> bool:
        died = [
            self._dies(machine, power_cut=True, down_s=self._rng.uniform(5.0, 20.0))
            for machine in self._world.machines
        ]
        return any(died)

    def _kill_k3s(self) -> bool:
        machine = self._victim()
        if not machine.k3s.running or machine.k3s.frozen:
            return False
        machine.k3s.kill(power_cut=False)
        return True

    def _clock_jump(self) -> bool:
        machine = self._rng.choice(self._world.machines)
        self._world.set_clock(machine, self._rng.randint(-TEN_YEARS_MS, TEN_YEARS_MS))
        return True

    def _sleep(self, *, whole: bool) -> bool:
        return sleep(self._world, self._victim(), whole=whole, for_s=self._span())

    def _daemon_dead(self) -> bool:
        """K3s lives on meanwhile."""
        return self._dies(self._victim(), power_cut=False, down_s=self._span())

    def _cut_off(self) -> bool:
        """Cut one machine off all others, or all but a few."""
        victim = self._victim()
        others = [m for m in self._world.machines if m is not victim]
        spared = self._rng.choice((0, 0, 1, 2))
        until = self._world.timeline.now + self._rng.uniform(60.0, 200.0)
        chosen = self._rng.sample(others, max(0, len(others) - spared))
        for other in chosen:
            self._world.network.cut_pair(victim.spec.index, other.spec.index, until)
        self._world.timeline.after(
            until - self._world.timeline.now + 0.01, self._world.links_changed
        )
        return bool(chosen)

    def _cut_pair(self) -> bool:
        """Both still see everyone else."""
        if len(self._world.machines) < 2:
            return False
        one, other = self._rng.sample(range(len(self._world.machines)), 2)
        until = self._world.timeline.now + self._span()
        self._world.network.cut_pair(one, other, until)
        self._world.timeline.after(
            until - self._world.timeline.now + 0.01, self._world.links_changed
        )
        return True

    def _mesh_cut(self) -> bool:
        """Meshd's port is closed between two parts; k3s gets through."""
        return self._world.network.separate(self._some(), mesh_only=True)

    def _break_k3s(self) -> bool:
        k3s = self._victim().k3s
        was, k3s.broken = k3s.broken, True
        return not was

    def _expendable(self) -> Machine | None:
        """Return a voter whose disk is sound still, and may be lost before DONE."""
        world = self._world
        if world.checkers.decided("done"):
            return None
        machine = self._victim()
        return machine if machine.is_sound and machine.spec.may_vote and machine.peer else None

    def _lose(self) -> bool:
        machine = self._expendable()
        if machine is None or self._lost >= self._world.scenario.losses_max:
            return False
        self._lost += 1
        lose(self._world, machine)
        return True

    def _wipe(self) -> bool:
        machine = self._expendable()
        if machine is None or self._wiped >= self._world.scenario.wipes_max:
            return False
        self._wiped += 1
        wipe(self._world, machine, down_s=self._span())
        return True

    def _copy_a_disk(self) -> None:
        """Keep an image of some voter's disk, to be put back later."""
        if self._wiped < self._world.scenario.wipes_max and self._rng.random() < 0.5:
            machine = self._expendable()
            if machine is not None:
                self._images[machine.spec.index] = copy_disk(machine)

    def _put_back(self) -> bool:
        """It counts as a disk that is lost: that voter does not remember what it voted since."""
        images = [
            image
            for _, image in sorted(self._images.items())
            if image.machine.is_sound and not takes_word_back(image)
        ]
        full = self._wiped >= self._world.scenario.wipes_max
        if not images or full or self._world.checkers.decided("done"):
            return False
        self._wiped += 1
        image = self._rng.choice(images)
        if image.disk.votes != image.machine.disk.votes:
            self._world.checkers.reached["disk put back, votes forgotten"] = 1
        put_back(self._world, image, down_s=self._span())
        return True

    def _tear(self) -> bool:
        """A row of the journal does not verify after a power cut: that voter is no voter more."""
        machine = self._expendable()
        if (
            machine is None
            or not machine.disk.votes
            or self._lost >= self._world.scenario.losses_max
        ):
            return False
        self._lost += 1
        self._world.crash(machine, power_cut=True, down_s=self._span())
        machine.is_sound = False
        machine.disk.tear(self._rng)
        return True
