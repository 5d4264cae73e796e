"""Removes a laboratory, also one that crashed, and says what is left of it.

Needs no record: namespaces carry the laboratory's name, mounts its folder, the zygote its socket.
What was made outside its folder is listed in `places.MADE` and goes with the last laboratory.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from meshd.errors import MeshdError
from simulations.lab import kernel, network
from simulations.lab.places import DISKS, MADE, NAMESPACES, ROOT, Places
from simulations.lab.zygote import Zygote


def note_surroundings() -> None:
    """Make the folders that nodes mount on; list what of the surroundings is made, not found."""
    made = MADE.read_text(encoding="utf-8").splitlines() if MADE.exists() else []
    for folder in DISKS:
        if not folder.exists():
            folder.mkdir(parents=True)
            made.append(f"folder {folder}")
    if not os.path.ismount(NAMESPACES) and not made_mount(made):
        # `ip netns add` makes both when it is first used on a machine.
        made += [f"mount {NAMESPACES}"]
        made += [] if NAMESPACES.exists() else [f"folder {NAMESPACES}"]
    if made:
        MADE.write_text("\n".join(made) + "\n", encoding="utf-8")


def made_mount(made: list[str]) -> bool:
    """Whether the list has the mount of the namespaces' folder."""
    return f"mount {NAMESPACES}" in made


def exists(places: Places) -> bool:
    """Whether anything of the laboratory is there."""
    return places.folder.exists() or bool(network.namespaces(places))


def remove(places: Places) -> None:
    """Remove everything of the laboratory.

    Raises:
        MeshdError: something could not be removed, and is named.
    """
    Zygote(places).stop()
    spaces = network.namespaces(places)
    for space in spaces:
        network.kill_all(space)
    for target in reversed(mounts_below(places.folder)):
        kernel.unmount(target)
    for space in spaces:
        network.delete_namespace(space)
    if places.folder.exists():
        shutil.rmtree(places.folder)
    if not any(entry.is_dir() for entry in ROOT.iterdir()):
        _remove_surroundings()
    left = leftovers(places)
    if left:
        raise MeshdError(
            "MESH-8015",
            f"something of the laboratory {places.lab} could not be removed: {'; '.join(left)}",
            fix="end those processes or unmount those folders, then `meshd demo down` again",
        )


def leftovers(places: Places) -> tuple[str, ...]:
    """Return what there is of the laboratory, each as a few words; empty when it is gone."""
    found = [f"namespace {name}" for name in network.namespaces(places)]
    found += [f"process {pid}" for pid in _processes(places)]
    found += [f"mount {target}" for target in mounts_below(places.folder)]
    if places.folder.exists():
        found.append(f"folder {places.folder}")
    return tuple(found)


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points below a folder in this mount namespace, outer ones first."""
    targets = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        target = Path(line.split()[4].encode().decode("unicode_escape"))
        if folder in target.parents:
            targets.append(target)
    return targets


def _processes(places: Places) -> list[int]:
    """Return processes that are in a node's mount namespace, or are the zygote or its recorder."""
    program = [b"simulations.lab.zygote", places.lab.encode()]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            mounts = (entry / "mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # It ended meanwhile.
        if arguments[2:4] == program or f"{places.folder}/" in mounts:
            found.append(int(entry.name))
    return sorted(found)


def _remove_surroundings() -> None:
    made = MADE.read_text(encoding="utf-8").splitlines() if MADE.exists() else []
    if made_mount(made) and NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
        while os.path.ismount(NAMESPACES):
            kernel.unmount(NAMESPACES)
    for line in made:
        kind, _, name = line.partition(" ")
        if kind == "folder" and Path(name).is_dir() and not any(Path(name).iterdir()):
            if os.path.ismount(name):
                continue  # Other namespaces are in use.
            Path(name).rmdir()
    MADE.unlink(missing_ok=True)
