"""The store: durable or unchanged, and never somebody else's."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import NodeId, Signer
from meshd.errors import MeshdError
from meshd.events import Persist
from meshd.storage import HISTORY_ROWS_MAX, SqliteStore

ME = Signer(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)).node_id
NETWORK = "oak-00000001"
VOTES = (("accept/1/claim", b"a vote"), ("promise/1/claim", b"a promise"))


Open = Callable[[Path], SqliteStore]


@pytest.fixture
def reopened() -> Iterator[Open]:
    """Open as a start does, and close after the test only: a killed daemon says no goodbye."""
    with ExitStack() as stack:

        def open_store(path: Path) -> SqliteStore:
            opened = SqliteStore.open if path.exists() else SqliteStore.create
            return stack.enter_context(closing(opened(path, owner=ME, network=NETWORK)))

        yield open_store


async def test_what_was_persisted_is_there_after_a_restart(tmp_path: Path, reopened: Open) -> None:
    store = reopened(tmp_path / "meshd.db")
    await store.persist(Persist(votes=VOTES))
    await store.persist(Persist(votes=(("accept/1/claim", b"a newer vote"),)))
    await store.remember_peer(NodeId("n2"), ["/ip4/10.0.0.12/tcp/7946"])
    saved = reopened(tmp_path / "meshd.db").load()
    assert saved.votes == (("accept/1/claim", b"a newer vote"), VOTES[1])
    assert saved.peers == ((NodeId("n2"), ("/ip4/10.0.0.12/tcp/7946",)),)


async def test_commits_are_synchronised_to_the_disk(tmp_path: Path, reopened: Open) -> None:
    store = reopened(tmp_path / "meshd.db")
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_full_disk_is_an_error_with_a_fix_and_changes_nothing(
    tmp_path: Path, reopened: Open
) -> None:
    store = reopened(tmp_path / "meshd.db")
    await store.persist(Persist(votes=VOTES[:1]))
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(MeshdError, match="is full") as caught:
        await store.persist(Persist(votes=(VOTES[1], ("accept/1/started", b"x" * 200_000))))
    assert caught.value.code == "MESH-2006"
    with pytest.raises(MeshdError, match="is full"):
        await store.probe()
    assert store.load().votes == VOTES[:1]
    store._connection.execute("PRAGMA max_page_count = 100000")
    await store.probe()
    await store.persist(Persist(votes=VOTES[1:]))
    assert store.load().votes == VOTES


def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, reopened: Open) -> None:
    path = tmp_path / "meshd.db"
    reopened(path).close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(MeshdError, match="is damaged") as caught:
        reopened(path)
    assert caught.value.code == "MESH-2003"
    assert path.read_bytes() == bytes(content)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, reopened: Open
) -> None:
    path = tmp_path / "meshd.db"
    path.write_bytes(b"these are not the votes" * 100)
    with pytest.raises(MeshdError, match="is damaged"):
        reopened(path)
    assert path.read_bytes() == b"these are not the votes" * 100


def test_a_database_whose_damage_is_no_text_is_refused_like_any_other(
    tmp_path: Path, reopened: Open
) -> None:
    """SQLite's message quotes the damaged statement, and Python cannot decode the message."""
    path = tmp_path / "meshd.db"
    reopened(path).close()
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE votes") == 1
    path.write_bytes(content.replace(b"CREATE TABLE votes", b"CREATE TA\xd8LE votes"))
    with pytest.raises(MeshdError, match="is damaged") as caught:
        reopened(path)
    assert caught.value.code == "MESH-2003"


def test_an_emptied_database_is_not_begun_anew(tmp_path: Path, reopened: Open) -> None:
    path = tmp_path / "meshd.db"
    reopened(path).close()
    path.write_bytes(b"")
    with pytest.raises(MeshdError, match="is damaged") as caught:
        reopened(path)
    assert caught.value.code == "MESH-2003"
    assert path.read_bytes() == b""


async def voted(path: Path, reopened: Open) -> SqliteStore:
    """Return a store with two commits of votes, as a running daemon has it."""
    store = reopened(path)
    await store.persist(Persist(votes=VOTES[:1]))
    await store.persist(Persist(votes=VOTES[1:]))
    return store


def after_a_crash(path: Path, to: Path) -> Path:
    """Return a copy of the database as it lies there while the daemon runs."""
    to.mkdir()
    for file in path.parent.glob("*"):
        if file.is_file():
            shutil.copy(file, to)
    return to / path.name


async def test_a_vote_whose_commit_is_damaged_in_the_log_is_missed(
    tmp_path: Path, reopened: Open
) -> None:
    await voted(tmp_path / "meshd.db", reopened)
    path = after_a_crash(tmp_path / "meshd.db", tmp_path / "copy")
    log = path.with_name("meshd.db-wal")
    content = bytearray(log.read_bytes())
    content[-5000] ^= 1  # In the last commit, which SQLite then passes over without a word.
    log.write_bytes(content)
    votes = dict(reopened(path).load().votes)
    assert votes["accept/1/claim"] == VOTES[0][1]
    assert "promise/1/claim" not in votes
    assert b"votes.head" in votes["doubt"]
    assert "doubt" in dict(reopened(path).load().votes), "and so it stays"


