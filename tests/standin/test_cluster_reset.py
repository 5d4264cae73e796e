"""`--cluster-reset`, asked of the stand-in and, where there is one, of a real k3s.

Two servers, one of them lost for good: what meshd's `bootstrap reset` relies on.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.standin.conftest import command_of, needs_namespaces
from tests.standin.machines import Machine, Program, Site, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]

_COMMON = (
    *("--token", "abc", "--agent-token", "agt", "--disable-agent", "--flannel-backend", "none"),
    *("--disable-network-policy", "--disable", "coredns,traefik,servicelb,metrics-server"),
    *("--disable", "local-storage"),
)
_DONE = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now"


class Pair:
    """A first server and one that joined it."""

    def __init__(self, site: Site, command: tuple[str, ...]) -> None:
        self.command = command
        self.first, self.second = site.machine(), site.machine()
        self.program = self.start(self.first, "--cluster-init")
        wait_for("the first is ready", self.first.ready, 120)
        self.joined = self.start(self.second, "--server", self.first.url)
        wait_for("both vote", lambda: self.first.voters() == ["k1", "k2"], 120)
        wait_for("the second is ready", self.second.ready, 120)

    def start(self, machine: Machine, *arguments: str) -> Program:
        return machine.start("server", *arguments, *_COMMON, command=self.command)

    def reset(self, *arguments: str) -> Program:
        return self.start(self.second, *arguments, "--cluster-reset")


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.k3s)])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    needs_namespaces()
    command = command_of(request.param)
    site = Site(tmp_path_factory.mktemp(f"reset-{request.param}"))
    try:
        yield Pair(site, command)
    finally:
        site.close()


def test_the_survivor_alone_keeps_the_content_of_the_database(pair: Pair) -> None:
    second = pair.second
    uid, old_name = second.uid(), _member_name(second)
    pair.program.kill()
    pair.joined.kill()
    flag = second.data / "server/db/reset-flag"

    refused = pair.reset("--server", pair.first.url)
    assert refused.exit_code(60) == 1
    assert "cannot perform cluster-reset while server URL is set" in refused.log
    assert not flag.exists()

    done = pair.reset()
    assert done.exit_code(120) == 0
    assert _DONE in done.log
    assert flag.exists()

    again = pair.reset()
    assert again.exit_code(60) == 1
    assert "cluster membership was previously reset" in again.log
    flag.unlink()
    repeated = pair.reset()
    assert repeated.exit_code(120) == 0
    assert _DONE in repeated.log

    # Neither joins nor initialises: the log on disk wins over all flags.
    pair.start(second, "--cluster-init")
    wait_for("it is ready alone", second.ready, 120)
    assert second.voters() == ["k2"]
    assert second.uid() == uid
    assert _member_name(second) != old_name
    assert flag.exists(), "k3s without an agent, and so without a Node, leaves it"


def _member_name(machine: Machine) -> str:
    return (machine.data / "server/db/etcd/name").read_text().strip()
