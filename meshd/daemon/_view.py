"""What the daemon lets its users read: implements `meshd.api.Readable` over the driven node."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ledger import Moment, NodeId
from meshd import __version__
from meshd.daemon._drive import Driver
from meshd.explain import Given, Topic, explain
from meshd.figures import read_figures
from meshd.metrics import Exposition, Snapshot, Tally
from meshd.node import Node, sealed_key
from meshd.schema import ADMIN_DIGEST_BYTES, ADMIN_KUBECONFIG
from meshd.status import build_status, ledger_rows
from meshd.storage import SqliteStore

STALLED_S = 10.0


class View:
    """Reads the node between its turns; changes nothing."""

    def __init__(
        self,
        driver: Driver[Node],
        store: SqliteStore,
        *,
        read_moment: Callable[[], Moment],
        tally: Tally,
        read_given: Callable[[], Given],
        admin_kubeconfig: Path,
    ) -> None:
        self._driver = driver
        self._store = store
        self._read_moment = read_moment
        self._tally = tally
        self._admin_kubeconfig = admin_kubeconfig
        self._exposition = Exposition()
        self._read_given = read_given

    def status_json(self) -> bytes:
        """Return the Status object of the public contract, encoded."""
        now = self._read_moment()
        status = build_status(self._driver.node, now, uptime_s=now.at - self._tally.started_at)
        return msgspec.json.encode(status)

    def explanation_json(self, topic: Topic, wanted: str | None) -> bytes:
        """Return the Explanation object of the public contract, encoded.

        Raises:
            NoSuchNode: `wanted` names no node, or several.
        """
        return msgspec.json.encode(explain(self._driver.node, self._read_given(), topic, wanted))

    def ledger_rows(self, *, author: str | None, prefix: str | None) -> list[dict[str, object]]:
        """Return the ledger's entries, those of `author` (name or id) and `prefix` only."""
        rows = ledger_rows(self._driver.node, self._read_moment(), author=author, prefix=prefix)
        return [msgspec.to_builtins(row) for row in rows]

    def history_rows(self, *, after: int) -> list[dict[str, object]]:
        """Return what happened, numbered above `after`, oldest first."""
        rows = self._store.history(after=after)
        return [
            {"number": r.number, "wall_ms": r.wall_ms, "kind": r.kind, "text": r.text} for r in rows
        ]

    async def history_grew(self, *, after: int) -> None:
        """Return when there is history above `after`."""
        if not self._store.history(after=after, limit=1):
            await self._driver.history_grew.park()

    def kubeconfig_sources(self, recipients: Sequence[str]) -> dict[str, object]:
        """Return where a kubeconfig may be had: a file on a server, copies that are sealed.

        Nothing here is secret: who may read that file decides its mode, and each copy opens for
        the owner of a key only.
        """
        node = self._driver.node
        entries = [
            entry
            for recipient in recipients
            for entry in node.replica.get(
                sealed_key(NodeId(recipient), ADMIN_KUBECONFIG, node.standing.generation)
            )
        ]
        return {
            "file": str(self._admin_kubeconfig) if node.seat in ("initialiser", "server") else None,
            "sealed": [
                {
                    "recipient": entry.key.split("/")[1],
                    "author": node.directory.name(entry.author),
                    "stamp_ms": entry.stamp_ms,
                    "value": base64.b64encode((entry.value or b"")[ADMIN_DIGEST_BYTES:]).decode(),
                }
                for entry in entries
            ],
        }

    def metrics(self) -> bytes:
        """Return the text of `/metrics`."""
        return self._exposition.render(
            Snapshot(
                figures=read_figures(self._driver.node),
                tally=self._tally,
                version=__version__,
                now=self._read_moment().at,
            )
        )

    def unready_reason(self) -> str | None:
        """Return why this node has not joined its network or has no role yet, or None."""
        node = self._driver.node
        if node.standing.plan is None and node.facts.role_wish != "none":
            return node.waiting_for or f"genesis is {node.genesis.state.phase}"
        # A network of one has nobody to join.
        alone = node.bounds.nodes_max == 1
        if not alone and not any(one.connected for one in node.directory.others()):
            return "no other node of this network is connected"
        return None

    def stalled_reason(self) -> str | None:
        """Return why this daemon is of no use as it is, or None: loop and database are alive."""
        trouble = self._driver.storage_trouble
        if trouble is not None:
            return f"{trouble.code}: {trouble.what}"
        if self._store.slow_s > STALLED_S:
            return f"MESH-2030: the disk has not finished a write for {self._store.slow_s:.0f} s"
        late_s = self._driver.idle_s - STALLED_S
        overdue_s = self._read_moment().at - self._driver.node.deadline
        if late_s > 0 and overdue_s > STALLED_S:
            return f"the node has had no turn for {self._driver.idle_s:.0f} s"
        return None
