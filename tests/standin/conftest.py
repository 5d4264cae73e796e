from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.standin.machines import STANDIN, Machine, Program, Site, wait_for

# Faster than k3s' etcd timers of 500 and 5000 ms, where a test is not about them.
QUICK = ("--etcd-arg", "heartbeat-interval=100", "--etcd-arg", "election-timeout=1000")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Three servers and a worker; `programs[i]` runs on `machines[i]`."""

    site: Site
    machines: list[Machine]
    programs: list[Program]

    @property
    def servers(self) -> list[Machine]:
        return self.machines[:3]

    def others(self, machine: Machine) -> list[Machine]:
        return [server for server in self.servers if server is not machine]

    def program(self, machine: Machine) -> Program:
        return self.programs[self.machines.index(machine)]

    def worker_knows_all_servers(self) -> bool:
        file = self.machines[3].data / "agent" / "etc" / "k3s-agent-load-balancer.json"
        known = json.loads(file.read_text())["ServerAddresses"] if file.is_file() else []
        return sorted(known) == [f"{server.address}:6443" for server in self.servers]

    def restart(self, machine: Machine) -> Program:
        """Start a server again as its service would, with its disk."""
        program = machine.start("server", "--token", "abc", "--agent-token", "agt", *QUICK)
        self.programs[self.machines.index(machine)] = program
        return program


def command_of(kind: str) -> tuple[str, ...]:
    """Return the command of the `stand-in`, or of the `real` k3s; skip if there is none."""
    if kind == "stand-in":
        return STANDIN
    binary = os.environ.get("MESHD_K3S_BIN")
    if not binary:
        pytest.skip("MESHD_K3S_BIN names no k3s binary")
    return (binary,)


def needs_namespaces() -> None:
    """Skip, saying why, where namespaces or etcd are missing."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    for tool in ("ip", "etcd", "setpriv", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs the program {tool}")


def form(site: Site) -> Cluster:
    """Form three servers and a worker; the last server has --cluster-init too, to no effect."""
    machines = [site.machine() for _ in range(4)]
    first, *rest, worker = machines
    secrets = ("--token", "abc", "--agent-token", "agt")
    programs = [first.start("server", "--cluster-init", *secrets, *QUICK)]
    wait_for("the first server is ready", first.ready)
    joining = ("--server", first.url, "--token", first.token, "--agent-token", "agt")
    programs.append(rest[0].start("server", *joining, *QUICK))
    programs.append(rest[1].start("server", "--cluster-init", *joining, *QUICK))
    programs.append(worker.start("agent", "--server", first.url, "--token", first.agent_token))
    wait_for("three voters", lambda: first.voters() == ["k1", "k2", "k3"])
    for machine in rest:
        wait_for(f"{machine.name} is ready", machine.ready)
    wait_for("the worker is there", lambda: "k4" in first.nodes())
    return Cluster(site, machines, programs)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    needs_namespaces()
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cluster(site: Site) -> Cluster:
    return form(site)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the tests of a module that only look."""
    needs_namespaces()
    site = Site(tmp_path_factory.mktemp("shared"))
    try:
        yield form(site)
    finally:
        site.close()
