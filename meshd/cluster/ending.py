"""Ends clusters that were given up before they had formed: k3s down, containers gone, data aside.

Invariant: a cluster is in `ended` only once nothing of it runs on this node, and nothing starts it.
"""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from meshd.cluster import gate
from meshd.cluster.aside import aside_folder, end_containers, set_aside
from meshd.cluster.hostinit import HostInit
from meshd.cluster.obstacle import Obstacle, refused
from meshd.cluster.paths import K3sPaths
from meshd.events import ClusterOrder

GIVEN_UP = "this start of the cluster is given up: k3s stays down until that is decided"

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Ending:
    """What of the orders to end something is carried out.

    `trouble` is why something of an earlier cluster could not be moved; the ordered one may run
    all the same.
    """

    def __init__(self, state_dir: Path, paths: K3sPaths, hostinit: HostInit) -> None:
        self._state_dir = state_dir
        self._paths = paths
        self._hostinit = hostinit
        self.ended: tuple[str, ...] = ()
        self.trouble: Obstacle | None = None
        self._emptied: set[str] = set()  # Clusters of which no container is left,
        self._aside: set[str] = set()  # and whose data were moved, in this life.

    async def end(self, order: ClusterOrder) -> Obstacle | None:
        """End what the order wants ended, and note what is; return what the rest waits for."""
        plan, ended, self.trouble = order.plan, list[str](), None
        stop = (plan.cluster_id,) if order.stop and plan is not None else ()
        waiting = None
        try:
            for cluster in (*order.abandoned, *stop):
                if cluster in self._aside:  # Down, and nothing is left that could be started.
                    ended.append(cluster)
                    continue
                await trio.to_thread.run_sync(gate.revoke, self._state_dir, cluster)
                await self._hostinit.stop(cluster)
                held = self._hostinit.look()
                if held.cluster == cluster and not held.down:
                    sentence = f"k3s of cluster {cluster[:8]}, which is given up, is being stopped"
                    waiting = Obstacle(state="waiting", sentence=sentence)
                    continue
                await self._clear_away(cluster, aside=cluster in order.abandoned)
                ended.append(cluster)
        except OSError as error:
            self.trouble = refused(error)  # Of an earlier cluster: the ordered one may run.
        self.ended = tuple(ended)
        if waiting is None and order.stop:
            waiting = Obstacle(state="waiting", sentence=GIVEN_UP)
        return waiting

    async def _clear_away(self, cluster: str, *, aside: bool) -> None:
        """End what a cluster that is down left running, and move its data, each once."""
        if cluster not in self._emptied:
            if self._hostinit.look().cluster in (None, cluster):
                await trio.to_thread.run_sync(end_containers, self._paths)
            self._emptied.add(cluster)
        if not aside:
            return
        if await trio.to_thread.run_sync(set_aside, self._paths, cluster):
            folder = str(aside_folder(self._paths, cluster))
            _LOG.warning("data_set_aside", cluster=cluster, folder=folder)
        self._aside.add(cluster)
