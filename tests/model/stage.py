"""A stage for directed schedules: machines whose every cut, crash and late frame is in the script.

Machine 0 ranks first, so it is the initialiser (x) of generation 1; nothing else is random that
matters. Times count from the decision of STARTED.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from roles import Bounds
from simulations.model import outages
from simulations.model.checkers import Violation
from simulations.model.machine import Machine, Strategy
from simulations.model.network import Weather
from simulations.model.runs import MESHD, exchanged
from simulations.model.scenario import calm
from simulations.model.world import World
from tests.model.broken import BROKEN

FOR_EVER = 1e9
ENVELOPE = b"\x94\xa7message"  # An array of four, the first of which says what it is.


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What happens on the stage.

    Args:
        nodes: how many machines vote.
        rates: of their clocks.
        acts: (seconds after STARTED, what is done then).
        frames: the delay of a frame (machine, machine, kind of message, when), None: no matter.
        ready: which machines' k3s ever gets ready; the others stay at "starting" for ever.
    """

    quorum: int
    control_plane: int
    nodes: int
    acts: Sequence[tuple[float, Callable[[World], None]]] = ()
    frames: Callable[[int, int, str, float], float | None] = lambda *_: None
    rates: Sequence[float] = ()
    ready: Sequence[int] = ()
    slowness: float = 0.3


def play(script: Play, *, without: str | None, until_s: float, shift_s: float = 0.0) -> World:
    """Perform a script with meshd, or with one of its rules taken out.

    Raises:
        Violation: a checker saw a promise broken.
    """
    strategy = BROKEN[without] if without is not None else MESHD
    with exchanged(strategy.broken):
        world = _set(script, strategy, seed=int(shift_s * 10))
        while not world.checkers.decided("started"):
            world.timeline.run_until(world.timeline.now + 0.05)
            assert world.timeline.now < 30.0, "no STARTED"
        _arrange(world, script, shift_s)
        world.timeline.run_until(world.timeline.now + until_s)
    return world


def breaks(script: Play, *, without: str | None, until_s: float) -> list[str]:
    """Perform a script with its acts at ten different moments between two renewals."""
    found = []
    for shift in range(10):
        try:
            play(script, without=without, until_s=until_s, shift_s=float(shift))
        except Violation as violation:
            found.append(str(violation))
    return found


def formed(world: World) -> bool:
    return world.checkers.decided("done")


def cut(*pair: int) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.network.cut_pair(pair[0], pair[1], FOR_EVER)
        world.links_changed()

    return act


def mend(*pair: int) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.network.cut_pair(pair[0], pair[1], 0.0)
        world.links_changed()

    return act


def reboot(machine: int, down_s: float) -> Callable[[World], None]:
    return lambda world: world.crash(world.machines[machine], power_cut=True, down_s=down_s)


def kill_daemon(machine: int, down_s: float) -> Callable[[World], None]:
    return lambda world: world.crash(world.machines[machine], power_cut=False, down_s=down_s)


def freeze(machine: int, for_s: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        assert outages.sleep(world, world.machines[machine], whole=True, for_s=for_s)

    return act


def lose(machine: int) -> Callable[[World], None]:
    return lambda world: outages.lose(world, world.machines[machine])


def break_k3s(world: World) -> None:
    """Let k3s end soon after each start, on all machines."""
    for machine in world.machines:
        machine.k3s.broken = True
        machine.k3s.kill(power_cut=False)


def set_clock(machine: int, hours: float) -> Callable[[World], None]:
    return lambda world: world.set_clock(world.machines[machine], round(hours * 3_600_000))


def copy_of_disk(machine: int, copies: list[outages.Image]) -> Callable[[World], None]:
    return lambda world: copies.append(outages.copy_disk(world.machines[machine]))


def put_back(copies: list[outages.Image], down_s: float) -> Callable[[World], None]:
    return lambda world: outages.put_back(world, copies[-1], down_s=down_s)


def stall_supervisor(world: World) -> None:
    """Once x's k3s is stopped for good, whoever would say what comes next does not, for a while."""
    k3s = world.machines[0].k3s
    if k3s.order is not None and k3s.order.stop and not k3s.running:
        k3s.freeze()
        world.timeline.after(20.0, k3s.resume)
    else:
        world.timeline.after(0.01, partial(stall_supervisor, world))


def let_k3s_work(world: World) -> None:
    for machine in world.machines:
        machine.k3s.ready_never = False


def k3s_dies(machine: int) -> Callable[[World], None]:
    """Let k3s there die soon after each start, before it comes to anything."""

    def act(world: World) -> None:
        k3s = world.machines[machine].k3s
        if k3s.running:
            k3s.kill(power_cut=False)
        world.timeline.after(0.1, partial(act, world))

    return act


def never_catches_up(machine: int) -> Callable[[World], None]:
    """Let k3s there join, and never be told all that it has to know before it may vote."""

    def act(world: World) -> None:
        etcd = world.machines[machine].k3s.data
        if etcd is not None and etcd.learner == machine:
            etcd.learner_since = world.timeline.now
        world.timeline.after(1.0, partial(act, world))

    return act


def _set(script: Play, strategy: Strategy, *, seed: int) -> World:
    bounds = Bounds(
        bound="bounded",
        nodes_max=script.nodes,
        quorum=script.quorum,
        control_plane=script.control_plane,
    )
    scenario = calm(
        bounds,
        script.nodes,
        seed=seed,
        rates=script.rates,
        vip=False,
        weather=Weather(latency_s=(0.01, 0.03)),
        k3s_slowness=script.slowness,
    )
    world = World(scenario, strategy)
    world.faulty = False
    for machine in world.machines:
        memory = 16384 - 1024 * machine.spec.index
        machine.facts = msgspec.structs.replace(machine.facts, memory_mib=memory)
    return world


def _arrange(world: World, script: Play, shift_s: float) -> None:
    began = world.timeline.now
    for at_s, act in script.acts:
        world.timeline.after(max(0.0, at_s + shift_s), partial(act, world))

    def before_delivery(source: int, target: int, frame: bytes) -> float | None:
        if not frame.startswith(ENVELOPE):
            return None  # A record, or the ledger's.
        _tag, body, *_ = msgspec.msgpack.decode(frame)
        kind = str(msgspec.msgpack.decode(body)[0])
        return script.frames(source, target, kind, world.timeline.now - began - shift_s)

    world.network.before_delivery = before_delivery
    for machine in world.machines:
        if machine.spec.index not in script.ready:
            _never_ready(machine)


def _never_ready(machine: Machine) -> None:
    """Let k3s there come as far as its database, and no further: DONE is not to end the play."""
    machine.k3s.ready_never = True
