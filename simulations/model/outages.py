"""What befalls machines besides crashes: lost for good, the disk wiped, processes stopped."""

from __future__ import annotations

from dataclasses import dataclass

from simulations.model.checkers import RESUMED_S
from simulations.model.disk import Disk
from simulations.model.etcd import Host
from simulations.model.etcd import Image as K3sImage
from simulations.model.machine import Machine, facts_of
from simulations.model.signing import signer_of
from simulations.model.world import World


def lose(world: World, machine: Machine) -> None:
    """Take a machine away for good."""
    world.crash(machine, power_cut=True, down_s=1e9)
    machine.lost, machine.is_sound = True, False
    machine.k3s.kill(power_cut=True)
    world.say(machine, "is LOST for good")


def wipe(world: World, machine: Machine, *, down_s: float) -> None:
    """Empty a machine's disk; it comes back with another identity."""
    world.crash(machine, power_cut=True, down_s=down_s)
    machine.is_sound = False
    machine.k3s.wipe()
    machine.edition += 1
    machine.signer = signer_of(machine.spec.index, machine.edition)
    machine.facts = facts_of(
        machine.spec,
        world.scenario.bounds,
        memory_mib=machine.facts.memory_mib,
        vip=machine.facts.vip,
        edition=machine.edition,
    )
    machine.k3s.host = Host(
        machine=machine.spec.index,
        node_name=machine.facts.node_name,
        node_ip=machine.k3s.host.node_ip,
    )
    machine.disk = Disk(fsync=world.strategy.fsync)
    world.by_node[machine.node] = machine
    world.checkers.joined(machine.node, f"{machine.facts.name}'")
    world.say(machine, "its disk is WIPED")


@dataclass(frozen=True, slots=True)
class Image:
    """A copy of a machine's disk."""

    machine: Machine
    disk: Disk
    k3s: K3sImage


def takes_word_back(image: Image) -> bool:
    """Whether an initialiser would forget that it began its cluster, or that it gave it up.

    Both are its own word, which no other voter's memory replaces (docs/genesis.md).
    """
    machine, old = image.machine, image.disk.votes
    intends = any(row.startswith("intent/") for row in old)
    begins_again = intends and image.k3s.data is None and machine.k3s.data is not None
    gave_up = {row for row in machine.disk.votes if row.startswith("gave-up/")}
    return begins_again or not gave_up <= old.keys()


def copy_disk(machine: Machine) -> Image:
    """Take an image of a machine's disk as it is now."""
    return Image(machine, machine.disk.copy(), machine.k3s.image)


def put_back(world: World, image: Image, *, down_s: float) -> None:
    """Give a machine an older copy of its disk: what it did since, others may remember."""
    machine = image.machine
    world.crash(machine, power_cut=True, down_s=down_s)
    machine.is_sound = False
    machine.k3s.put_back(image.k3s)
    forgotten = len(machine.disk.votes) - len(image.disk.votes)
    machine.disk = image.disk
    world.say(machine, f"its disk is PUT BACK to a copy, {forgotten} journal rows fewer")


def sleep(world: World, machine: Machine, *, whole: bool, for_s: float) -> bool:
    """Stop the daemon, or all processes of the machine, for a while (SIGSTOP).

    Return whether it ran at all.
    """
    if machine.peer is None or machine.asleep:
        return False
    world.say(machine, f"{'freezes' if whole else 'its daemon stops'} for {for_s:.0f} s")
    machine.asleep = True
    if whole:
        machine.k3s.freeze()
    life = machine.life

    def wake() -> None:
        if machine.life == life and machine.asleep:
            what = "machine frozen" if whole else "meshd alone stopped"
            world.checkers.reached[f"{what} for a minute"] += for_s >= 60.0
            wake_up(world, machine)

    world.timeline.after(for_s, wake)
    return True


def wake_up(world: World, machine: Machine) -> None:
    """Let what was stopped go on; what waited for it comes in one bunch."""
    if not machine.asleep:
        return
    machine.asleep = False
    world.say(machine, "goes on")
    if machine.k3s.frozen:
        machine.k3s.resume()
        world.timeline.after(RESUMED_S + 0.01, world.check_running)
    backlog, machine.backlog = machine.backlog, []
    life = machine.life
    for event in backlog:
        if machine.life == life:
            world.handle(machine, event)
    if machine.peer is not None:
        machine.wake_at = float("inf")
        world.plan_wake(machine)
    world.links_changed()
