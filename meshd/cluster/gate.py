"""The gate before every start of k3s: whoever starts it, only what meshd decided is let through.

A person who types `systemctl start k3s`, an image that enabled k3s and meshd's own supervisor all
come through here; docs/genesis.md says who does not. It needs no daemon: it goes by a permit that
the daemon left beside its state, and by what lies on the disk. Invariant: without a permit that
fits the disk and k3s' whole configuration nothing is started; with one for a formed cluster,
nothing that may be broken about meshd keeps k3s from starting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from meshd.cluster.configuration import other_configuration
from meshd.cluster.mark import objection, read_disk, read_first_start
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import conflict, reset_flags
from meshd.config.schema import K3sArguments
from meshd.holder import lease
from meshd.whole_file import make_folder, sync_folder, write_whole


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What k3s may be on this node, as the daemon last laid it."""

    cluster_id: str
    generation: int
    seat: Literal["initialiser", "server", "worker"]
    formed: bool
    leased: bool
    alone: bool  # The plan has this one seat: nobody could be joined.
    node_name: str
    node_ip: str | None
    config_dir: str
    data_dir: str
    drop_ins: tuple[str, ...]  # SHA-256 of what meshd wrote; two while it is being replaced.
    epoch: int = 0  # Of the database with which it may start.
    reset: bool = False  # It may start only to reset etcd's membership, which begins the next one.
    snapshot: str = ""  # With that it may start from this file.

    @property
    def paths(self) -> K3sPaths:
        """Where k3s' files are."""
        return K3sPaths(config_dir=Path(self.config_dir), data_dir=Path(self.data_dir))


def permit_file(state_dir: Path) -> Path:
    """Return where the permit lies."""
    return state_dir / "cluster" / "permit.json"


def grant(state_dir: Path, permit: Permit) -> None:
    """Let k3s start as the permit says; the drop-in must have been written before.

    Raises:
        OSError: the disk refuses.
    """
    make_folder(permit_file(state_dir).parent, mode=0o700)
    write_whole(permit_file(state_dir), msgspec.json.encode(permit) + b"\n")


def revoke(state_dir: Path, cluster_id: str) -> None:
    """Let nothing of the cluster start from now on, durably.

    Raises:
        OSError: the disk refuses.
    """
    permit, file = read_permit(state_dir), permit_file(state_dir)
    if file.exists() and (permit is None or permit.cluster_id == cluster_id):
        file.unlink()
        sync_folder(file.parent)


