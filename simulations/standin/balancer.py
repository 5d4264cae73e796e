"""The agent's load balancer on 127.0.0.1:6444: connections go to the first server that accepts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from simulations.standin.layout import write
from simulations.standin.log import fatal, log

PORT = 6444
_CONNECT_LIMIT_S = 2.0
_CHUNK_BYTES = 1 << 16


class Balancer:
    """Knows the servers, the one in use first; remembers them in `state` across restarts."""

    def __init__(self, server: str, state: Path | None) -> None:
        self._state = state
        self._servers = [server]
        if state is not None and state.is_file():
            saved = json.loads(state.read_bytes()).get("ServerAddresses") or []
            self._servers += [address for address in saved if address != server]

    async def listen(self) -> asyncio.Server:
        """Start; raises Exit if another k3s on this machine holds the port."""
        try:
            listener = socket.create_server(("127.0.0.1", PORT))
        except OSError as error:
            place = f"127.0.0.1:{PORT}"
            problem = f"listen tcp {place}: bind: address already in use"
            raise fatal(f"apiserver exited: failed to listen on {place}: {problem}") from error
        return await asyncio.start_server(self._carry, sock=listener)

    def learn(self, servers: Sequence[str]) -> None:
        """Take the servers' present list: one that left is forgotten, the used one stays first."""
        if not servers or sorted(servers) == sorted(self._servers):
            return
        kept = [address for address in self._servers if address in servers]
        self._servers = kept + [address for address in servers if address not in kept]
        if self._state is not None:
            content = {"ServerURL": f"https://{kept[0] if kept else servers[0]}"}
            write(self._state, json.dumps(content | {"ServerAddresses": self._servers}))

    def move_on(self) -> None:
        """Prefer another server: the one in use accepts but does not serve."""
        self._servers.append(self._servers.pop(0))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connected()
        if upstream is None:
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self._servers)):
            host, _, port = self._servers[0].rpartition(":")
            try:
                async with asyncio.timeout(_CONNECT_LIMIT_S):
                    return await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, TimeoutError):
                log("debug", f"Server {self._servers[0]} does not accept connections")
                self.move_on()
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # The other direction ends by itself.
    finally:
        writer.close()
