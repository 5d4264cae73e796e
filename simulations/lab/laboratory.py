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

from meshd.errors import MeshdError
from simulations.lab import cloudconfig, network, pods, record, removal
from simulations.lab.boot import Boot
from simulations.lab.inside import init_of, node_environment
from simulations.lab.places import DISKS, NODES_MAX, NodePlaces, Places
from simulations.lab.record import Record, Side
from simulations.lab.shell import require
from simulations.lab.zygote import Zygote

_NODE_NAME = re.compile(r"n[1-9][0-9]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `up` was asked for.

    Args:
        nodes: 1 to 39.
        control_plane: for the generated cloud-config.
        nodes_max: likewise; None leaves room as a token's default does.
        k3s: a real k3s binary; None for the stand-in.
        agents: with a real k3s, whether nodes run pods as a machine does.
        images: the folder of the images for that; None is `images/` beside the binary.
        config: a cloud-config to use in place of the generated one.
        forks: false starts every daemon as a program of its own.
        boots: false leaves the machines off.
        ipv6: a LAN without IPv4.
    """

    nodes: int = 5
    control_plane: int = 3
    nodes_max: int | None = None
    k3s: Path | None = None
    agents: bool = True
    images: Path | None = None
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
        removal.note_surroundings(_disks(known))
        _link_k3s(places, wanted.k3s)
        text = (
            cloudconfig.read(wanted.config)
            if wanted.config is not None
            else cloudconfig.generate(
                nodes=wanted.nodes,
                control_plane=wanted.control_plane,
                k3s=_kind(known),
                vip=places.vip,
                nodes_max=wanted.nodes_max,
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

    def start(self, name: str, *, program: tuple[str, ...] = ()) -> bool:
        """Boot a node with its disk; return false if it runs already.

        Args:
            name: the node's.
            program: what runs, and runs again after its end, in place of the daemon.
        """
        node = self.node(name)
        with record.changing():
            if init_of(node) is not None:
                return False
            # What runs without a first process was left by one that was killed alone.
            network.kill_all(node.namespace)
            self._boot(node, program)
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
            for folder in _disks(self.known).values():
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
        for folder in _disks(self.known).values():
            (node.disk / folder).mkdir(parents=True, mode=0o700)
        node.log.parent.mkdir()
        _write_secret(node.cloud_config, self.places.cloud_config.read_text(encoding="utf-8"))
        network.make_node(node)
        if self.known.runtime is not None:
            network.route_pods(node)
        self.known.nodes.append(Side(name=name))
        return name

    def _boot(self, node: NodePlaces, program: tuple[str, ...] = ()) -> None:
        network.power_on(node)
        disks, runtime = _disks(self.known), self.known.runtime
        if runtime is not None:
            pods.provision(node, runtime)
        environment = node_environment(node, self.known.environment)
        command = (sys.executable, "-m", "meshd.cli", "daemon", "--config", str(node.cloud_config))
        pid = Zygote(self.places).boot(
            Boot(
                name=node.name,
                namespace=node.namespace,
                binds=tuple((str(node.disk / disks[at]), str(at)) for at in disks),
                environment=environment,
                cloud_config=str(node.cloud_config),
                log=str(node.log),
                exits=str(node.exits),
                argv=program or (() if self.known.forks else command),
                group="" if runtime is None else node.namespace,
                read_only=() if runtime is None else ((runtime.images, str(pods.IMAGES)),),
                sysctls={} if runtime is None else pods.SYSCTLS,
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


def _plan(places: Places, wanted: Wanted, environment: Mapping[str, str]) -> Record:
    """Check what is needed before anything is made."""
    require("ip", purpose="its networks")
    if not 1 <= wanted.nodes <= NODES_MAX:
        raise _too_many(wanted.nodes)
    if wanted.k3s is None:
        require("etcd", purpose="the stand-in for k3s, which runs a real etcd")
    version = _k3s_version(wanted.k3s)
    binary = wanted.k3s if wanted.agents else None
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
        runtime=None if binary is None else pods.find_runtime(binary, wanted.images),
    )


def _kind(known: Record) -> cloudconfig.Kind:
    if known.standin:
        return "stand-in"
    return "servers" if known.runtime is None else "whole"


def _disks(known: Record) -> dict[Path, str]:
    """Return the folders of a node that are on its own disk, each with its place there."""
    return DISKS if known.runtime is None else DISKS | pods.DISKS


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
    """Put executables called `k3s`, `kubectl`, `crictl` and `ctr` where the nodes look first.

    k3s' launcher knows the last three as its own commands, its server program (which a build of
    one's own may be) only by the name that it is run as.
    """
    places.binaries.mkdir()
    run = f"exec {sys.executable} -m simulations.standin"
    what = "Not k3s: a stand-in."
    if binary is not None:
        tools = ("kubectl", "crictl", "ctr")
        for name in tools:
            (places.binaries / name).symlink_to(binary.resolve())
        own = f'tool="{places.binaries}/$1"; shift; exec "$tool" "$@"'
        run = f"case ${{1-}} in {'|'.join(tools)}) {own} ;; esac\nexec {binary.resolve()}"
        what = "The real k3s, under each of its names."
    target = places.binaries / "k3s"
    target.write_text(f'#!/bin/sh\n# {what}\n{run} "$@"\n', encoding="utf-8")
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
