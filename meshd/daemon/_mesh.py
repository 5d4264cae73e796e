"""The mesh as the daemon sets it up."""

from __future__ import annotations

from functools import partial

from structlog.typing import FilteringBoundLogger

from meshd.clock import read_moment
from meshd.config import Settings
from meshd.identity import Identity
from meshd.mesh import LibP2PMesh
from meshd.storage import SqliteStore


def mesh_of(
    settings: Settings, identity: Identity, store: SqliteStore, log: FilteringBoundLogger
) -> LibP2PMesh:
    """Return this node's mesh, not running yet."""
    return LibP2PMesh(
        private_key=identity.private_key,
        network=settings.network,
        listen=settings.listen,
        read_moment=read_moment,
        discovery=settings.discovery,
        seeds=settings.seeds,
        remembered=dict(store.load().peers),
        interface=settings.interface,
        not_ours=[settings.vip] if settings.vip is not None else [],
        log=partial(_log_of_mesh, log),
    )


def _log_of_mesh(log: FilteringBoundLogger, kind: str, text: str) -> None:
    # Two networks on one LAN are nothing that anybody needs to mend.
    (log.info if kind == "other_network_near" else log.warning)(kind, text=text)