def read_permit(state_dir: Path) -> Permit | None:
    """Return the permit, or None if there is none that can be read.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        return msgspec.json.decode(permit_file(state_dir).read_bytes(), type=Permit)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def refusal(
    permit: Permit | None,
    *,
    argv: Sequence[str],
    environment: Mapping[str, str],
    state_dir: Path,
    newest_generation: int | None,
    newest_epoch: int | None = None,
    has_fuse: bool,
) -> str | None:
    """Return why k3s must not be started now, as a sentence with its remedy, or None.

    Args:
        permit: what the daemon left.
        argv: k3s' whole command line, with the binary.
        environment: k3s' own.
        state_dir: meshd's.
        has_fuse: whether whoever starts k3s puts a fuse beside it, as meshd's supervisor does.
        newest_generation: the highest generation of the cluster known to the nodes that could be
            asked; None if nobody answered.
        newest_epoch: likewise of the resets of etcd's membership.

    Raises:
        OSError: a file that matters cannot be read.
    """
    if permit is None:
        return (
            "meshd has not given this node a part in a cluster yet, or has taken it back: "
            "`meshd status` says what it waits for, and meshd starts k3s itself"
        )
    return (
        _of_another_generation(permit, newest_generation)
        or _of_another_epoch(permit, newest_epoch)
        or _not_as_meshd_starts_it(permit, argv, environment)
        or _without_a_database(permit)
        or objection(
            read_disk(permit.paths),
            cluster_id=permit.cluster_id,
            alone=permit.alone,
            seat=permit.seat,
            formed=permit.formed,
            node_name=permit.node_name,
            node_ip=permit.node_ip,
            first_start=read_first_start(state_dir, permit.cluster_id),
            epoch=permit.epoch,
        )
        or _unleased(permit, state_dir, has_fuse=has_fuse)
    )


def _of_another_generation(permit: Permit, newest: int | None) -> str | None:
    if newest is None or newest <= permit.generation:
        return None
    return (
        f"k3s here belongs to generation {permit.generation} of the cluster, and the other nodes "
        f"are at generation {newest}: meshd sets its data aside and joins them, wait for it"
    )


def _of_another_epoch(permit: Permit, newest: int | None) -> str | None:
    if newest is None or newest <= permit.epoch or permit.seat == "worker":
        return None  # A worker has no database.
    return (
        f"etcd's membership was reset (epoch {newest}) and this database is of before (epoch "
        f"{permit.epoch}): it is never started again, see `meshd explain genesis`"
    )


def _not_as_meshd_starts_it(
    permit: Permit, argv: Sequence[str], environment: Mapping[str, str]
) -> str | None:
    mode = "agent" if permit.seat == "worker" else "server"
    words = list(argv[1:])
    flags = reset_flags(permit.snapshot)
    if permit.reset and tuple(words[-len(flags) :]) == flags:
        del words[-len(flags) :]  # Of any other start it is refused below: they are meshd's own.
    elif permit.reset:
        return "etcd's membership is being reset: k3s is started when that is done"
    if words[:1] != [mode]:
        found = words[0] if words else "nothing"
        return f"k3s is to be started as `{found}`, and this node is to run `k3s {mode}`"
    return _configured_otherwise(permit, words, environment)


def _without_a_database(permit: Permit) -> str | None:
    """Return why a reset must not run: of nothing, k3s would make a new cluster."""
    if not permit.reset:
        return None
    needed = Path(permit.snapshot) if permit.snapshot else permit.paths.etcd_log
    return None if needed.exists() else f"{needed} is gone, so there is nothing to reset"


def _configured_otherwise(
    permit: Permit, words: list[str], environment: Mapping[str, str]
) -> str | None:
    paths = permit.paths
    named = environment.get("K3S_CONFIG_FILE")
    if named is not None and Path(named) != paths.config:
        return f"K3S_CONFIG_FILE names {named}: meshd's settings are read beside {paths.config}"
    variables = tuple(
        (name, value)
        for name, value in sorted(environment.items())
        if name.startswith("K3S_") and name != "K3S_CONFIG_FILE"
    )
    arguments = K3sArguments(args=tuple(words[1:]), env=variables)
    against = conflict(arguments, other_configuration(paths))
    if against is not None:
        return against
    try:
        content = paths.drop_in.read_bytes()
    except FileNotFoundError:
        return f"{paths.drop_in}, which meshd writes, is gone: restart meshd"
    if digest(content) not in permit.drop_ins:
        return f"{paths.drop_in} is not as meshd wrote it: restart meshd, which writes it again"
    return None


def _unleased(permit: Permit, state_dir: Path, *, has_fuse: bool) -> str | None:
    if not permit.leased or permit.formed:
        return None
    if not has_fuse:
        return (
            "until the cluster is formed only meshd starts k3s, with a fuse beside it that ends it "
            "in time: wait for `meshd wait --for formed`"
        )
    left = lease.left_s(state_dir / "k3s", permit.cluster_id)
    if left >= lease.START_MIN_S:
        return None
    return (
        "the cluster is not formed yet, and a quorum of voters has not answered lately: "
        f"{max(left, 0):.0f} s are left to run, {lease.START_MIN_S:.0f} s are needed to start; "
        "meshd asks them again every 10 s"
    )


def digest(drop_in: bytes) -> str:
    """Return what a permit says of the drop-in."""
    return hashlib.sha256(drop_in).hexdigest()


def command(python: str, state_dir: Path, run_dir: Path) -> tuple[str, ...]:
    """Return the command line of the gate, without k3s' own."""
    words = ("k3s-gate", "--has-fuse", "--state-dir", str(state_dir.absolute()))
    return (python, "-m", "meshd.cli", *words, "--run-dir", str(run_dir.absolute()), "--")
