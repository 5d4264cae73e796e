"""Removes a laboratory, also one that crashed, and says what is left of it.

Needs no record: namespaces carry the laboratory's name, mounts its folder, the zygote its socket.
What was made outside its folder is listed in `places.MADE` and goes with the last laboratory.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from meshd.errors import MeshdError
from simulations.lab import cgroups, kernel, network
from simulations.lab.places import MADE, NAMESPACES, ROOT, Places
from simulations.lab.zygote import Zygote

GUARD = ".meshd-laboratory"
_END_S = 5.0


def note_surroundings(folders: Iterable[Path]) -> None:
    """Make the folders that nodes mount on; list what of the surroundings is made, not found."""
    made = MADE.read_text(encoding="utf-8").splitlines() if MADE.exists() else []
    for folder in folders:
        found = folder.exists()
        guard = folder / GUARD
        if not guard.exists():
            _make_guarded(folder, guard)
            made += [f"file {guard}"] + ([] if found else [f"folder {folder}"])
    if not os.path.ismount(NAMESPACES) and f"mount {NAMESPACES}" not in made:
        # `ip netns add` makes both when it is first used on a machine.
        made += [f"mount {NAMESPACES}"] + ([] if NAMESPACES.exists() else [f"folder {NAMESPACES}"])
    MADE.write_text("".join(f"{line}\n" for line in made), encoding="utf-8")


def _make_guarded(folder: Path, guard: Path) -> None:
    """Make a folder that nobody removes for being empty: that would undo the mounts of all nodes.

    (rmdir(2) takes what is mounted there in other mount namespaces along.)
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            guard.write_text("meshd's laboratory mounts here; goes with it\n", encoding="utf-8")
        except (FileExistsError, FileNotFoundError):
            continue  # Somebody removed it just now.
        return


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
    deadline = time.monotonic() + _END_S
    while left := leftovers(places):
        if time.monotonic() < deadline:
            time.sleep(0.02)  # The recorder ends when the kernel has seen the zygote's end.
            continue
        raise MeshdError(
            "MESH-8015",
            f"something of the laboratory {places.lab} could not be removed: {'; '.join(left)}",
            fix="end those processes or unmount those folders, then `meshd demo down` again",
        )


def leftovers(places: Places) -> tuple[str, ...]:
    """Return what there is of the laboratory, each as a few words; empty when it is gone."""
    found = [f"namespace {name}" for name in network.namespaces(places)]
    found += [f"control group {group}" for group in cgroups.named(places.namespace_prefix)]
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
    """Undo what is listed, in the order of its making, as far as nobody else uses it."""
    made = MADE.read_text(encoding="utf-8").splitlines() if MADE.exists() else []
    for line in made:
        kind, _, name = line.partition(" ")
        path = Path(name)
        if kind == "file":
            path.unlink(missing_ok=True)
        elif path.is_dir() and not any(path.iterdir()):
            while kind == "mount" and os.path.ismount(path):
                kernel.unmount(path)
            if kind == "folder" and not os.path.ismount(path):
                with suppress(OSError):  # Somebody began to use it just now.
                    path.rmdir()
    MADE.unlink(missing_ok=True)
