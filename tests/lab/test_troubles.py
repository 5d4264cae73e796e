"""What can be wrong with a machine: each shows as a clear error or health item, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulations.lab import glance, kernel
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces, Places
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def status_of(built: Laboratory, name: str) -> dict[str, Any]:
    found = next(one for one in glance.look(built) if one.name == name)
    return found.status or {"health": [], "node": {"waiting_for": None}, "nodes": []}


def health_codes(built: Laboratory, name: str) -> set[str]:
    return {item["code"] for item in status_of(built, name)["health"]}


def k3s_of(built: Laboratory, name: str) -> str | None:
    return next((n["k3s"] for n in status_of(built, name)["nodes"] if n["name"] == name), None)


def log_of(node: NodePlaces) -> str:
    return "\n".join(glance.tail(node, 100))


@contextlib.contextmanager
def small_disk(node: NodePlaces, image: Path) -> Iterator[None]:
    """Put a node's state on a disk of 16 MiB."""
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, node.state], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no loop mounts here: {mounted.stderr.strip()}")
    yield


def fill(folder: Path) -> Path:
    """Write a file until the disk is full; return it."""
    filler = folder / "filler"
    block = bytes(64 << 10)

    def write_on() -> None:
        with filler.open("wb", buffering=0) as file:
            while file.write(block) <= len(block):
                pass

    with pytest.raises(OSError, match="No space left"):
        write_on()
    return filler


def test_a_full_disk_does_not_vote_says_so_and_votes_again_by_itself(
    bench: Bench, tmp_path: Path
) -> None:
    built = bench.up(nodes=3, boots=False)
    n1 = built.node("n1")
    with small_disk(n1, tmp_path / "disk"):
        built.start("n1")
        built.start("n2")
        bench.wait_until("n1 and n2 to meet", lambda: len(status_of(built, "n1")["nodes"]) == 2)
        filler = fill(n1.state)
        built.start("n3")
        bench.wait_until("n1 to say it", lambda: "MESH-2006" in health_codes(built, "n1"))
        # Three votes are needed, and one machine cannot keep its own: there is no cluster.
        assert bench.clusters() == ()
        filler.unlink()
        bench.wait_until_complete(built)
    assert health_codes(built, "n1") == set()
    assert len(bench.clusters()) == 1


def test_a_state_directory_in_memory_does_not_vote_and_says_so(bench: Bench) -> None:
    built = bench.up(nodes=3, boots=False)
    kernel.mount("tmpfs", built.node("n1").state, "tmpfs")
    for name in built.known.names():
        built.start(name)
    bench.wait_until(
        "two voters of three to be counted",
        lambda: all(
            str(status_of(built, name)["node"]["waiting_for"]).startswith("2 of 3 voters seen")
            for name in built.known.names()
        ),
    )
    found = next(i for i in status_of(built, "n1")["health"] if i["code"] == "MESH-2007")
    assert found["severity"] == "error"
    assert "tmpfs" in found["message"]
    assert "--state-dir" in found["fix"]
    run = bench.demo("exec", "n1", "--", "meshd", "status")
    assert run.code == 1
    assert "MESH-2007" in run.out


