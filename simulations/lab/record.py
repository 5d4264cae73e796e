"""What is known of a laboratory that is up: `lab.json`, written whole by whoever holds the lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from meshd.errors import MeshdError
from simulations.lab.places import ROOT, Places
from simulations.lab.pods import Runtime


class Side(msgspec.Struct, kw_only=True):
    """A node, and the side of the last cut that it is on; 0 is where all begin."""

    name: str
    side: int = 0


class Record(msgspec.Struct, kw_only=True):
    """A laboratory.

    Args:
        k3s_version: what `k3s --version` says first; the stand-in says that it is one.
        forks: whether daemons are forks of the zygote or programs of their own.
        control_plane: as the cloud-config says it; None where it does not.
        vip: likewise.
        runtime: what a real k3s' nodes run pods with; None where they run none.
        environment: what the daemons get beside what every node has.
        ipv6: its LAN has no IPv4.
    """

    lab: str
    k3s_version: str
    standin: bool
    forks: bool
    control_plane: int | None
    vip: str | None
    imports_s: float
    environment: dict[str, str]
    nodes: list[Side]
    ipv6: bool = False
    runtime: Runtime | None = None

    @property
    def has_vip_holder(self) -> bool:
        """Whether somebody plays or runs kube-vip."""
        return self.standin or self.runtime is not None

    def names(self) -> tuple[str, ...]:
        """Return the nodes' names in the order of their making."""
        return tuple(node.name for node in self.nodes)


def load(places: Places) -> Record:
    """Return the record.

    Raises:
        MeshdError: no such laboratory is up, or it is a crashed one's.
    """
    try:
        return msgspec.json.decode(places.record.read_bytes(), type=Record)
    except FileNotFoundError:
        raise MeshdError(
            "MESH-8003",
            f"no laboratory called {places.lab} is up",
            fix="`meshd demo up` (MESHD_LAB names another one)",
        ) from None
    except msgspec.DecodeError as error:
        raise MeshdError(
            "MESH-8003",
            f"{places.record} is damaged",
            cause=str(error),
            fix="`meshd demo down` removes what is left of the laboratory",
        ) from None


def save(places: Places, record: Record) -> None:
    """Replace the record in one step."""
    new = places.record.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    new.rename(places.record)


@contextmanager
def changing() -> Iterator[None]:
    """Be the only one who makes or changes laboratories on this machine.

    Raises:
        MeshdError: this is not root.
    """
    if os.geteuid() != 0:
        raise MeshdError(
            "MESH-8001",
            "the laboratory needs root: it makes network namespaces and mounts",
            fix="run it with sudo",
        )
    while True:
        try:
            ROOT.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, FileNotFoundError):
            continue  # Another one's `down` removed it between two looks.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_root(descriptor):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        # While the lock is held: whoever waits for it sees that it locked a folder that is gone.
        _remove_if_empty()
        os.close(descriptor)


def _is_root(descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), ROOT.stat())
    except FileNotFoundError:
        return False


def _remove_if_empty() -> None:
    try:
        ROOT.rmdir()
    except OSError:
        return  # A laboratory is in it.
