"""A laboratory for a test: raised by name, removed whatever happens, checked for what it left."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from meshd.errors import MeshdError
from simulations.lab import glance, laboratory, removal, tour
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import Places
from simulations.lab.progress import Checklist
from simulations.lab.recorder import Sighting, audit

_numbers = count(1)

# k3s promotes learners every 15 s; the tests are about meshd.
STANDIN = {"STANDIN_PROMOTE_INTERVAL_S": "0.5"}
# A real k3s is for the tests that name it.
_SURROUNDINGS = {k: v for k, v in os.environ.items() if not k.startswith("MESHD_K3S_")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str


class Bench:
    """One test's laboratories, all of one name."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.may_exit: set[str] = set()
        """Nodes whose daemon is meant to end with an error."""

    def up(self, **wanted: Any) -> Laboratory:
        """Build and boot; the arguments are those of `Wanted`."""
        return Laboratory.up(self.places, Wanted(**wanted), STANDIN)

    def demo(self, *arguments: str, stdin: str = "") -> Run:
        """Run `meshd demo` with these arguments, as a person would."""
        result = subprocess.run(
            [sys.executable, "-m", "simulations.lab", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=_SURROUNDINGS | {"MESHD_LAB": self.places.lab} | STANDIN,
        )
        return Run(code=result.returncode, out=result.stdout, err=result.stderr)

    def meshd(self, *arguments: str) -> Run:
        """Run `meshd` with these arguments, as a person would."""
        result = subprocess.run(
            [sys.executable, "-m", "meshd.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Run(code=result.returncode, out=result.stdout, err=result.stderr)

    def wait_until(
        self, what: str, find: Callable[[], bool | None], *, limit_s: float = 60.0
    ) -> None:
        """Look until `find` is true; raises MeshdError after `limit_s`."""
        checklist = Checklist(out=io.StringIO())
        checklist.wait(what, lambda: find() or None, limit_s=limit_s, code="MESH-8011")

    def wait_until_complete(self, built: Laboratory) -> None:
        """Wait until all nodes that run form one complete cluster."""
        tour.wait_for_cluster(built, Checklist(out=io.StringIO()))

    def clusters(self) -> tuple[Sighting, ...]:
        """Return every cluster that ever came up."""
        return audit(self.places)

    def unexpected_exits(self) -> list[str]:
        """Return the nodes whose daemon ended by itself and was not meant to."""
        files = sorted(self.places.folder.glob("n*/log/exits"))
        names = [file.parent.parent.name for file in files]
        return [name for name in names if name not in self.may_exit]

    def logs(self) -> str:
        """Return the end of every node's logs."""
        if not self.places.record.exists():
            return "no laboratory was up"
        lines = []
        for node in Laboratory.load(self.places).nodes():
            lines += [f"--- {node.name}", *glance.tail(node, 60)]
            k3s = node.state / "k3s" / "k3s.log"
            if k3s.exists():
                lines += ["  k3s:", *k3s.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(lines)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the logs of a failing test's nodes into its report, before they are removed."""
    report = yield
    bench = getattr(item, "funcargs", {}).get("bench")
    if report.when == "call" and report.failed and isinstance(bench, Bench):
        error = call.excinfo.value if call.excinfo is not None else None
        said = error.render() if isinstance(error, MeshdError) else ""
        report.sections.append(("laboratory", f"{said}\n{bench.logs()}"))
    return report


@contextmanager
def made_bench() -> Iterator[Bench]:
    """Give a bench; remove what was made on it."""
    if os.geteuid() != 0:
        pytest.skip("the laboratory needs root")
    if shutil.which("etcd") is None:
        pytest.skip("the stand-in for k3s needs etcd (apt-get install etcd-server)")
    bench = Bench(Places(f"t{os.getpid()}x{next(_numbers)}"))
    try:
        yield bench
        exits = bench.unexpected_exits()
    finally:
        laboratory.down(bench.places)
    assert removal.leftovers(bench.places) == ()
    assert exits == []


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A laboratory's bench for one test."""
    with made_bench() as found:
        yield found


@pytest.fixture(scope="module")
def shared_bench() -> Iterator[Bench]:
    """A bench for the tests of a module, which leave the laboratory as they found it."""
    with made_bench() as found:
        yield found
