"""`--cluster-reset`, asked of the stand-in and, where there is one, of a real k3s.

Two servers, one of them lost for good: what meshd's `bootstrap reset` relies on.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin.conftest import command_of, needs_namespaces
from tests.standin.machines import Machine, Program, Site, save_snapshot, wait_for

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


def test_a_snapshot_takes_the_place_of_the_database(pair: Pair, tmp_path: Path) -> None:
    second, path = pair.second, "/api/v1/namespaces/default/configmaps"
    uid, database = second.uid(), second.data / "server/db/etcd"

    def keep(name: str) -> None:
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        assert second.ask(path, admin=True, method="POST", body=made).status == 201

    keep("before")
    line = save_snapshot(second.data, tmp_path / "kept.db")
    netns = f"--net=/run/netns/{second.namespace}"
    subprocess.run(["nsenter", netns, *line], check=True, capture_output=True)
    keep("after")
    pair.program.kill()
    pair.joined.kill()
    shutil.rmtree(database)
    restore = f"--cluster-reset-restore-path={tmp_path / 'kept.db'}"

    for _ in range(2):  # Without a database, and with what an attempt before left, its flag, too.
        done = pair.reset(restore)
        assert done.exit_code(120) == 0
        assert _DONE in done.log
    assert list(database.parent.glob("etcd-old-*"))

    pair.start(second, "--cluster-init")
    wait_for("it is ready alone", second.ready, 120)
    assert (second.voters(), second.uid()) == (["k2"], uid)
    assert second.ask(f"{path}/before", admin=True).status == 200
    assert second.ask(f"{path}/after", admin=True).status == 404


def _member_name(machine: Machine) -> str:
    return (machine.data / "server/db/etcd/name").read_text().strip()
