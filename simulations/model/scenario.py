"""What a seed means: how many machines, which bounds, when they boot, and which faults befall them.

Every legal (nodes_max, quorum, control plane) with up to seven voting machines can come up; the
machines that ever vote, wiped disks included, stay below 2 x quorum, and as many journals as the
quorum and the control plane need are never lost: these are the assumptions of the guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from roles import Bounds, RoleWish
from simulations.model.network import Weather

MACHINES_MAX = 8
LONG_SHARE = 0.4
"""Of the scenarios that are no duels: outages of minutes, in which leases end."""

SIZES = (1, 2, 3, 3, 3, 4, 5, 5, 6, 7)
"""Voting machines a token is for; three and five are usual, and large ones cost most time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One machine before its first boot."""

    index: int
    wish: RoleWish
    may_vote: bool
    boots_at_s: float
    wall_offset_ms: int
    rate: float = 1.0  # Of its clocks: within 10 % of true.
    fuse: bool = True

    @property
    def votes(self) -> bool:
        """Whether its token and its role let it vote."""
        return self.may_vote and self.wish in ("auto", "control-plane")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything about a run that is fixed before it begins."""

    seed: int
    bounds: Bounds
    machines: tuple[MachineSpec, ...]
    vip: bool
    cut_at_start: bool
    weather: Weather
    faults_until_s: float
    bridged: bool  # The cuts of a duel: machines in the middle see both sides.
    fault_gap_s: float  # Mean time between faults.
    crash_rate: float  # Probability of a crash at each effect while faults last.
    vote_crash_rate: float  # The same at each commit of votes: where forgetting would hurt.
    k3s_slowness: float
    siege: bool = False  # Outages of minutes that seek out the initialiser and its members.
    long: bool = False  # Cuts and outages last for minutes: where leases end.
    losses_max: int = 0  # Machines that may be lost for good before DONE.
    wipes_max: int = 0  # Disks that may be wiped, or put back to an older copy, before DONE.
    relapses: bool = False  # The latter is what happens most.

    def describe(self) -> str:
        """Return one line for people."""
        voters = sum(machine.may_vote for machine in self.machines)
        return (
            f"{voters} voters, {len(self.machines) - voters} workers, "
            f"nodes_max {self.bounds.nodes_max}, quorum {self.bounds.quorum}, "
            f"control plane {self.bounds.control_plane}, loss {self.weather.loss:.0%}, "
            f"faults for {self.faults_until_s:.0f} s"
        )


