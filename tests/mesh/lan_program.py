"""A node on a LAN, in a process of its own: prints what its mesh says, one JSON list a line.

`lan_program.py NAME [SEED…]`: without a seed it uses the beacon. A line on stdin asks for the CPU
seconds used so far, and for what is wrong.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import trio

from meshd.clock import read_moment
from meshd.events import Connected, Disconnected, Event, LinkObserved
from meshd.mesh import LibP2PMesh
from tests.mesh.stations import SECRET, network_of, private_key

LISTEN = ("/ip4/0.0.0.0/tcp/7946", "/ip6/::/tcp/7946")


def say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def tell_events(source: trio.MemoryReceiveChannel[Event]) -> None:
    async for event in source:
        if isinstance(event, Connected):
            say("connected", event.peer)
        elif isinstance(event, Disconnected):
            say("disconnected", event.peer, event.reason)
        elif isinstance(event, LinkObserved):
            say("observed", event.peer, event.state)


async def tell_addresses(mesh: LibP2PMesh) -> None:
    while True:
        say("addresses", *await mesh.addresses_changed())


async def answer(mesh: LibP2PMesh) -> None:
    async for _ in trio.lowlevel.FdStream(0):
        say("cpu", time.process_time())
        say("health", *(item.message for item in mesh.health()))


async def main(*words: str) -> None:
    name, *seeds = words
    mesh = LibP2PMesh(
        private_key=private_key(name),
        network=network_of(SECRET),
        read_moment=read_moment,
        listen=LISTEN,
        discovery=("seeds",) if seeds else ("lan",),
        seeds=seeds,
    )
    sink, source = trio.open_memory_channel[Event](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_events, source)
        say("up", mesh.node_id, *await nursery.start(mesh.run, sink))
        nursery.start_soon(tell_addresses, mesh)
        nursery.start_soon(answer, mesh)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
