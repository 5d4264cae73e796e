"""A command inside a node, in the node's own surroundings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from meshd.clock import WALL_OFFSET_VARIABLE
from meshd.errors import MeshdError
from simulations.lab import kernel, network
from simulations.lab.places import NodePlaces
from simulations.lab.record import Record
from simulations.lab.shell import PATH


def init_of(node: NodePlaces) -> int | None:
    """Return the number of a node's first process, or None if the node is down."""
    try:
        pid = int(node.init.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return pid if network.holds(node.namespace, pid) else None


def run_dir(init: int) -> Path:
    """Return the folder of a node's local API, as seen from outside."""
    return Path(f"/proc/{init}/root/run/meshd")


def become_command(node: NodePlaces, known: Record, argv: Sequence[str]) -> NoReturn:
    """Replace this process by a command inside a node.

    Raises:
        MeshdError: the node is down, or has no such command.
    """
    init = init_of(node)
    if init is None:
        raise MeshdError(
            "MESH-8005", f"{node.name} is down", fix=f"`meshd demo start {node.name}` boots it"
        )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHD_")}
    environment = kept | node_environment(node, known.environment)
    for kind, flag in (
        ("uts", kernel.CLONE_NEWUTS),
        ("net", kernel.CLONE_NEWNET),
        ("mnt", kernel.CLONE_NEWNS),
    ):
        kernel.enter(Path(f"/proc/{init}/ns/{kind}"), flag)
    os.chdir("/")
    try:
        os.execvpe(argv[0], list(argv), environment)  # noqa: S606 - No shell.
    except OSError as error:
        raise MeshdError(
            "MESH-8017",
            f"{argv[0]} cannot be run on {node.name}: {error.strerror}",
            fix="name a command that is on the node's PATH",
        ) from None


def node_environment(node: NodePlaces, added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of everything that runs on a node."""
    own = f"{node.places.binaries}:{Path(sys.executable).parent}"
    return {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{own}:{PATH}",
        "MESHD_CMDLINE_FILE": os.devnull,  # The kernel's is the host's, not the node's.
        "MESHD_FINGERPRINT": node.fingerprint,
        WALL_OFFSET_VARIABLE: str(node.wall_offset),
        **added,
    }