def legal_bounds() -> tuple[Bounds, ...]:
    """Return every combination for control planes of 1, 3 and 5, up to seven voting machines."""
    return tuple(
        Bounds(bound="bounded", nodes_max=most, quorum=quorum, control_plane=size)
        for size in (1, 3, 5)
        for most in range(size, 8)
        for quorum in range(max(most // 2 + 1, size), most + 1)
    )


def calm(
    bounds: Bounds,
    machines: int,
    *,
    seed: int = 1,
    rates: Sequence[float] = (),
    vip: bool = True,
    weather: Weather | None = None,
    k3s_slowness: float = 1.0,
) -> Scenario:
    """Return a scenario without faults, in which all machines boot at once.

    As many of them may vote as `bounds` allow; clocks are right unless `rates` says otherwise.
    """
    return Scenario(
        seed=seed,
        bounds=bounds,
        machines=tuple(
            MachineSpec(
                index=index,
                wish="auto",
                may_vote=bounds.is_open or index < bounds.nodes_max,
                boots_at_s=0.0,
                wall_offset_ms=0,
                rate=rates[index] if rates else 1.0,
            )
            for index in range(machines)
        ),
        vip=vip,
        cut_at_start=False,
        bridged=False,
        weather=weather or Weather(),
        faults_until_s=0.0,
        fault_gap_s=1.0,
        crash_rate=0.0,
        vote_crash_rate=0.0,
        k3s_slowness=k3s_slowness,
    )


def scenario_of(seed: int) -> Scenario:
    """Draw the scenario of a seed; of eight two are duels, two are sieges, one is a relapse."""
    rng = Random(f"scenario {seed}")
    if seed % 4 == 3:
        return duel_of(seed, rng)
    if seed % 4 == 1:
        return siege_of(seed, rng)
    if seed % 8 == 6:
        return relapse_of(seed, rng)
    most = rng.choice(SIZES)
    bounds = rng.choice([bounds for bounds in legal_bounds() if bounds.nodes_max == most])
    if rng.random() < 0.6:  # What a token says unless its maker wants it stricter.
        bounds = Bounds.bounded(control_plane=bounds.control_plane, nodes_max=bounds.nodes_max)
    voters = rng.choice((bounds.nodes_max, rng.randint(bounds.quorum, bounds.nodes_max)))
    return _storm_of(seed, rng, bounds=bounds, voters=voters)


def open_scenario_of(seed: int) -> Scenario:
    """Draw a scenario of an open network: three to ten voters, none lost, under the same faults."""
    rng = Random(f"open {seed}")
    voters = rng.randint(3, 10)
    bounds = Bounds.unbounded(control_plane=rng.choice((1, 1, 3)))
    storm = _storm_of(seed, rng, bounds=bounds, voters=voters)
    return replace(storm, losses_max=0, wipes_max=0)


def _storm_of(seed: int, rng: Random, *, bounds: Bounds, voters: int) -> Scenario:
    """Draw everything else: when machines boot, the weather, and what goes wrong."""
    workers = rng.choice((0, 0, 0, 1, 1, 2)) if voters < MACHINES_MAX - 1 else 0
    long = rng.random() < LONG_SHARE
    faults_until_s = rng.uniform(120, 300) if long else rng.uniform(15, 70)
    boot_spread_s = rng.choice((0.0, 3.0, 10.0, faults_until_s))
    clocks_off = rng.choice((0.0, 0.0, 0.0, 0.5))  # Share of machines; k3s waits on most of them.
    fuseless = rng.choice((0.0, 0.0, 0.0, 0.0, 0.3))  # Machines whose shell has no fuse.
    machines = tuple(
        MachineSpec(
            index=index,
            wish=_wish(rng, votes=index < voters, spare=voters > bounds.control_plane),
            may_vote=index < voters,
            boots_at_s=rng.uniform(0.0, boot_spread_s) if boot_spread_s else 0.0,
            wall_offset_ms=round(rng.uniform(-3.2e11, 3.2e11)) if rng.random() < clocks_off else 0,
            rate=rng.uniform(0.9, 1.1),
            fuse=rng.random() >= fuseless,
        )
        for index in range(voters + workers)
    )
    stormy = rng.random() < 0.7
    spare = voters - max(bounds.quorum, bounds.control_plane)
    wipes_max = min(rng.choice((0, 0, 1)), spare, 2 * bounds.quorum - 1 - voters)
    return Scenario(
        seed=seed,
        bounds=bounds,
        machines=machines,
        vip=rng.random() < 0.5,
        bridged=False,
        cut_at_start=rng.random() < 0.3,
        weather=Weather(
            loss=rng.choice((0.0, 0.05, 0.1, 0.2, 0.5)) if stormy else 0.0,
            duplication=rng.choice((0.0, 0.1, 0.3)),
            slow=rng.choice((0.0, 0.02, 0.1, 0.3)) if stormy else 0.0,
        ),
        faults_until_s=faults_until_s,
        fault_gap_s=rng.choice((3.0, 6.0, 12.0, 25.0) if long else (2.0, 4.0, 8.0, 16.0)),
        crash_rate=rng.choice((0.0, 0.001, 0.003, 0.01)),
        vote_crash_rate=rng.choice((0.0, 0.0, 0.03, 0.1)),
        k3s_slowness=rng.choice((1.0, 2.0, 4.0, 8.0) if long else (0.3, 0.5, 1.0, 2.0)),
        long=long,
        losses_max=0 if fuseless else spare - wipes_max,
        wipes_max=0 if fuseless else wipes_max,
    )


def duel_of(seed: int, rng: Random) -> Scenario:
    """Draw a scenario that is hard on votes: few voters, small quorums, crashes at each commit.

    Two halves that see each other only through machines that forget are where Paxos breaks if
    anything about its memory is wrong.
    """
    most = rng.choice((2, 3, 3, 4, 5))
    bounds = Bounds.bounded(control_plane=1, nodes_max=most)
    return Scenario(
        seed=seed,
        bounds=bounds,
        machines=tuple(
            MachineSpec(index=index, wish="auto", may_vote=True, boots_at_s=0.0, wall_offset_ms=0)
            for index in range(most)
        ),
        vip=False,
        bridged=True,
        cut_at_start=True,
        weather=Weather(loss=rng.choice((0.0, 0.0, 0.2)), latency_s=(0.05, 0.4)),
        faults_until_s=40.0,
        fault_gap_s=rng.choice((1.0, 2.0, 4.0)),
        crash_rate=0.01,
        vote_crash_rate=rng.choice((0.1, 0.3)),
        k3s_slowness=1.0,
    )


def relapse_of(seed: int, rng: Random) -> Scenario:
    """Draw a scenario in which a voter forgets: its disk is put back to what it was before.

    As with a disk that is wiped, two quorums must still share a voter that remembers, and enough
    must be left if the one that forgot notices and votes no more.
    """
    voters, quorum, control_plane = rng.choice(
        ((4, 3, 1), (4, 3, 3), (5, 4, 1), (5, 4, 3), (6, 4, 3), (7, 5, 3), (7, 5, 5))
    )
    bounds = Bounds(bound="bounded", nodes_max=voters, quorum=quorum, control_plane=control_plane)
    spare = voters - max(quorum, control_plane)
    return Scenario(
        seed=seed,
        bounds=bounds,
        machines=_voters(voters, rng, lambda: rng.uniform(0.9, 1.1)),
        vip=False,
        bridged=True,
        cut_at_start=True,
        weather=Weather(loss=rng.choice((0.0, 0.0, 0.2)), latency_s=(0.05, 0.4)),
        faults_until_s=rng.uniform(40, 150),
        fault_gap_s=rng.choice((1.0, 2.0, 4.0)),
        crash_rate=0.001,
        vote_crash_rate=rng.choice((0.03, 0.1)),
        k3s_slowness=1.0,
        relapses=True,
        wipes_max=min(spare, 2 * quorum - 1 - voters),
    )


def _voters(number: int, rng: Random, draw_rate: Callable[[], float]) -> tuple[MachineSpec, ...]:
    """Draw machines of which nothing is wrong but how fast their clocks run."""
    return tuple(
        MachineSpec(
            index=index,
            wish="auto",
            may_vote=True,
            boots_at_s=rng.uniform(0.0, 3.0),
            wall_offset_ms=0,
            rate=draw_rate(),
        )
        for index in range(number)
    )


def siege_of(seed: int, rng: Random) -> Scenario:
    """Draw a scenario that is hard on leases: nothing else is wrong, but outages last as long.

    Whoever may end a generation has to be sure that nothing of it runs, and nobody may wait for
    ever; both show where the initialiser, or a member, is away for one or two minutes.
    """
    voters, quorum, control_plane = rng.choice(
        ((3, 2, 1), (3, 2, 1), (3, 3, 3), (4, 3, 1), (4, 3, 3), (5, 3, 3), (5, 3, 3), (5, 4, 3))
    )
    bounds = Bounds(bound="bounded", nodes_max=voters, quorum=quorum, control_plane=control_plane)
    return Scenario(
        seed=seed,
        bounds=bounds,
        machines=_voters(voters, rng, lambda: rng.choice((0.9, 1.1, rng.uniform(0.9, 1.1)))),
        vip=False,
        cut_at_start=False,
        weather=Weather(loss=rng.choice((0.0, 0.0, 0.2)), slow=rng.choice((0.0, 0.0, 0.05))),
        faults_until_s=rng.uniform(150, 320),
        bridged=False,
        fault_gap_s=rng.choice((8.0, 15.0, 30.0)),
        crash_rate=0.0,
        vote_crash_rate=0.0,
        k3s_slowness=rng.choice((1.0, 2.0, 4.0)),
        siege=True,
        long=True,
        losses_max=voters - max(quorum, control_plane),
    )


def _wish(rng: Random, *, votes: bool, spare: bool) -> RoleWish:
    if not votes:
        return rng.choice(("auto", "worker", "worker", "none"))
    # `control-plane` for some, where others are left to choose from or not: both are legal.
    return "control-plane" if spare and rng.random() < 0.15 else "auto"
