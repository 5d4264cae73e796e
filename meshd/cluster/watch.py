"""The eyes on k3s: its API, the VIP, and what its log complained about lately."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from meshd.cluster.complaints import Complaint, complaint_in
from meshd.cluster.hostinit import Held
from meshd.cluster.k3s import AgentApi, ServerApi, ServerReading
from meshd.cluster.kubevip import VipProbe
from meshd.cluster.paths import K3sPaths
from meshd.events import ClusterOrder

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()

COMPLAINT_S = 15.0
"""How long a complaint counts: k3s repeats what holds it up every 2 to 10 s."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """One look.

    Args:
        server: None on a worker, or while k3s does not run.
        worker: why this worker is not ready; None if it is, and on servers.
    """

    server: ServerReading | None = None
    worker: str | None = None
    vip_answers: bool = False


class Watch:
    """Looks at k3s on this node over connections that it keeps."""

    def __init__(self, paths: K3sPaths, node_name: str) -> None:
        self._paths = paths
        self._server: ServerApi | None = None
        self._any = ServerApi(paths, {})
        self._agent = AgentApi(paths, node_name)
        self._vip: VipProbe | None = None
        self._vip_address: str | None = None
        self._complaint: tuple[Complaint, float] | None = None

    async def api_answers(self) -> bool:
        """Whether an API server answers here, whatever this node is ordered to be."""
        return (await self._any.read(thorough=False)).api_answers

    async def use_passwords(self, *, server: str | None, node: str) -> None:
        """Read with these from now on."""
        await self.close()
        self._server = None
        if server is not None:
            self._server = ServerApi(self._paths, {"server": server, "node": node})

    def listen(self, lines: Iterable[str], now: float) -> None:
        """Take note of what k3s wrote."""
        complaint = complaint_in(lines)
        if complaint is not None:
            self._complaint = complaint, now

    def complaint(self, now: float) -> Complaint | None:
        """Return what k3s complained about lately."""
        if self._complaint is None or now - self._complaint[1] > COMPLAINT_S:
            return None
        return self._complaint[0]

    async def look(self, order: ClusterOrder, held: Held, *, thorough: bool) -> Reading:
        """Look at k3s and the VIP at the same time, so that a dead one hides not the other."""
        reading = Reading()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_at_vip, order, reading)
            if held.pid is not None:
                nursery.start_soon(partial(self._look_at_k3s, reading, thorough=thorough))
        return reading

    async def remove_node(self, name: str) -> None:
        """Remove the Node, and with it the member of etcd, of a server that lost its database."""
        if self._server is not None and await self._server.remove_node(name):
            _LOG.warning("member_removed", node=name, why="its database is lost; it joins afresh")

    async def close(self) -> None:
        """Drop all connections."""
        await self._agent.close()
        await self._any.close()
        if self._server is not None:
            await self._server.close()
        if self._vip is not None:
            await self._vip.close()

    async def _look_at_k3s(self, reading: Reading, *, thorough: bool) -> None:
        if self._server is not None:
            reading.server = await self._server.read(thorough=thorough)
        else:
            reading.worker = await self._agent.obstacle()

    async def _look_at_vip(self, order: ClusterOrder, reading: Reading) -> None:
        address = order.plan.vip if order.plan is not None and order.formed else None
        if address != self._vip_address:
            if self._vip is not None:
                await self._vip.close()
            folder = self._paths.agent if order.seat == "worker" else self._paths.tls
            self._vip = None if address is None else VipProbe(address, folder / "server-ca.crt")
            self._vip_address = address
        if self._vip is not None:
            reading.vip_answers = await self._vip.answers()
