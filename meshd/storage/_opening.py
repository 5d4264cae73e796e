"""From a file to a database that may be used: its tables, whose it is, and whether it is whole.

Nothing here changes a database that is refused. One that lacks votes is used, but never for votes.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

from meshd.errors import MeshdError
from meshd.storage._head import HEAD_NAME, chained, head_file, read_head, write_head

SCHEMA_VERSION = 2  # 1 had no digest of the votes.

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

KEEP_VOTE = "INSERT OR REPLACE INTO votes VALUES (?, ?)"
_KEEP_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_DIGEST, _DIGEST_BEFORE = "votes digest", "votes digest before"


TROUBLE = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What using the database may raise. The last is Python's, over a message of SQLite's that quotes
damage; or over damaged text."""


def prepare(
    connection: sqlite3.Connection, path: Path, belongs: dict[str, str], *, is_new: bool
) -> None:
    """Make the tables of a new database, or see whether an existing one may be used.

    Args:
        connection: in autocommit mode.
        path: of the database.
        belongs: `owner` and `network`.
        is_new: whether there was nothing before.

    Raises:
        MeshdError: of a newer version, another node or another network.
        sqlite3.Error: damaged, or the disk refuses.
        OSError: likewise.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise MeshdError(
            "MESH-2004",
            f"{path} was written by a newer meshd (its version is {version}, "
            f"this program knows {SCHEMA_VERSION})",
            fix="install the newer meshd again; nothing was changed",
        )
    if version == 0 and not is_new:
        raise sqlite3.DatabaseError("the database is empty")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Not `quick_check`: an index that lacks a row hides it from whoever reads in order.
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.executemany(_KEEP_META, sorted(belongs.items()))
    _refuse_foreign(connection, path, belongs)
    if version == 1:
        connection.execute("BEGIN IMMEDIATE")
    if version < SCHEMA_VERSION:
        before = " ".join(belongs[name] for name in sorted(belongs))
        digest = chained(before, votes_in(connection))
        connection.executemany(_KEEP_META, [(_DIGEST_BEFORE, before), (_DIGEST, digest)])
        # Before the commit: a database with a digest has a head, whenever the power fails.
        write_head(head_file(path.parent), digest)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _refuse_foreign(connection: sqlite3.Connection, path: Path, belongs: dict[str, str]) -> None:
    """Raise if the database is another node's or another network's."""
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


def look_for_losses(connection: sqlite3.Connection, head: Path) -> None:
    """End voting, for good, if votes that were committed are not all there.

    Raises:
        OSError: the head cannot be read.
    """
    digest, before = digests_in(connection)
    shown = read_head(head)
    if chained(before, votes_in(connection)) != digest:
        reason = "the votes in meshd.db are not those that were committed"
    elif shown is None:
        reason = f"{HEAD_NAME} is missing, which says what the newest vote in meshd.db must be"
    elif shown not in (digest, before):
        reason = (
            f"{HEAD_NAME} names a newer vote than any in meshd.db: its newest were lost, or an "
            "older copy of one of the two files was put back"
        )
    else:
        return
    connection.execute("BEGIN IMMEDIATE")
    # One that is there already is older, and closer to the cause.
    connection.execute("INSERT OR IGNORE INTO votes VALUES (?, ?)", ("doubt", reason.encode()))
    chain_votes(connection)
    connection.execute("COMMIT")


def votes_in(connection: sqlite3.Connection) -> tuple[tuple[str, bytes], ...]:
    """Return the journal, sorted by key."""
    rows = connection.execute("SELECT key, vote FROM votes ORDER BY key")
    return tuple((key, vote) for key, vote in rows)


def digests_in(connection: sqlite3.Connection) -> tuple[str, str]:
    """Return the digest of the votes, and the one before the newest commit of votes."""
    found = dict(connection.execute("SELECT key, value FROM meta"))
    return found.get(_DIGEST, ""), found.get(_DIGEST_BEFORE, "")


def chain_votes(connection: sqlite3.Connection) -> None:
    """Bring the digest up to date, in the transaction that changes votes."""
    before, _ = digests_in(connection)
    rows = [(_DIGEST_BEFORE, before), (_DIGEST, chained(before, votes_in(connection)))]
    connection.executemany(_KEEP_META, rows)


def refuse_if_used(path: Path) -> None:
    """Raise unless the database holds neither a vote nor an entry."""
    try:
        # Not `ro`: a start that was killed while it made the file leaves a journal to roll back.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
            tables = "SELECT name FROM sqlite_master WHERE name IN ('votes', 'entries')"
            rows = [
                connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()  # noqa: S608
                for (name,) in connection.execute(tables).fetchall()
            ]
    except TROUBLE as error:
        raise refused(path, error) from error
    if any(rows):
        raise MeshdError(
            "MESH-2015",
            f"identity.key is missing beside {path}, which is in use",
            cause="the votes in it cannot be continued without the key that signed them",
            fix=f"put identity.key back, or move {path.parent} away to join as a new node",
        )


def refused(path: Path, error: sqlite3.Error | OSError | UnicodeDecodeError) -> MeshdError:
    """Return what to tell the operator about what SQLite or the disk said."""
    if isinstance(error, OSError):
        text = f"{error.strerror}: {error.filename or HEAD_NAME}"
        is_full, forbids = error.errno in (errno.ENOSPC, errno.EDQUOT), True
    else:
        text = f"SQLite: {error}"
        is_full = "full" in text or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        forbids = any(word in text for word in ("readonly", "unable to open", "I/O"))
    if is_full:
        return MeshdError(
            "MESH-2006",
            f"the disk that holds {path} is full",
            cause=text,
            fix=f"free some space on it ({path.parent}); the node votes again by itself afterwards",
        )
    if "locked" in text or "busy" in text:
        return MeshdError(
            "MESH-2009",
            f"another program has {path} open and locked",
            cause=text,
            fix="end it (a backup, a database shell?); nothing was lost",
        )
    if forbids:
        return MeshdError(
            "MESH-2001",
            f"{path} cannot be written",
            cause=text,
            fix="make the disk writable (is it mounted read-only after an error?)",
        )
    return MeshdError(
        "MESH-2003",
        f"{path} is damaged and was left as it is",
        cause=text,
        fix="move the whole state directory away: the machine then joins as a new node; "
        "never restore it from an older copy, because votes would be forgotten",
    )
