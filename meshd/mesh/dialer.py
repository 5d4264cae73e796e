"""Reaching a peer: all its addresses at once, the first that answers in its name wins."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ledger import NodeId
from meshd.config.multiaddress import TcpAddress
from meshd.mesh.host import Connection, MeshHost, OwnAddress
from meshd.mesh.sockets import tune

DIAL_TIMEOUT_S = 5.0
HEAD_START_S = 0.25
"""How long a TCP connection that is second waits before it is secured too.

Addresses of one machine answer within milliseconds of each other, and a Noise handshake costs both
ends 7 ms of CPU; the delay is that of RFC 8305 (Happy Eyeballs), section 5.
"""


class DialFailed(Exception):
    """No address of the peer led to it; the text says what each one answered."""


class OnlyOurselves(DialFailed):
    """The only address is this node's own."""


async def dial(
    host: MeshHost, addresses: Sequence[TcpAddress], expected: NodeId | None
) -> Connection:
    """Return the first connection to `expected` (or to whoever answers, if None).

    Raises:
        DialFailed: none within 5 s.
        OnlyOurselves: as it says.
    """
    race = _Race(host, expected)
    try:
        with trio.move_on_after(DIAL_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(race.run, address, nursery.cancel_scope)
    except BaseException:
        if race.winner is not None:
            await trio.aclose_forcefully(race.winner)
        raise
    if race.winner is None and race.met_ourselves and len(addresses) == 1:
        raise OnlyOurselves
    if race.winner is None:
        missing = len(addresses) - len(race.answers)
        silent = [f"{missing} of {len(addresses)} addresses silent"] if missing else []
        raise DialFailed("; ".join(race.answers + silent) or "no address known")
    return race.winner


class _Race:
    def __init__(self, host: MeshHost, expected: NodeId | None) -> None:
        self._host = host
        self._expected = expected
        self._arrived = 0
        self.winner: Connection | None = None
        self.answers: list[str] = []
        self.met_ourselves = False

    async def run(self, address: TcpAddress, finish: trio.CancelScope) -> None:
        try:
            stream = await open_tcp(address)
            self._arrived += 1
            await self._wait_for_turn(stream, self._arrived - 1)
            connection = await self._host.secure_dialled(stream, self._expected)
        except OwnAddress:
            self.met_ourselves = True
            return
        except Exception as error:  # noqa: BLE001
            # libp2p's upgrade raises anything at what the other end sends: its own classes,
            # noise's, protobuf's, ValueError. All mean that this address does not lead to the peer.
            self.answers.append(f"{address}: {_first_line(error)}")
            return
        if self.winner is None:
            self.winner = connection
            finish.cancel()
        else:
            await connection.aclose()

    async def _wait_for_turn(self, stream: trio.SocketStream, position: int) -> None:
        try:
            await trio.sleep(position * HEAD_START_S)
        except trio.Cancelled:
            await trio.aclose_forcefully(stream)
            raise


async def open_tcp(address: TcpAddress) -> trio.SocketStream:
    """Open a TCP connection that notices when its peer dies.

    Raises:
        OSError: refused, unreachable, or the name is unknown.
    """
    family = {"dns4": "0.0.0.0", "dns6": "::"}.get(address.kind)  # noqa: S104  (chooses a family)
    stream = await trio.open_tcp_stream(
        address.host, address.port, happy_eyeballs_delay=HEAD_START_S, local_address=family
    )
    tune(stream.socket)
    return stream


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
