"""Keeps a database of before a reset from being started again, and sets it aside.

Invariants: nothing is deleted; nothing that serves is stopped, because an operator who named a
living server dead must be able to see that; nothing is set aside before a server of now answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
import trio

from meshd.cluster import gate
from meshd.cluster.aside import aside_folder, set_aside
from meshd.cluster.hostinit import HostInit
from meshd.cluster.mark import Mark, read_mark, write_mark
from meshd.cluster.obstacle import Obstacle, refused, waiting
from meshd.cluster.paths import K3sPaths
from meshd.events import ClusterOrder, Retire
from meshd.whole_file import free_name, make_folder, sync_folder

SERVING_S = 120.0
"""How long an API server may be silent and still count as serving: a stall of all servers must not
end a majority that lives. A guess; a database that is not started yet waits for nothing."""

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Retiring:
    """`superseded`: a database of before is being served here, and left alone.

    Args:
        serves: whether an API server answers on this machine, whatever this node is ordered to be.
    """

    def __init__(
        self,
        state_dir: Path,
        paths: K3sPaths,
        hostinit: HostInit,
        serves: Callable[[], Awaitable[bool]],
    ) -> None:
        self._state_dir = state_dir
        self._paths = paths
        self._hostinit = hostinit
        self._serves = serves
        self.superseded = False
        self._answered_at: float | None = None

    async def retire(self, order: ClusterOrder, now: float) -> Obstacle | None:
        """Do what the order wants of an old database; return what the rest waits for."""
        self.superseded = False
        if self._answered_at is None:
            self._answered_at = now  # What ran before this life may have answered until then.
        retire = order.retire
        if retire is None:
            return None
        try:
            mark = read_mark(self._paths.server)
            if not isinstance(mark, Mark) or not _is_of_before(mark, retire):
                return None
            held = self._hostinit.look()
            if held.pid is not None and await self._serves():
                self._answered_at = now
            if held.pid is not None and now - self._answered_at < SERVING_S:
                # Nothing else is done meanwhile, either: what serves keeps its seat and its tokens.
                self.superseded = True
                return waiting(
                    f"k3s here serves the database of before epoch {retire.epoch} and is left "
                    "alone; restart it to have that set aside"
                )
            return await self._stop_and_move(retire, mark)
        except OSError as error:
            return refused(error)

    async def _stop_and_move(self, retire: Retire, mark: Mark) -> Obstacle | None:
        cluster = retire.cluster_id
        await trio.to_thread.run_sync(gate.revoke, self._state_dir, cluster)
        await self._hostinit.stop(cluster)
        held = self._hostinit.look()
        if held.pid is not None or (held.cluster == cluster and not held.down):
            return waiting("k3s with the database of before the reset is being stopped")
        if not retire.now:
            return waiting(
                f"a server of epoch {retire.epoch} to answer: this node's database is of before "
                "that reset, and is set aside then"
            )
        folder = aside_folder(self._paths, f"{cluster}-epoch-{mark.epoch}")
        if retire.wholly:
            await trio.to_thread.run_sync(lambda: set_aside(self._paths, cluster, to=folder))
        else:
            await trio.to_thread.run_sync(self._move_database, folder)
            node_ip = retire.address or mark.node_ip
            fresh = msgspec.structs.replace(mark, epoch=retire.epoch, node_ip=node_ip)
            write_mark(self._paths.server, fresh)
        _LOG.warning("database_set_aside", cluster=cluster, epoch=mark.epoch, folder=str(folder))
        return None

    def _move_database(self, folder: Path) -> None:
        """Set the database aside by one rename; k3s then joins as one that lost it."""
        database = self._paths.server / "db" / "etcd"
        if not database.exists():
            return  # Moved, and then the power failed.
        make_folder(folder, mode=0o700)
        database.rename(free_name(folder / "etcd"))
        sync_folder(folder)
        sync_folder(database.parent)


def _is_of_before(mark: Mark, retire: Retire) -> bool:
    return mark.cluster_id == retire.cluster_id and mark.epoch < retire.epoch