async def test_votes_are_missed_when_the_log_is_gone(tmp_path: Path, reopened: Open) -> None:
    reopened(tmp_path / "meshd.db").close()  # Which copies the log into the database.
    await voted(tmp_path / "meshd.db", reopened)
    path = after_a_crash(tmp_path / "meshd.db", tmp_path / "copy")
    path.with_name("meshd.db-wal").unlink()
    assert set(dict(reopened(path).load().votes)) == {"doubt"}


async def test_a_database_whose_first_log_is_gone_is_not_begun_anew(
    tmp_path: Path, reopened: Open
) -> None:
    await voted(tmp_path / "meshd.db", reopened)
    path = after_a_crash(tmp_path / "meshd.db", tmp_path / "copy")
    path.with_name("meshd.db-wal").unlink()
    with pytest.raises(MeshdError, match="is damaged"):
        reopened(path)


async def test_an_older_copy_of_the_database_is_not_voted_from(
    tmp_path: Path, reopened: Open
) -> None:
    store = reopened(tmp_path / "meshd.db")
    await store.persist(Persist(votes=VOTES[:1]))
    older = after_a_crash(tmp_path / "meshd.db", tmp_path / "older")
    await store.persist(Persist(votes=VOTES[1:]))
    shutil.copy(tmp_path / "votes.head", older.parent)
    assert "doubt" in dict(reopened(older).load().votes)


async def test_a_row_that_was_taken_out_is_missed(tmp_path: Path, reopened: Open) -> None:
    (await voted(tmp_path / "meshd.db", reopened)).close()
    with closing(sqlite3.connect(tmp_path / "meshd.db", isolation_level=None)) as other:
        other.execute("DELETE FROM votes WHERE key = 'promise/1/claim'")
    assert "doubt" in dict(reopened(tmp_path / "meshd.db").load().votes)


async def test_a_head_that_is_gone_or_damaged_ends_voting(tmp_path: Path, reopened: Open) -> None:
    await voted(tmp_path / "meshd.db", reopened)
    for name, content in (("gone", None), ("damaged", b"\xff\0"), ("zeroed", b"\0" * 65)):
        path = after_a_crash(tmp_path / "meshd.db", tmp_path / name)
        head = path.with_name("votes.head")
        head.unlink() if content is None else head.write_bytes(content)
        assert "doubt" in dict(reopened(path).load().votes), name


async def test_a_crash_between_a_commit_and_its_head_is_no_loss(
    tmp_path: Path, reopened: Open
) -> None:
    store = reopened(tmp_path / "meshd.db")
    await store.persist(Persist(votes=VOTES[:1]))
    older_head = (tmp_path / "votes.head").read_bytes()
    await store.persist(Persist(votes=VOTES[1:]))
    path = after_a_crash(tmp_path / "meshd.db", tmp_path / "copy")
    path.with_name("votes.head").write_bytes(older_head)
    assert reopened(path).load().votes == VOTES
    assert path.with_name("votes.head").read_bytes() == (tmp_path / "votes.head").read_bytes()


async def test_a_vote_counts_as_kept_only_once_its_head_is(
    tmp_path: Path, reopened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = reopened(tmp_path / "meshd.db")
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MeshdError, match="is full") as caught:
        await store.persist(Persist(votes=VOTES))
    assert caught.value.code == "MESH-2006"
    with pytest.raises(MeshdError, match="is full"):
        await store.probe()
    monkeypatch.setattr(os, "fsync", real)
    await store.probe()  # After which the node is built anew, and may repeat what it finds.
    path = after_a_crash(tmp_path / "meshd.db", tmp_path / "copy")
    assert reopened(path).load().votes == VOTES


async def test_a_database_from_before_there_was_a_head_is_taken_over(
    tmp_path: Path, reopened: Open
) -> None:
    (await voted(tmp_path / "meshd.db", reopened)).close()
    (tmp_path / "votes.head").unlink()
    with closing(sqlite3.connect(tmp_path / "meshd.db", isolation_level=None)) as other:
        other.execute("DELETE FROM meta WHERE key LIKE 'votes%'")
        other.execute("PRAGMA user_version = 1")
    assert reopened(tmp_path / "meshd.db").load().votes == VOTES
    assert reopened(tmp_path / "meshd.db").load().votes == VOTES


def test_the_database_of_another_node_is_refused(tmp_path: Path, reopened: Open) -> None:
    reopened(tmp_path / "meshd.db").close()
    with pytest.raises(MeshdError, match="belongs to node") as caught:
        SqliteStore.open(tmp_path / "meshd.db", owner=NodeId("another"), network=NETWORK)
    assert caught.value.code == "MESH-2005"


