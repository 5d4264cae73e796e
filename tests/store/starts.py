"""Starts on disks that were made up: what the database is found to hold, or why it is refused."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ledger import NodeId
from meshd.errors import MeshdError
from meshd.storage import SqliteStore
from tests.store.powercut import lay

State = dict[str, bytes | None]
"""Relative path to content; None is a folder."""

DATABASE = frozenset(
    f"state/{name}"
    for name in ("meshd.db", "meshd.db-wal", "meshd.db-shm", "votes.head", ".votes.head.new")
)

Found = tuple[str, tuple[tuple[str, bytes], ...]]
"""Why a start is refused, or ""; the journal that it finds."""


@dataclass(frozen=True)
class Owner:
    """Whose database it is."""

    node: NodeId
    network: str

    @classmethod
    def of(cls, template: Path) -> Owner:
        with closing(sqlite3.connect(template / "state/meshd.db")) as connection:
            found = dict(connection.execute("SELECT key, value FROM meta"))
        return cls(NodeId(found["owner"]), found["network"])


@dataclass
class Starts:
    """Starts on disks; equal ones once."""

    folder: Path
    owner: Owner
    seen: dict[int, Found] = field(default_factory=dict)
    _kinds: dict[Found, Found] = field(default_factory=dict)  # Most find the same: kept once.

    def on(self, state: State) -> Found:
        """Return what a start on that disk finds."""
        known = hash(tuple(sorted(state.items())))
        if known not in self.seen:
            found = self._start(state)
            self.seen[known] = self._kinds.setdefault(found, found)
        return self.seen[known]

    def _start(self, state: State) -> Found:
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir()
        lay(state, self.folder)
        path, owner = self.folder / "state/meshd.db", self.owner
        try:
            with closing(SqliteStore.open(path, owner=owner.node, network=owner.network)) as store:
                return "", store.load().votes
        except MeshdError as error:
            return f"{error.code} {error.what}: {error.cause}", ()


def state_of(folder: Path) -> State:
    """Return what of a life's folder makes up its database, as it lies there."""
    return {
        f"state/{path.name}": path.read_bytes()
        for path in sorted((folder / "state").iterdir())
        if f"state/{path.name}" in DATABASE and not path.name.endswith("-shm")
    }
