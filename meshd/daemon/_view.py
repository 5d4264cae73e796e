"""What the daemon lets its users read: implements `meshd.api.Readable` over the driven node."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ledger import Moment
from meshd.daemon._drive import Driver
from meshd.node import Node
from meshd.status import build_status, ledger_rows
from meshd.storage import SqliteStore

STALLED_S = 10.0


class View:
    """Reads the node between its turns; changes nothing."""

    def __init__(
        self, driver: Driver[Node], store: SqliteStore, read_moment: Callable[[], Moment]
    ) -> None:
        self._driver = driver
        self._store = store
        self._read_moment = read_moment
        self._started_at = read_moment().at

    def status_json(self) -> bytes:
        """Return the Status object of the public contract, encoded."""
        now = self._read_moment()
        status = build_status(self._driver.node, now, uptime_s=now.at - self._started_at)
        return msgspec.json.encode(status)

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

    def unready_reason(self) -> str | None:
        """Return why this node does not take part yet, or None."""
        status = build_status(self._driver.node, self._read_moment(), uptime_s=0.0)
        if status.genesis.phase == "formed":
            return None
        return status.node.waiting_for or f"genesis is {status.genesis.phase}"

    def stalled_reason(self) -> str | None:
        """Return why the daemon should be restarted, or None."""
        late_s = self._driver.idle_s - STALLED_S
        overdue_s = self._read_moment().at - self._driver.node.deadline
        if late_s > 0 and overdue_s > STALLED_S:
            return f"the node has had no turn for {self._driver.idle_s:.0f} s"
        return None
