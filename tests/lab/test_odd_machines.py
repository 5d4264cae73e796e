"""Machines that are not what they seem: wrong clocks, copied disks, no k3s, another token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from meshd.clock import read_moment
from simulations.lab.inside import init_of
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench
from tests.lab.test_troubles import health_codes, k3s_of, log_of, status_of

pytestmark = pytest.mark.lab

YEAR_S = 365 * 86_400


def waits_for(built: Laboratory, name: str) -> str:
    return str(status_of(built, name)["node"]["waiting_for"])


def is_halted(built: Laboratory, name: str) -> bool:
    return bool(status_of(built, name)["node"].get("phase") == "halted")


def k3s_process(built: Laboratory, name: str) -> int:
    running = json.loads((built.node(name).state / "k3s" / "running.json").read_text())
    return int(running["pid"])


def test_k3s_waits_for_a_clock_of_1970_and_a_jump_later_disturbs_nothing(bench: Bench) -> None:
    built = bench.up(nodes=3, boots=False)
    built.set_clock("n1", -read_moment().wall_ms / 1000)
    for name in built.known.names():
        built.start(name)
    bench.wait_until("n1 to wait for its clock", lambda: "before 2025" in waits_for(built, "n1"))
    assert "MESH-3310" in health_codes(built, "n1")
    assert "MESH-3301" in health_codes(built, "n2")
    assert "clock of n1 is" in str(status_of(built, "n2")["health"])
    assert not (built.node("n1").state / "k3s" / "running.json").exists()
    built.set_clock("n1", 0)
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1

    before = k3s_process(built, "n2")
    built.set_clock("n2", YEAR_S)
    bench.wait_until("n2 to say so", lambda: "MESH-3311" in health_codes(built, "n2"))
    bench.wait_until("n3 to name n2", lambda: "MESH-3301" in health_codes(built, "n3"))
    assert status_of(built, "n2")["node"]["phase"] == "steady"
    assert (k3s_of(built, "n2"), k3s_process(built, "n2")) == ("ready", before)
    built.set_clock("n2", 0)
    bench.wait_until(
        "the findings to go",
        lambda: not health_codes(built, "n2") and not health_codes(built, "n3"),
    )


def test_a_machine_without_k3s_then_with_one_that_ends_at_once_then_with_a_good_one(
    bench: Bench,
) -> None:
    built = bench.up(nodes=1, control_plane=1, boots=False)
    k3s = built.places.binaries / "k3s"
    good = k3s.rename(k3s.with_name("good"))
    built.start("n1")
    bench.wait_until("n1 to miss it", lambda: "MESH-3312" in health_codes(built, "n1"))
    assert waits_for(built, "n1") == "0 of 1 servers found; n1: k3s is not installed on it"
    k3s.write_text("#!/bin/sh\necho 'no disk for K10ab::server:secret'\n")
    k3s.chmod(0o755)
    bench.wait_until(
        "n1 to quote it",
        lambda: (
            waits_for(built, "n1")
            == "again and again: k3s ended with code 0, saying: no disk for K10…"
        ),
    )
    assert "MESH-3312" not in health_codes(built, "n1")
    assert k3s_of(built, "n1") == "failed"
    good.rename(k3s)
    bench.wait_until_complete(built)
    assert k3s_of(built, "n1") == "ready"
    check_that_another_token_is_refused(bench, built)
    assert len(bench.clusters()) == 1


def check_that_another_token_is_refused(bench: Bench, built: Laboratory) -> None:
    """On a formed node the daemon refuses another network's token, and k3s runs on meanwhile."""
    bench.may_exit = {"n1"}
    node = built.node("n1")
    before = k3s_process(built, "n1")
    ours = node.cloud_config.read_text()
    token = yaml.safe_load(ours)["p2p"]["network_token"]
    command = [sys.executable, "-m", "meshd.cli", "token", "new", "--control-plane=1", "--nodes=1"]
    other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    node.cloud_config.write_text(ours.replace(token, other))
    end_daemon(built, "n1")
    bench.wait_until("n1 to refuse it", lambda: "error[MESH-2014]" in log_of(node))
    assert "this machine's state is of network" in log_of(node)
    node.cloud_config.write_text(ours)
    bench.wait_until("n1 to go on", lambda: k3s_of(built, "n1") == "ready")
    assert k3s_process(built, "n1") == before


def end_daemon(built: Laboratory, name: str) -> None:
    """End the daemon alone, as a service manager would; it is started again 5 s later."""
    init = init_of(built.node(name))
    assert init is not None
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    (daemon,) = [c for c in children if Path(f"/proc/{c}/comm").read_text() == "meshd\n"]
    os.kill(int(daemon), signal.SIGTERM)


def test_a_copied_disk_makes_a_new_machine_and_the_cluster_forms(bench: Bench) -> None:
    built = bench.up(nodes=3, boots=False)
    built.start("n1")
    bench.wait_until("n1 to answer", lambda: bool(status_of(built, "n1")["nodes"]))
    first = status_of(built, "n1")["node"]["id"]
    built.kill("n1")
    shutil.copytree(built.node("n1").state, built.node("n2").state, dirs_exist_ok=True)
    for name in built.known.names():
        built.start(name)
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1
    ids = {name: status_of(built, name)["node"]["id"] for name in built.known.names()}
    assert len(set(ids.values())) == 3
    assert ids["n1"] == first
    found = next(item for item in status_of(built, "n2")["health"] if item["code"] == "MESH-2013")
    assert "belongs to another machine" in found["message"]


def test_one_identity_on_two_machines_is_named_and_votes_no_more(bench: Bench) -> None:
    built = bench.up(nodes=3, boots=False)
    built.start("n1")
    bench.wait_until("n1 to answer", lambda: bool(status_of(built, "n1")["nodes"]))
    built.kill("n1")
    shutil.copytree(built.node("n1").state, built.node("n2").state, dirs_exist_ok=True)
    (built.node("n2").state / "machine").unlink()  # Else the copy would be noticed at its start.
    for name in ("n1", "n2", "n3"):
        built.start(name)
    bench.wait_until("n3 to name it", lambda: "MESH-3303" in health_codes(built, "n3"))
    for twin in ("n1", "n2"):
        bench.wait_until(f"{twin} to stop voting", partial(is_halted, built, twin))
        assert "this node's key is in use on two machines" in waits_for(built, twin)
        assert "MESH-4005" in health_codes(built, twin)
    assert bench.clusters() == ()
