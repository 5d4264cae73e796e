"""A laboratory and what can be done to it: one method for each verb that changes something.

Invariant: what is made is either recorded in `lab.json` or found by its name; a failure while a
laboratory is built removes what was built.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from meshd.clock import WALL_OFFSET_VARIABLE
from meshd.errors import MeshdError
from simulations.lab import cloudconfig, kernel, network, record, removal
from simulations.lab.boot import Boot
from simulations.lab.places import DISKS, NODES_MAX, NodePlaces, Places
from simulations.lab.record import Record, Side
from simulations.lab.shell import require
from simulations.lab.zygote import Zygote

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NODE_NAME = re.compile(r"n[1-9][0-9]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `up` was asked for.

    Args:
        nodes: 1 to 39.
        control_plane: for the generated cloud-config.
        k3s: a real k3s binary; None for the stand-in.
        config: a cloud-config to use in place of the generated one.
        forks: false starts every daemon as a program of its own.
        boots: false leaves the machines off.
        ipv6: a LAN without IPv4.
    """

    nodes: int = 5
    control_plane: int = 3
    k3s: Path | None = None
    config: Path | None = None
    forks: bool = True
    boots: bool = True
    ipv6: bool = False


class Laboratory:
    """A laboratory that is up."""

    def __init__(self, places: Places, known: Record) -> None:
        self.places = places
        self.known = known

    @classmethod
    def load(cls, places: Places) -> Laboratory:
        """Return the laboratory of that name; raises MeshdError if none is up."""
        known = record.load(places)
        return cls(replace(places, ipv6=known.ipv6), known)

    @classmethod
    def up(cls, places: Places, wanted: Wanted, environment: Mapping[str, str]) -> Laboratory:
        """Build a laboratory and boot its nodes.

        Args:
            places: its name.
            wanted: its shape.
            environment: the caller's; what configures the stand-in is passed on.

        Raises:
            MeshdError: one of this name is up, something is missing on this machine, or it could
                not be built; then nothing is left of it.
        """
        places = replace(places, ipv6=wanted.ipv6)
        with record.changing():
            if places.record.exists():
                raise MeshdError(
                    "MESH-8002",
                    f"a laboratory called {places.lab} is up already",
                    fix="`meshd demo status` shows it, `meshd demo down` removes it; "
                    "MESHD_LAB=other names another one",
                )
            known = _plan(places, wanted, environment)
            if removal.exists(places):
                removal.remove(places)  # Of one that crashed.
            try:
                return cls._build(places, known, wanted)
            except BaseException:
                removal.remove(places)
                raise

    @classmethod
    def _build(cls, places: Places, known: Record, wanted: Wanted) -> Laboratory:
        places.folder.mkdir(mode=0o700)
        removal.note_surroundings()
        _link_k3s(places, wanted.k3s)
        text = (
            cloudconfig.read(wanted.config)
            if wanted.config is not None
            else cloudconfig.generate(
                nodes=wanted.nodes,
                control_plane=wanted.control_plane,
                real_k3s=wanted.k3s is not None,
                vip=places.vip,
            )
        )
        _write_secret(places.cloud_config, text)
        known.control_plane, known.vip = cloudconfig.shape(text)
        network.make_lan(places)
        laboratory = cls(places, known)
        for _ in range(wanted.nodes):
            laboratory._make_node()
        known.imports_s = Zygote(places).start(forks=wanted.forks)
        record.save(places, known)
        if wanted.boots:
            for name in known.names():
                laboratory._boot(places.node(name))
        return laboratory

    def node(self, name: str) -> NodePlaces:
        """Return a node's places; raises MeshdError if there is no such node."""
        if name not in self.known.names():
            raise MeshdError(
                "MESH-8004",
                f"there is no node {name}",
                fix=f"name one of {', '.join(self.known.names())}",
            )
        return self.places.node(name)

    def nodes(self) -> tuple[NodePlaces, ...]:
        """Return the places of all nodes."""
        return tuple(self.places.node(name) for name in self.known.names())

    def add(self) -> str:
        """Make and boot one more machine with the same file; return its name."""
        with record.changing():
            self.known = record.load(self.places)
            if len(self.known.nodes) == NODES_MAX:
                raise _too_many(NODES_MAX + 1)
            name = self._make_node()
            record.save(self.places, self.known)
            self._boot(self.places.node(name))
        return name

    def start(self, name: str) -> bool:
        """Boot a node with its disk; return false if it runs already."""
        node = self.node(name)
        with record.changing():
            if init_of(node) is not None:
                return False
            # What runs without a first process was left by one that was killed alone.
            network.kill_all(node.namespace)
            self._boot(node)
        return True

    def kill(self, name: str) -> bool:
        """SIGKILL all processes of a node; return false if it was down already."""
        node = self.node(name)
        with record.changing():
            ran = bool(network.pids(node.namespace))
            network.power_off(node)
            node.init.unlink(missing_ok=True)
        return ran

    def wipe(self, name: str) -> None:
        """Erase a stopped node's disk; raises MeshdError while the node runs."""
        node = self.node(name)
        with record.changing():
            if network.pids(node.namespace):
                raise MeshdError(
                    "MESH-8006",
                    f"{name} is running; a disk in use is not erased",
                    fix=f"`meshd demo kill {name}` first",
                )
            for folder in DISKS.values():
                subprocess.run(
                    ["find", node.disk / folder, "-mindepth", "1", "-xdev", "-delete"], check=True
                )

    def set_clock(self, name: str, offset_s: float) -> None:
        """Set meshd's wall clock on a node, running or not; k3s there keeps the host's.

        CLOCK_REALTIME has no namespace (time_namespaces(7)), so the daemon is told.
        """
        self.node(name).wall_offset.write_text(f"{offset_s}\n", encoding="ascii")

    def cut(self, names: Sequence[str]) -> None:
        """Separate the named nodes from all others, each side with a LAN of its own."""
        nodes = [self.node(name) for name in names]
        with record.changing():
            self.known = record.load(self.places)
            side = max(node.side for node in self.known.nodes) + 1
            network.make_bridge(self.places, side)
            self._move(nodes, side)

    def heal(self) -> tuple[str, ...]:
        """Undo all cuts; return the nodes that were cut off."""
        with record.changing():
            self.known = record.load(self.places)
            apart = tuple(node.name for node in self.known.nodes if node.side)
            self._move([self.places.node(name) for name in apart], 0)
        return apart

    def _move(self, nodes: Iterable[NodePlaces], side: int) -> None:
        moved = list(nodes)
        network.move(moved, side)
        names = {node.name for node in moved}
        for entry in self.known.nodes:
            if entry.name in names:
                entry.side = side
        record.save(self.places, self.known)

    def _make_node(self) -> str:
        name = f"n{len(self.known.nodes) + 1}"
        node = self.places.node(name)
        for folder in DISKS.values():
            (node.disk / folder).mkdir(parents=True, mode=0o700)
        node.log.parent.mkdir()
        _write_secret(node.cloud_config, self.places.cloud_config.read_text(encoding="utf-8"))
        network.make_node(node)
        self.known.nodes.append(Side(name=name))
        return name

    def _boot(self, node: NodePlaces) -> None:
        network.power_on(node)
        environment = node_environment(node, self.known.environment)
        command = (sys.executable, "-m", "meshd.cli", "daemon", "--config", str(node.cloud_config))
        pid = Zygote(self.places).boot(
            Boot(
                name=node.name,
                namespace=node.namespace,
                binds=tuple((str(node.disk / DISKS[at]), str(at)) for at in DISKS),
                environment=environment,
                cloud_config=str(node.cloud_config),
                log=str(node.log),
                exits=str(node.exits),
                argv=() if self.known.forks else command,
            )
        )
        node.init.write_text(str(pid), encoding="ascii")