def test_a_read_only_state_directory_and_a_mistyped_token_end_the_daemon_with_an_error(
    bench: Bench,
) -> None:
    bench.may_exit = {"n1", "n2"}
    built = bench.up(nodes=3, boots=False)
    n1, n2 = built.node("n1"), built.node("n2")
    kernel.mount(str(n1.state), n1.state, "", kernel.MS_BIND)
    kernel.mount("", n1.state, "", kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
    token = yaml.safe_load(n2.cloud_config.read_text())["p2p"]["network_token"]
    wrong = token[:20] + ("q" if token[20] != "q" else "p") + token[21:]
    n2.cloud_config.write_text(n2.cloud_config.read_text().replace(token, wrong))
    for name in built.known.names():
        built.start(name)
    bench.wait_until("n1 to end", lambda: "error[MESH-2001]" in log_of(n1))
    assert "Read-only file system" in log_of(n1)
    assert "--state-dir" in log_of(n1)
    bench.wait_until("n2 to end", lambda: "error[MESH-1002]" in log_of(n2))
    assert f"{n2.cloud_config}:" in log_of(n2)
    assert "character 21" in log_of(n2)
    assert token[8:] not in log_of(n2)
    bench.wait_until("n3 to answer", lambda: bool(status_of(built, "n3")["nodes"]))

    shown = bench.demo("status").out.splitlines()
    assert "silent" in shown[2]
    assert "MESH-2001" in shown[2]
    assert "silent" in shown[3]
    assert "MESH-1002" in shown[3]
    assert "up" in shown[4]

    # Put right, they go on without another hand: the service starts the daemon again.
    kernel.unmount(n1.state)
    built.kill("n1")
    built.start("n1")
    n2.cloud_config.write_text(n2.cloud_config.read_text().replace(wrong, token))
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1


def test_a_busy_port_and_a_busy_state_directory_are_named_with_their_owner(bench: Bench) -> None:
    built = bench.up(nodes=1)
    bench.wait_until("n1 to answer", lambda: bool(status_of(built, "n1")["nodes"]))
    config = str(built.node("n1").cloud_config)
    second = ("exec", "n1", "--", "meshd", "daemon", "--config", config, "--run-dir", "/run/second")
    port = bench.demo(*second, "--state-dir", "/etc/rancher/second")
    assert port.code == 1
    assert "error[MESH-3001]: TCP port 7946 is taken" in port.err
    assert "p2p.meshd.listen" in port.err
    state = bench.demo(*second)
    assert state.code == 1
    assert "error[MESH-2002]: another meshd daemon" in state.err


def test_two_networks_on_one_lan_do_not_meet_and_the_audit_tells_two_clusters_apart(
    bench: Bench, tmp_path: Path
) -> None:
    built = bench.up(nodes=2, control_plane=1, boots=False)
    for name in built.known.names():
        run = bench.demo("exec", name, "--", "true")
        assert run.code == 1  # Machines that are off run nothing.
        token = subprocess.run(
            [sys.executable, "-m", "meshd.cli", "token", "new", "--control-plane=1", "--nodes=1"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        content = {"p2p": {"network_token": token, "auto": {"ha": {"master_nodes": 0}}}}
        built.node(name).cloud_config.write_text(f"#cloud-config\n{yaml.safe_dump(content)}")
        built.start(name)
    bench.wait_until("two clusters", lambda: len(bench.clusters()) == 2)
    names = built.known.names()
    bench.wait_until(
        "no alarm about the other to be left",
        lambda: all("MESH-3102" not in health_codes(built, name) for name in names),
    )
    for name in names:
        assert [node["name"] for node in status_of(built, name)["nodes"]] == [name]
        assert log_of(built.node(name)).count("other_network_near") == 1
        why = bench.demo("exec", name, "--", "meshd", "explain", "join").out
        assert "foreign" in why
        assert "beacons of another network come from 10.0.0.1" in why
    audit = bench.demo("audit")
    assert audit.code == 1  # Two for one generation.
    assert len(audit.out.splitlines()) == 2


def test_without_etcd_a_node_says_what_k3s_said_and_goes_on_once_it_is_there(
    bench: Bench, tmp_path: Path
) -> None:
    built = bench.up(nodes=1, control_plane=1, boots=False)
    for needed in ("/usr/sbin/ip", "/usr/bin/setpriv"):
        (tmp_path / Path(needed).name).symlink_to(needed)
    path = f"{built.places.binaries}:{Path(sys.executable).parent}:{tmp_path}"
    built.known.environment["PATH"] = path
    built.start("n1")
    bench.wait_until(
        "n1 to say why k3s ends",
        lambda: "etcd exited with code 127" in str(status_of(built, "n1")["node"]["waiting_for"]),
    )
    (tmp_path / "etcd").symlink_to("/usr/bin/etcd")
    bench.wait_until_complete(built)
    assert k3s_of(built, "n1") == "ready"


def test_up_names_the_package_when_etcd_is_not_installed() -> None:
    hidden = 'mount --bind /dev/null "$(command -v etcd)" && exec "$@"'
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", hidden, "sh", sys.executable, "-m", "simulations.lab", "up"],
        env=dict(os.environ) | {"MESHD_LAB": "noetcd"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "error[MESH-8007]" in run.stderr
    assert "etcd-server" in run.stderr
    assert not Places("noetcd").folder.exists()
