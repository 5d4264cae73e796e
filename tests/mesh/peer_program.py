"""A node in a process of its own, to be stopped and killed: `peer_program.py SEED-MULTIADDR`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import trio

from tests.mesh.stations import RealWorld


async def main(seed: str) -> None:
    async with trio.open_nursery() as nursery:
        station = await RealWorld(nursery).start("peer", seeds=(seed,))
        while True:
            await station.ear.until(object)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
