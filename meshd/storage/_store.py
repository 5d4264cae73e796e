"""What survives a power cut: one SQLite database in the state directory, with one writer.

Invariant: a row that was damaged is detected when it is loaded (votes and entries are signed, the
database is checked page by page), so is a vote that is missing (`meshd.storage._head`), and a state
directory that is not ours to write is refused or set aside, never overwritten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from ledger import NodeId, encode_entry
from meshd.errors import MeshdError
from meshd.events import Persist
from meshd.storage._head import chained, head_file, read_head, write_head
from meshd.storage._opening import (
    KEEP_VOTE,
    TROUBLE,
    chain_votes,
    digests_in,
    look_for_losses,
    prepare,
    refuse_if_used,
    refused,
    votes_in,
)

HISTORY_ROWS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a start finds: encoded entries, journal rows, remembered peers."""

    entries: tuple[bytes, ...]
    votes: tuple[tuple[str, bytes], ...]
    peers: tuple[tuple[NodeId, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One line of what happened on this node."""

    number: int
    wall_ms: int
    kind: str
    text: str


class SqliteStore:
    """The database `meshd.db`. Implements `meshd.ports.Store`.

    SQLite runs in a worker thread, one call at a time: a slow disk delays votes, never heartbeats.
    """

    def __init__(
        self, connection: sqlite3.Connection, reader: sqlite3.Connection, path: Path
    ) -> None:
        self._connection = connection
        self._reader = reader  # Its reads never wait for a commit (WAL).
        self._path = path
        self._head = head_file(path.parent)
        self._shown = read_head(self._head)
        self._turn = trio.Lock()
        self._writes_since: float | None = None

    @classmethod
    def create(cls, path: Path, *, owner: str, network: str) -> SqliteStore:
        """Make the database of a new identity, durably and before that identity is kept.

        What an earlier start left behind, which ended before its identity was kept, is replaced: no
        vote can be in it.

        Raises:
            MeshdError: a database in use lies there, or nothing can be written.
        """
        if path.exists():
            refuse_if_used(path)
        left = [path.with_name(path.name + ending) for ending in ("", "-journal", "-wal", "-shm")]
        try:
            for file in (*left, head_file(path.parent)):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise refused(path, error) from error
        return cls._connect(path, "rwc", owner=owner, network=network)

    @classmethod
    def open(cls, path: Path, *, owner: str, network: str) -> SqliteStore:
        """Open the database of the identity `owner` in `network`.

        If votes are missing from it, a row is added that ends voting (`roles._journal`).

        Raises:
            MeshdError: missing, damaged, of a newer version, another node or network, or not
                writable.
        """
        if not path.exists():
            raise MeshdError(
                "MESH-2008",
                f"{path} is missing, but identity.key beside it is there",
                cause="the votes of this identity are gone; voting again could start a second "
                "cluster",
                fix=f"move {path.parent} away: the machine then joins as a new node",
            )
        return cls._connect(path, "rw", owner=owner, network=network)

    @classmethod
    def _connect(cls, path: Path, mode: str, *, owner: str, network: str) -> SqliteStore:
        connection = reader = store = None
        try:
            connection = sqlite3.connect(
                f"file:{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            belongs = {"owner": owner, "network": network}
            prepare(connection, path, belongs, is_new=mode == "rwc")
            look_for_losses(connection, head_file(path.parent))
            reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            store = cls(connection, reader, path)
            store._show_head()
        except TROUBLE as error:
            raise refused(path, error) from error
        else:
            return store
        finally:
            if store is None:
                for opened in (reader, connection):
                    if opened is not None:
                        opened.close()

    def close(self) -> None:
        """Close the database; nothing that was committed is lost if this is never called."""
        self._reader.close()
        self._connection.close()

    @property
    def slow_s(self) -> float:
        """Seconds that the write under way has taken; 0 if there is none."""
        return 0.0 if self._writes_since is None else trio.current_time() - self._writes_since

    def load(self) -> Saved:
        """Return everything a node is rebuilt from.

        Raises:
            MeshdError: a page cannot be read.
        """
        try:
            entries = self._connection.execute("SELECT entry FROM entries ORDER BY author, key")
            votes = votes_in(self._connection)
            digest, before = digests_in(self._connection)
            if chained(before, votes) != digest:
                raise sqlite3.DatabaseError("votes are not those that were committed")
            peers = self._connection.execute(
                "SELECT node, addresses FROM peers ORDER BY seen DESC, node"
            )
            return Saved(
                entries=tuple(row[0] for row in entries),
                votes=votes,
                peers=tuple((NodeId(row[0]), tuple(row[1].split())) for row in peers),
            )
        except TROUBLE as error:
            raise refused(self._path, error) from error

    async def persist(self, change: Persist) -> None:
        """Commit `change` as one transaction, with an fsync, or change nothing.

        If only the head cannot be written, the votes stay committed, and nobody is to be told of
        them before a later commit or `probe` has written it.
        """
        await self._transact(
            [
                (
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
                    [(e.author, e.key, encode_entry(e)) for e in change.entries],
                ),
                (KEEP_VOTE, list(change.votes)),
            ]
        )

    async def probe(self) -> None:
        """Write as much as a large commit would, and take it back."""
        await self._transact(
            [("INSERT OR REPLACE INTO meta VALUES ('probe', ?)", [("x" * 65536,)])]
        )
        await self._transact([("DELETE FROM meta WHERE key = ?", [("probe",)])])

    async def remember_peer(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """Keep a peer's addresses for the next start."""
        statement = (
            "INSERT OR REPLACE INTO peers SELECT ?, ?, coalesce(max(seen), 0) + 1 FROM peers"
        )
        await self._transact([(statement, [(peer, " ".join(addresses))])])

    async def append_history(self, wall_ms: int, kind: str, text: str) -> None:
        """Keep a line of history, and drop the oldest beyond `HISTORY_ROWS_MAX`."""
        insert = "INSERT INTO history (wall_ms, kind, text) VALUES (?, ?, ?)"
        trim = "DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?"
        await self._transact([(insert, [(wall_ms, kind, text)]), (trim, [(HISTORY_ROWS_MAX,)])])

    def history(self, *, after: int = 0, limit: int = 1000) -> tuple[HistoryRow, ...]:
        """Return the newest `limit` rows numbered above `after`, oldest first."""
        rows = self._reader.execute(
            "SELECT id, wall_ms, kind, text FROM history WHERE id > ? ORDER BY id DESC LIMIT ?",
            (after, limit),
        ).fetchall()
        return tuple(
            HistoryRow(number=n, wall_ms=wall_ms, kind=kind, text=text)
            for n, wall_ms, kind, text in reversed(rows)
        )

    async def _transact(self, work: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        async with self._turn:
            self._writes_since = trio.current_time()
            try:
                # Not abandoned on cancellation: a commit is either waited for or never begun.
                await trio.to_thread.run_sync(self._transact_sync, work)
            finally:
                self._writes_since = None

    def _transact_sync(self, work: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, rows in work:
                self._connection.executemany(statement, rows)
                if statement == KEEP_VOTE and rows:
                    chain_votes(self._connection)
            self._connection.execute("COMMIT")
        except TROUBLE as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise refused(self._path, error) from error
        try:
            self._show_head()
        except TROUBLE as error:
            raise refused(self._path, error) from error

    def _show_head(self) -> None:
        """Let the head say what is committed, if it does not yet.

        Raises:
            OSError: the disk refuses.
            sqlite3.Error: likewise.
        """
        digest, _ = digests_in(self._connection)
        if self._shown != digest:
            write_head(self._head, digest)
            self._shown = digest
