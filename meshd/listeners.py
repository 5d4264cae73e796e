"""Who listens on which TCP port of this machine, as far as /proc tells (proc(5))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN of linux/tcp_states.h.


def taken_ports(ports: Sequence[int]) -> tuple[tuple[int, str | None], ...]:
    """Return those of `ports` on which somebody listens, each with a name for the process."""
    taken = set(ports) & {port for port, _ in _listening()}
    return tuple((port, port_holder(port)) for port in ports if port in taken)


def port_holder(port: int) -> str | None:
    """Return a name for the process that listens on a TCP port, or None if it cannot be told."""
    inodes = {f"socket:[{inode}]" for found, inode in _listening() if found == port}
    if not inodes:
        return None
    for folder in sorted(Path("/proc").glob("[0-9]*")):
        if not inodes.isdisjoint(_open_files(folder)):
            with suppress(OSError):
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
    return None


def _open_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):  # The process is gone, or another user's.
        for entry in (folder / "fd").iterdir():
            with suppress(OSError):  # This file was closed meanwhile.
                yield str(entry.readlink())


def _listening() -> list[tuple[int, str]]:
    """Return (port, inode) of each listening socket of this network namespace."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue  # No IPv6 in this kernel.
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING:
                found.append((int(fields[1].rpartition(":")[2], 16), fields[9]))
    return found
