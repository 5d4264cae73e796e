"""Processes by number, start time and boot; and small files of JSON about them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REAP_S = 4.0  # How long killed processes may take to disappear.

Record = dict[str, Any]


def kill_group(group: int) -> bool:
    """Kill what is left of a process group whose first process has ended; wait until it is gone.

    Returns whether it is.

    A process number is not given away while a group of that number has members. So if a process
    of the number lives, the group had none left and the number is somebody else's now.
    """
    first = process_fields(group)
    if first is not None and first[0] != "Z":
        return True
    deadline = time.monotonic() + REAP_S
    while group_is_alive(group) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        time.sleep(0.01)
    return not group_is_alive(group)


def group_is_alive(group: int) -> bool:
    """Whether a process of the group exists that is not merely waiting to be buried."""
    return any(int(fields[2]) == group and fields[0] != "Z" for _, fields in all_processes())


def descendants(pid: int) -> list[int]:
    """Return the processes that descend from one, and live, in no order that means anything."""
    children: dict[int, list[int]] = {}
    for child, fields in all_processes():
        children.setdefault(int(fields[1]), []).append(child)
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def all_processes() -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields (as `process_fields`) of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = process_fields(int(entry.name))
            if fields is not None:
                yield int(entry.name), fields


def shares_network(pid: int) -> bool:
    """Whether a process has this one's network: a laboratory's nodes share a table of processes."""
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except (FileNotFoundError, ProcessLookupError):
        return False


def record_of(pid: int) -> Record:
    """Return what tells a living process from any other, for as long as anyone may ask."""
    return {"pid": pid, "start_time": start_time(pid), "boot_id": boot_id()}


def is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the recorded process still runs: same boot, same number, same start."""
    if record["boot_id"] != boot_id():
        return False
    fields = process_fields(record["pid"])
    return fields is not None and fields[0] != "Z" and int(fields[19]) == record["start_time"]


def process_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third on (proc(5)), or None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int:
    """Return when a living process started, in clock ticks since boot."""
    fields = process_fields(pid)
    assert fields is not None
    return int(fields[19])


def boot_id() -> str:
    """Return this boot's random id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def boot_time_s() -> float:
    """Return CLOCK_BOOTTIME in seconds: it runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def readable(descriptor: int, timeout_s: float | None) -> bool:
    """Wait for a descriptor; a pidfd is readable once its process has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def read_json(path: Path) -> Record | None:
    """Return a file's object; None if there is none, or it was cut short by a power cut."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replace a file in one step; not made durable, because a reboot ends what it is about."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(record, file)
    temporary.rename(path)


def make_durable(path: Path) -> None:
    """Make an empty file that outlives a power cut."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.fsync(descriptor)
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
