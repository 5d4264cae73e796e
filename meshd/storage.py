"""What survives a power cut: one SQLite database in the state directory, with one writer.

Invariant: a row that was damaged is detected when it is loaded (votes and entries are signed, the
database is checked page by page), and a state directory that is not ours to write is refused or
set aside, never overwritten.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ledger import NodeId, encode_entry
from meshd.errors import MeshdError
from meshd.events import Persist

SCHEMA_VERSION = 1
HISTORY_ROWS_MAX = 10_000

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE entries (
  author TEXT NOT NULL, key TEXT NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (author, key)
) STRICT;
CREATE TABLE votes (key TEXT PRIMARY KEY, vote BLOB NOT NULL) STRICT;
CREATE TABLE peers (node TEXT PRIMARY KEY, addresses TEXT NOT NULL, seen INTEGER NOT NULL) STRICT;
CREATE TABLE history (
  id INTEGER PRIMARY KEY, wall_ms INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
"""

# Filesystems whose content is gone after a power cut (as /proc/mounts names them).
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "squashfs"})


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


@contextmanager
def locked_state_dir(state_dir: Path) -> Iterator[None]:
    """Make `state_dir` (0700) if it is missing and hold its lock, so that one daemon owns it.

    Raises:
        MeshdError: it cannot be made or written, or another daemon holds it.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_dir.chmod(0o700)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MeshdError(
            "MESH-2001",
            f"the state directory {state_dir} cannot be written: {error.strerror}",
            cause="votes and the identity must be kept on a disk that this daemon may write",
            fix="make it writable, or name another directory with --state-dir",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise MeshdError(
                "MESH-2002",
                f"another meshd daemon (process {owner}) uses {state_dir}",
                fix="stop that daemon, or give this one its own --state-dir",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(lock)


def volatile_reason(state_dir: Path, mounts: str) -> str | None:
    """Return why `state_dir` would not survive a power cut, or None if it would.

    Args:
        state_dir: an existing directory.
        mounts: the text of /proc/self/mounts (proc(5)); the last matching mount is the visible one.
    """
    path = state_dir.resolve()
    best: tuple[int, int, str, str, str] | None = None
    for order, line in enumerate(mounts.splitlines()):
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        # Blanks in mount points are written as octal escapes.
        point = fields[1].encode("ascii").decode("unicode_escape")
        if path == Path(point) or Path(point) in path.parents:
            found = (len(point), order, fields[2], point, fields[3])
            best = max(best, found) if best else found
    if best is None:
        return None
    _, _, kind, point, options = best
    if kind in VOLATILE_FILESYSTEMS:
        return f"{point} is a {kind}: its content is lost at a power cut"
    if kind == "overlay":
        upper = next((o[9:] for o in options.split(",") if o.startswith("upperdir=")), None)
        if upper is None:
            return f"{point} is a read-only overlay"
        if not Path(upper).is_dir():
            # A live system hides its writable layer, and so does a container, whose layer goes
            # with it.
            return f"{point} is an overlay whose writable layer cannot be seen from here"
        if Path(upper).resolve() != path:
            reason = volatile_reason(Path(upper), mounts)
            return f"{point} is an overlay, and {reason}" if reason else None
    return None


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
        self._turn = trio.Lock()

    @classmethod
    def create(cls, path: Path, *, owner: str, network: str) -> SqliteStore:
        """Make the database of a new identity, durably and before that identity is kept.

        What an earlier start left behind, which ended before its identity was kept, is replaced: no
        vote can be in it.

        Raises:
            MeshdError: a database in use lies there, or nothing can be written.
        """
        if path.exists():
            _refuse_if_used(path)
            for ending in ("", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
        return cls._connect(path, "rwc", owner=owner, network=network)

    @classmethod
    def open(cls, path: Path, *, owner: str, network: str) -> SqliteStore:
        """Open the database of the identity `owner` in `network`.

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
        connection = reader = None
        try:
            connection = sqlite3.connect(
                f"file:{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            _prepare(connection, path, {"owner": owner, "network": network})
            reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            return cls(connection, reader, path)
        except sqlite3.Error as error:
            raise _refused(path, error) from error
        finally:
            if reader is None and connection is not None:
                connection.close()

    def close(self) -> None:
        """Close the database; nothing that was committed is lost if this is never called."""
        self._reader.close()
        self._connection.close()

    def load(self) -> Saved:
        """Return everything a node is rebuilt from.

        Raises:
            MeshdError: a page cannot be read.
        """
        try:
            entries = self._connection.execute("SELECT entry FROM entries ORDER BY author, key")
            votes = self._connection.execute("SELECT key, vote FROM votes ORDER BY key")
            peers = self._connection.execute(
                "SELECT node, addresses FROM peers ORDER BY seen DESC, node"
            )
            return Saved(
                entries=tuple(row[0] for row in entries),
                votes=tuple((row[0], row[1]) for row in votes),
                peers=tuple((NodeId(row[0]), tuple(row[1].split())) for row in peers),
            )
        except sqlite3.DatabaseError as error:
            raise _refused(self._path, error) from error

    async def persist(self, change: Persist) -> None:
        """Commit `change` as one transaction, with an fsync, or change nothing."""
        await self._transact(
            [
                (
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
                    [(e.author, e.key, encode_entry(e)) for e in change.entries],
                ),
                ("INSERT OR REPLACE INTO votes VALUES (?, ?)", list(change.votes)),
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
            # Not abandoned on cancellation: a commit is either waited for or never begun.
            await trio.to_thread.run_sync(self._transact_sync, work)

    def _transact_sync(self, work: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, rows in work:
                self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _refused(self._path, error) from error


def _prepare(connection: sqlite3.Connection, path: Path, belongs: dict[str, str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise MeshdError(
            "MESH-2004",
            f"{path} was written by a newer meshd (its version is {version}, "
            f"this program knows {SCHEMA_VERSION})",
            fix="install the newer meshd again; nothing was changed",
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(belongs.items()))
    found = dict(connection.execute("SELECT key, value FROM meta"))
    if found.get("owner") != belongs["owner"]:
        raise MeshdError(
            "MESH-2005",
            f"{path} belongs to node {found.get('owner', 'unknown')}, but identity.key beside it "
            f"is {belongs['owner']}",
            cause="parts of two nodes' state were mixed; votes of another identity are not ours",
            fix="put the matching identity.key back, or move the whole directory away: "
            "the machine then joins as a new node",
        )
    if found.get("network") != belongs["network"]:
        raise MeshdError(
            "MESH-2014",
            f"this machine's state is of network {found.get('network', 'unknown')}, but its token "
            f"is of network {belongs['network']}",
            cause="what it voted and joined in one network means nothing in another",
            fix=f"put the first token back, or move {path.parent} away to join as a new node",
        )


def _refuse_if_used(path: Path) -> None:
    """Raise unless the database holds neither a vote nor an entry."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            tables = "SELECT name FROM sqlite_master WHERE name IN ('votes', 'entries')"
            rows = [
                connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()  # noqa: S608
                for (name,) in connection.execute(tables).fetchall()
            ]
    except sqlite3.Error as error:
        raise _refused(path, error) from error
    if any(rows):
        raise MeshdError(
            "MESH-2015",
            f"identity.key is missing beside {path}, which is in use",
            cause="the votes in it cannot be continued without the key that signed them",
            fix=f"put identity.key back, or move {path.parent} away to join as a new node",
        )


def _refused(path: Path, error: sqlite3.Error) -> MeshdError:
    text = str(error)
    name = getattr(error, "sqlite_errorname", "")
    if "full" in text or name == "SQLITE_FULL":
        return MeshdError(
            "MESH-2006",
            f"the disk that holds {path} is full",
            cause=f"SQLite: {text}",
            fix=f"free some space on it ({path.parent}); the node votes again by itself afterwards",
        )
    if "locked" in text or "busy" in text:
        return MeshdError(
            "MESH-2009",
            f"another program has {path} open and locked",
            cause=f"SQLite: {text}",
            fix="end it (a backup, a database shell?); nothing was lost",
        )
    if "readonly" in text or "unable to open" in text or "I/O" in text:
        return MeshdError(
            "MESH-2001",
            f"{path} cannot be written",
            cause=f"SQLite: {text}",
            fix="make the disk writable (is it mounted read-only after an error?)",
        )
    return MeshdError(
        "MESH-2003",
        f"{path} is damaged and was left as it is",
        cause=f"SQLite: {text}",
        fix="move the whole state directory away: the machine then joins as a new node; "
        "never restore it from an older copy, because votes would be forgotten",
    )