def down(places: Places) -> bool:
    """Remove a laboratory; return false if there was none.

    Raises:
        MeshdError: this is not root, or something is left.
    """
    with record.changing():
        if not removal.exists(places):
            return False
        removal.remove(places)
    return True


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
        "PATH": f"{own}:{_PATH}",
        "MESHD_CMDLINE_FILE": os.devnull,  # The kernel's is the host's, not the node's.
        "MESHD_FINGERPRINT": node.fingerprint,
        WALL_OFFSET_VARIABLE: str(node.wall_offset),
        **added,
    }


def _plan(places: Places, wanted: Wanted, environment: Mapping[str, str]) -> Record:
    """Check what is needed before anything is made."""
    require("ip", purpose="its networks")
    if not 1 <= wanted.nodes <= NODES_MAX:
        raise _too_many(wanted.nodes)
    if wanted.k3s is None:
        require("etcd", purpose="the stand-in for k3s, which runs a real etcd")
    version = _k3s_version(wanted.k3s)
    return Record(
        lab=places.lab,
        k3s_version=version,
        standin=wanted.k3s is None,
        forks=wanted.forks,
        control_plane=None,
        vip=None,
        imports_s=0.0,
        environment={
            name: value for name, value in environment.items() if name.startswith("STANDIN_")
        },
        nodes=[],
        ipv6=wanted.ipv6,
    )


def _k3s_version(binary: Path | None) -> str:
    command = [binary] if binary is not None else [sys.executable, "-m", "simulations.standin"]
    started = time.monotonic()
    try:
        result = subprocess.run(
            [*map(str, command), "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MeshdError(
            "MESH-8013",
            f"{binary or 'the stand-in for k3s'} does not say its version",
            cause=f"{error} (after {time.monotonic() - started:.1f} s)",
            fix="--k3s names an executable k3s for this machine",
        ) from None
    return result.stdout.splitlines()[0] if result.stdout else "unknown"


def _link_k3s(places: Places, binary: Path | None) -> None:
    """Put an executable called `k3s` where the nodes look first."""
    places.binaries.mkdir()
    target = places.binaries / "k3s"
    if binary is not None:
        target.symlink_to(binary.resolve())
        return
    target.write_text(
        f'#!/bin/sh\n# Not k3s: a stand-in.\nexec {sys.executable} -m simulations.standin "$@"\n',
        encoding="utf-8",
    )
    target.chmod(0o755)


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only root may read: it has the token in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _too_many(nodes: int) -> MeshdError:
    return MeshdError(
        "MESH-8016",
        f"a laboratory has 1 to {NODES_MAX} nodes, not {nodes}",
        fix="its LAN has no more addresses below the VIP",
    )
