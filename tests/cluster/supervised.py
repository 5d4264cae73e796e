"""A fake k3s with its supervisor's folder, for tests of how k3s is held."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from meshd.cluster.hostinit import OwnProcess
from meshd.cluster.plan import Launch
from meshd.holder import processes

# A k3s that lives as `mode` says, and tells if another one lives beside it.
FAKE_K3S = """#!/bin/sh
cd "$(dirname "$0")"
for pid in $(cat pids); do
  # A dead process that nobody has waited for yet is no second k3s.
  grep -qs '^State:[^Z]*$' "/proc/$pid/status" && echo "$pid beside $$" >> violations
done
echo $$ >> pids
echo "arguments: $*"
child() { echo "$1" > child.new; mv child.new child; }
case $(cat mode) in
crash) echo 'level=fatal msg="first line"'; echo 'level=fatal msg="last line"'; exit 3 ;;
exit0) echo 'level=error msg="duplicate node name found"'; exit 0 ;;
stubborn) trap '' TERM; sleep 1000 & child $!; while :; do wait; done ;;
leaves-child) sleep 1000 & child $!; exit 1 ;;
database) mkdir -p wal; exec sleep 1000 ;;
environment) env > environment; exec sleep 1000 ;;
*) exec sleep 1000 ;;
esac
"""


@dataclass
class Bench:
    """A folder with a fake k3s and the supervisor's folder beside it."""

    folder: Path
    host: OwnProcess = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "k3s").write_text(FAKE_K3S)
        (self.folder / "k3s").chmod(0o755)
        (self.folder / "pids").touch()
        self.behaves("")
        self.host = self.another_daemon()

    def another_daemon(self, gate: tuple[str, ...] = ()) -> OwnProcess:
        return OwnProcess(self.folder / "host", back_off_s=0.02, grace_s=0.2, gate=gate)

    def behaves(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def launch(
        self,
        *arguments: str,
        needs: tuple[Path, ...] = (),
        keeps: tuple[Path, ...] = (),
        name: str = "c1",
        leased: bool = False,
    ) -> Launch:
        return Launch(
            incarnation=name,
            argv=(str(self.folder / "k3s"), *arguments),
            environment=(("PATH", "/usr/bin:/bin"),),
            needs=needs,
            keeps=keeps,
            leased=leased,
        )

    def fuse(self) -> int | None:
        """Return the fuse that watches the k3s that runs."""
        record = processes.read_json(self.folder / "host" / "fuse.json")
        watches = record is not None and record["watches"] == self.pid
        return record["pid"] if record and watches and processes.is_alive(record) else None

    @property
    def started(self) -> list[int]:
        return [int(line) for line in (self.folder / "pids").read_text().split()]

    @property
    def pid(self) -> int | None:
        return self.host.look().pid

    def supervisors(self) -> list[int]:
        return sorted(
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._is_supervisor(entry)
        )

    def _is_supervisor(self, entry: Path) -> bool:
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return arguments[-2:-1] == [str(self.folder / "host").encode()]

    def kill_supervisor(self) -> None:
        for pid in self.supervisors():
            with suppress(ProcessLookupError):  # A child of it can end meanwhile.
                os.kill(pid, signal.SIGKILL)

    async def clear_away(self) -> None:
        while self.supervisors():  # Each may leave a child that was about to become k3s.
            self.kill_supervisor()
            await trio.sleep(0.01)
        running = self.pid
        if running is not None:
            os.kill(running, signal.SIGKILL)
            await until(lambda: not is_alive(running))
            processes.kill_group(running)

    def check_never_two(self) -> None:
        assert not (self.folder / "violations").exists(), (self.folder / "violations").read_text()
        assert len(self.supervisors()) <= 1


async def until(condition: Callable[[], object]) -> None:
    """Wait for another process to make the condition true."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - other processes raise no events.
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    fields = processes.process_fields(pid)
    return fields is not None and fields[0] != "Z"
