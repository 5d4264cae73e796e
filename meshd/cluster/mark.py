"""Whose cluster the files of k3s on this disk belong to, and when that forbids starting k3s.

Invariants: server files without meshd's mark, or with the mark of another cluster, are never
started and never deleted; a cluster is started anew on this node only while it certainly never had
a database here. The mark is written before k3s' first start, in the folder that carries the
database, so that setting the folder aside by one rename takes the mark along. As the whole folder
can be lost (not mounted, wiped), meshd's own folder too tells of the first start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from meshd.cluster.paths import K3sPaths
from meshd.whole_file import make_folder, write_whole

MARK_NAME = "meshd-cluster.json"
FirstStart = Literal["never", "prepared", "begun"]
"""How far a cluster came on this node: nothing yet; marked, k3s may have run; had a database."""

_PREPARED, _BEGUN = b"prepared\n", b"begun\n"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster a folder of k3s belongs to.

    `begun` says that the database was seen: from then on its absence is a loss, not a beginning.
    `held` are the users' manifests that wait for the cluster to be formed. `epoch` counts the
    resets of etcd's membership that a server's database has been through; an agent's is that of the
    last one that changed addresses, which `node_ip` has followed.
    """

    cluster_id: str
    generation: int
    node_name: str
    node_ip: str | None  # etcd knows a server by its address for life.
    begun: bool = False
    held: tuple[str, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What lies in k3s' folders. No mark is None; one that cannot be read is "damaged"."""

    server_mark: Mark | Literal["damaged"] | None
    agent_mark: Mark | Literal["damaged"] | None
    has_etcd: bool
    has_sqlite: bool
    has_server_files: bool  # An authority, token or database: k3s was a server here, or was to be.
    has_agent_files: bool


def read_disk(paths: K3sPaths) -> Disk:
    """Look at k3s' folders.

    Raises:
        OSError: they cannot be read.
    """
    has_etcd, has_sqlite = paths.etcd_log.is_dir(), paths.sqlite.exists()
    traces = (paths.tls / "server-ca.crt", paths.server / "token", paths.server / "cred")
    return Disk(
        server_mark=read_mark(paths.server),
        agent_mark=read_mark(paths.agent),
        has_etcd=has_etcd,
        has_sqlite=has_sqlite,
        has_server_files=has_etcd or has_sqlite or any(trace.exists() for trace in traces),
        has_agent_files=(paths.agent / "client-kubelet.crt").exists(),
    )


def write_mark(folder: Path, mark: Mark) -> None:
    """Mark k3s' `server` or `agent` folder, durably.

    Raises:
        OSError: the disk refuses.
    """
    make_folder(folder, mode=0o700)  # As k3s makes it.
    write_whole(folder / MARK_NAME, msgspec.json.encode(mark) + b"\n")


def read_first_start(state_dir: Path, cluster_id: str) -> FirstStart:
    """Return what meshd's own folder tells of a cluster that this node is to start.

    Raises:
        OSError: it cannot be read.
    """
    try:
        content = _first_start_file(state_dir, cluster_id).read_bytes()
    except FileNotFoundError:
        return "never"
    return "prepared" if content == _PREPARED else "begun"  # Damaged: nothing is started anew.


def write_first_start(
    state_dir: Path, cluster_id: str, stage: Literal["prepared", "begun"]
) -> None:
    """Note in meshd's own folder how far a cluster came, durably; never take a step back.

    The mark must have been written before.

    Raises:
        OSError: the disk refuses.
    """
    if read_first_start(state_dir, cluster_id) == "begun":
        return
    path = _first_start_file(state_dir, cluster_id)
    make_folder(path.parent, mode=0o700)
    write_whole(path, _PREPARED if stage == "prepared" else _BEGUN)


def objection(
    disk: Disk,
    *,
    cluster_id: str,
    alone: bool,
    seat: Literal["initialiser", "server", "worker"],
    formed: bool,
    node_name: str,
    node_ip: str | None,
    first_start: FirstStart,
    epoch: int = 0,
) -> str | None:
    """Return why k3s must not be started on this disk, as a sentence with its remedy, or None.

    Args:
        cluster_id: of the cluster that k3s is to belong to.
        alone: that cluster has one server, so a lost database could not be joined again.
        first_start: what meshd's own folder tells of that cluster.
        epoch: of the database that it is to have, should there be one.
    """
    for mark, present in (
        (disk.server_mark, disk.has_server_files),
        (disk.agent_mark, disk.has_agent_files),
    ):
        reason = _foreign(mark, present) or _contradiction(mark, cluster_id, node_name, node_ip)
        if reason is not None:
            return reason
    if disk.has_sqlite and not disk.has_etcd:
        return (
            "k3s' server folder holds an SQLite database, which k3s would turn into a cluster of "
            "its own: move it away if it is not needed"
        )
    mark = disk.server_mark
    if isinstance(mark, Mark) and disk.has_etcd and mark.epoch < epoch:
        return (
            f"the database on this disk is of before the reset of epoch {epoch}, and is never "
            "started again: meshd sets it aside once a server of now answers"
        )
    if seat == "worker" and disk.has_etcd:
        return (
            "this node is to be a worker, but its disk holds a member's database of the cluster: "
            "move k3s' server folder away once the member was removed"
        )
    if (seat == "initialiser" and not formed) or (seat != "worker" and alone):
        return _loss(disk, first_start)
    return None


def _loss(disk: Disk, first_start: FirstStart) -> str | None:
    """Return what a node that would start its cluster anew has lost, or None if nothing."""
    mark = disk.server_mark
    if disk.has_etcd:
        return None
    if mark is None and first_start != "never":
        # The mark came before the note of it: whatever k3s wrote beside it went the same way.
        return (
            "the cluster was started on this node and k3s' server folder is gone: mount its disk, "
            "or restore it from a backup; an empty one would be a second cluster"
        )
    if first_start == "begun" or (isinstance(mark, Mark) and mark.begun):
        return (
            "the cluster was started on this node and its database is gone: restore it from a "
            "backup, or with `meshd bootstrap reset --from-snapshot FILE`; an empty one would be a "
            "second cluster"
        )
    return None


def _foreign(mark: Mark | Literal["damaged"] | None, present: bool) -> str | None:  # noqa: FBT001
    if mark == "damaged":
        return f"meshd's mark {MARK_NAME} in k3s' folder cannot be read: restore it from a backup"
    if mark is None and present:
        return (
            "k3s' folder on this node belongs to a cluster that meshd did not make, which is left "
            "alone: uninstall that k3s, or move its folder away, to let this node join"
        )
    return None


def _contradiction(
    mark: Mark | Literal["damaged"] | None, cluster_id: str, node_name: str, node_ip: str | None
) -> str | None:
    if not isinstance(mark, Mark):
        return None
    if mark.cluster_id != cluster_id:
        return (
            f"k3s' folder on this node belongs to cluster {mark.cluster_id[:8]}, not to "
            f"{cluster_id[:8]}: move it away if that cluster is no longer needed"
        )
    if mark.node_name != node_name:
        return (
            f"k3s ran here as node {mark.node_name}, and this node is now {node_name}: move k3s' "
            "folder away and remove the old node, then this one joins afresh"
        )
    if None not in (node_ip, mark.node_ip) and mark.node_ip != node_ip:
        return (
            f"this node's address was {mark.node_ip} when k3s first started and is now {node_ip}: "
            f"give it {mark.node_ip} back"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What is known of etcd's database on this disk, or of a snapshot, without opening it.

    Args:
        written_ms: when it was written last, by this machine's wall clock.
    """

    cluster_id: str | None
    epoch: int
    size_bytes: int
    written_ms: int


def look_at_database(paths: K3sPaths) -> Database | None:
    """Return what lies on the disk, or None if there is no database.

    Raises:
        OSError: it cannot be read.
    """
    if not paths.etcd_log.is_dir():
        return None
    return _database_in(paths, [f for f in paths.etcd_log.parent.rglob("*") if f.is_file()])


def look_at_snapshot(paths: K3sPaths, file: Path) -> Database:
    """Return what lies in a file that is to take the place of the database on this disk.

    Whether it is this cluster's is known to k3s alone, which holds the token it is sealed with.

    Raises:
        OSError: it cannot be read.
    """
    return _database_in(paths, [file])


def _database_in(paths: K3sPaths, files: Sequence[Path]) -> Database:
    mark = read_mark(paths.server)
    found = [file.stat() for file in files]
    return Database(
        cluster_id=mark.cluster_id if isinstance(mark, Mark) else None,
        epoch=mark.epoch if isinstance(mark, Mark) else 0,
        size_bytes=sum(one.st_size for one in found),
        written_ms=max((one.st_mtime_ns // 1_000_000 for one in found), default=0),
    )


def _first_start_file(state_dir: Path, cluster_id: str) -> Path:
    return state_dir / "cluster" / "started" / cluster_id


def read_mark(folder: Path) -> Mark | Literal["damaged"] | None:
    """Return the mark of k3s' `server` or `agent` folder, or of one that was set aside.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode((folder / MARK_NAME).read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:  # Of which ValidationError is a kind.
        return "damaged"
