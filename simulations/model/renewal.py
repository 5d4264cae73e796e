"""What the daemon does about secrets that an abandoned plan named: it makes others, soon."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from meshd.events import FactsObserved
from meshd.node import Node
from simulations.model.machine import Machine

if TYPE_CHECKING:
    from simulations.model.world import World

LOOK_EVERY_S = 5.0


def watch(world: World, machine: Machine) -> None:
    """Plan the daemon's next look at its secrets if it will find them spent."""
    life = machine.life
    if machine.renews_in == life or not _are_spent(machine):
        return
    machine.renews_in = life

    def look() -> None:
        if machine.life != life or machine.peer is None:
            return
        machine.renews_in = 0
        if not machine.asleep:  # Else once it goes on.
            _renew(world, machine)

    world.timeline.after(world.rng.uniform(0.0, LOOK_EVERY_S), look)


def _are_spent(machine: Machine) -> bool:
    peer = machine.peer
    return isinstance(peer, Node) and machine.facts.ca_hash in peer.genesis.state.spent


def _renew(world: World, machine: Machine) -> None:
    mark = hashlib.sha256(f"after {machine.facts.ca_hash}".encode()).hexdigest()
    machine.facts = msgspec.structs.replace(
        machine.facts, ca_hash=mark, token_commitment=mark[::-1]
    )
    world.say(machine, "has new secrets")
    world.checkers.reached["secrets renewed"] += 1
    world.handle(machine, FactsObserved(machine.facts))
