"""Which server a worker's agent is told to join, and when it is started again for another.

k3s' agent tries the server that it was told, for ever, until it has joined once and learned of the
others; it neither ends nor reads its file again.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from meshd.cluster.course import RUNS_S
from meshd.cluster.hostinit import Held
from meshd.cluster.mark import read_disk
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import Launch, url_of
from meshd.events import ClusterOrder

PATIENCE_S = 120.0
"""So long a server that others find may not let this node in, doubled each time. A guess: a slow
board joins within a minute, and each restart costs what was begun."""

_DOUBLINGS_MAX = 5

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Guide:
    """The way of this node's agent to a server."""

    def __init__(self, paths: K3sPaths) -> None:
        self._paths = paths
        self._turns = 0
        self._left: str | None = None  # URL of the server that was tried long enough.

    def turned(self, order: ClusterOrder, held: Held, hangs_s: float) -> ClusterOrder:
        """Return the order with the server first that is to be tried now.

        Args:
            hangs_s: how long k3s has run without ever having been ready; 0 if it has.

        Raises:
            OSError: the disk cannot be read.
        """
        if order.seat != "worker" or len(order.join) < 2:
            return order
        patience = PATIENCE_S * 2 ** min(self._turns, _DOUBLINGS_MAX)
        if hangs_s >= patience and not read_disk(self._paths).has_agent_files:
            self._left = held.server
            self._turns += 1
        first = self._turns % len(order.join)
        return replace(order, join=(*order.join[first:], *order.join[:first]))

    def astray(self, order: ClusterOrder, held: Held, launch: Launch, hangs_s: float) -> int | None:
        """Return the process of an agent that waits for a server which it is not to wait for."""
        elsewhere = held.server is not None and held.server != launch.server
        if order.seat != "worker" or not elsewhere or hangs_s < RUNS_S:
            return None
        serves = held.server in [url_of(address) for address in order.join]
        if serves and held.server != self._left:
            return None
        _LOG.info("agent_started_again", waited_for=held.server, joins=launch.server)
        return held.pid