def test_the_state_of_another_network_is_refused(tmp_path: Path, reopened: Open) -> None:
    reopened(tmp_path / "meshd.db").close()
    with pytest.raises(MeshdError, match="is of network oak-00000001, but its token") as caught:
        SqliteStore.open(tmp_path / "meshd.db", owner=ME, network="elm-00000002")
    assert caught.value.code == "MESH-2014"


def test_an_identity_whose_database_is_gone_does_not_begin_again(tmp_path: Path) -> None:
    with pytest.raises(MeshdError, match="is missing, but identity") as caught:
        SqliteStore.open(tmp_path / "meshd.db", owner=ME, network=NETWORK)
    assert caught.value.code == "MESH-2008"
    assert not list(tmp_path.iterdir())


async def test_a_database_in_use_is_not_replaced_when_its_key_is_gone(
    tmp_path: Path, reopened: Open
) -> None:
    await reopened(tmp_path / "meshd.db").persist(Persist(votes=VOTES))
    with pytest.raises(MeshdError, match="in use") as caught:
        SqliteStore.create(tmp_path / "meshd.db", owner=NodeId("new"), network=NETWORK)
    assert caught.value.code == "MESH-2015"
    assert reopened(tmp_path / "meshd.db").load().votes == VOTES


def test_a_first_start_that_ended_before_its_key_was_kept_is_begun_again(
    tmp_path: Path, reopened: Open
) -> None:
    reopened(tmp_path / "meshd.db")
    again = SqliteStore.create(tmp_path / "meshd.db", owner=NodeId("new"), network=NETWORK)
    again.close()
    with pytest.raises(MeshdError, match="belongs to node new"):
        reopened(tmp_path / "meshd.db")


def test_a_first_start_killed_while_it_made_the_database_is_begun_again(tmp_path: Path) -> None:
    made = tmp_path / "made.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # So that pages leave before the commit.
        connection.execute("CREATE TABLE early (data)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO early VALUES (randomblob(100000))")
        for ending in ("", "-journal"):
            shutil.copyfile(f"{made}{ending}", f"{tmp_path}/meshd.db{ending}")
    SqliteStore.create(tmp_path / "meshd.db", owner=ME, network=NETWORK).close()
    assert not (tmp_path / "meshd.db-journal").exists()


def test_what_cannot_be_removed_before_a_first_start_is_an_error_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", fails)
        with pytest.raises(MeshdError) as found:
            SqliteStore.create(tmp_path / "meshd.db", owner=ME, network=NETWORK)
    assert found.value.code == "MESH-2001"
    SqliteStore.create(tmp_path / "meshd.db", owner=ME, network=NETWORK).close()


async def test_a_lock_held_by_another_program_is_not_called_damage(
    tmp_path: Path, reopened: Open
) -> None:
    store = reopened(tmp_path / "meshd.db")
    store._connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(tmp_path / "meshd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MeshdError, match="open and locked") as caught:
            await store.persist(Persist(votes=VOTES))
    assert caught.value.code == "MESH-2009"
    await store.persist(Persist(votes=VOTES))
    assert store.load().votes == VOTES


async def test_a_write_that_does_not_end_is_seen_and_then_forgotten(
    tmp_path: Path, reopened: Open
) -> None:
    store = reopened(tmp_path / "meshd.db")
    assert store.slow_s == 0
    with closing(sqlite3.connect(tmp_path / "meshd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # The write waits for it, as for a disk.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.persist, Persist(votes=VOTES))
            before = 0.0
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert store.slow_s > before
                before = store.slow_s
            other.execute("ROLLBACK")
    assert store.slow_s == 0
    assert store.load().votes == VOTES


def test_the_database_of_a_newer_version_is_refused(tmp_path: Path, reopened: Open) -> None:
    reopened(tmp_path / "meshd.db").close()
    with sqlite3.connect(tmp_path / "meshd.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(MeshdError, match="newer meshd") as caught:
        reopened(tmp_path / "meshd.db")
    assert caught.value.code == "MESH-2004"


async def test_history_keeps_the_newest_rows_in_order(tmp_path: Path, reopened: Open) -> None:
    store = reopened(tmp_path / "meshd.db")
    store._connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO history (wall_ms, kind, text) SELECT i, 'old', '' FROM n",
        (HISTORY_ROWS_MAX,),
    )
    await store.append_history(5, "formed", "the cluster is formed")
    rows = store.history(limit=20_000)
    assert len(rows) == HISTORY_ROWS_MAX
    assert [rows[0].number, rows[-1].text] == [2, "the cluster is formed"]
    assert [row.kind for row in store.history(after=HISTORY_ROWS_MAX)] == ["formed"]
