"""The laboratory's parts that need neither root nor a network."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from meshd.config import parse_token
from meshd.errors import ConfigError, MeshdError
from simulations.lab import cloudconfig, kernel, record, removal
from simulations.lab.figures import Figure, as_json, joined, percentile, table
from simulations.lab.glance import Glance, as_table
from simulations.lab.glance import as_json as glance_json
from simulations.lab.inside import node_environment
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import Places
from simulations.lab.progress import Checklist
from simulations.lab.record import Record, Side
from simulations.lab.recorder import Sighting, generation_on


def test_the_generated_file_is_a_kairos_file_with_a_token_of_the_right_bounds() -> None:
    text = cloudconfig.generate(nodes=9, control_plane=3, k3s="stand-in", vip="10.0.0.50")
    content = yaml.safe_load(text)
    assert text.startswith("#cloud-config\n")
    assert sorted(content) == ["kubevip", "p2p"]
    bounds = parse_token(content["p2p"]["network_token"]).bounds
    assert bounds is not None
    assert (bounds.control_plane, bounds.nodes_max, bounds.quorum) == (3, 9, 5)
    assert cloudconfig.shape(text) == (3, "10.0.0.50")


def test_few_machines_leave_the_bound_at_its_default() -> None:
    content = yaml.safe_load(
        cloudconfig.generate(nodes=2, control_plane=3, k3s="stand-in", vip="10.0.0.50")
    )
    bounds = parse_token(content["p2p"]["network_token"]).bounds
    assert bounds is not None
    assert bounds.nodes_max == 5


def test_an_even_control_plane_is_refused() -> None:
    with pytest.raises(ConfigError):
        cloudconfig.generate(nodes=4, control_plane=2, k3s="stand-in", vip="10.0.0.50")


def test_real_servers_without_agents_are_told_so_and_whole_nodes_are_not() -> None:
    generated = partial(cloudconfig.generate, nodes=3, control_plane=3, vip="10.0.0.50")
    servers = yaml.safe_load(generated(k3s="servers"))
    whole = yaml.safe_load(generated(k3s="whole"))
    assert "--disable-agent" in servers["k3s"]["args"]
    assert "--disable-agent" not in whole["k3s"]["args"]
    assert "k3s-agent" not in servers
    assert set(whole["k3s-agent"]["args"]) < set(whole["k3s"]["args"])


@pytest.mark.parametrize("text", ["", "[1]", "p2p: 3", "a: [", "kubevip: {eip: 7}"])
def test_a_users_file_is_never_refused_for_its_content(text: str) -> None:
    assert cloudconfig.shape(text) == (None, None)


def test_a_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(MeshdError, match=r"no\.yaml cannot be read"):
        cloudconfig.read(tmp_path / "no.yaml")


def test_places_of_different_laboratories_do_not_meet() -> None:
    one, other = Places("a").node("n1"), Places("b").node("n1")
    assert one.namespace != other.namespace
    assert one.folder != other.folder
    assert one.fingerprint != other.fingerprint
    assert not other.namespace.startswith(Places("a").namespace_prefix)


def test_a_node_has_no_part_in_the_hosts_kernel_command_line() -> None:
    environment = node_environment(Places("a").node("n1"), {})
    assert environment["MESHD_CMDLINE_FILE"] == "/dev/null"


def test_addresses_stay_clear_of_vip_and_gateway() -> None:
    addresses = {Places("a").node(f"n{number}").address for number in range(1, 40)}
    assert len(addresses) == 39
    assert not addresses & {"10.0.0.50", "10.0.0.254"}


def test_a_checklist_ticks_with_the_seconds_since_the_last_tick() -> None:
    now, out = [10.0], io.StringIO()
    checklist = Checklist(out, lambda: now[0])
    now[0] = 12.5
    assert checklist.done("built") == 2.5
    now[0] = 13.0
    assert checklist.done("formed") == 0.5
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["built", "formed"]
    assert lines[0].endswith("2.5 s")


def test_a_wait_returns_what_was_found_and_ends_with_an_error_at_its_limit() -> None:
    ticks = iter(range(100))
    checklist = Checklist(io.StringIO(), lambda: float(next(ticks)))
    looks = iter([None, None, "n2"])
    assert checklist.wait("x", lambda: next(looks), limit_s=50, code="MESH-8011") == "n2"
    with pytest.raises(MeshdError, match="not seen within 3 s: rain") as caught:
        checklist.wait("rain", lambda: None, limit_s=3, code="MESH-8011")
    assert caught.value.code == "MESH-8011"


def _laboratory(*names: str) -> Laboratory:
    known = Record(
        lab="a",
        k3s_version="k3s version v1 (stand-in, not k3s)",
        standin=True,
        forks=True,
        control_plane=3,
        vip="10.0.0.50",
        imports_s=1.0,
        environment={},
        nodes=[Side(name=name) for name in names],
    )
    return Laboratory(Places("a"), known)


def test_the_glance_shows_a_dead_node_and_a_daemon_that_cannot_run() -> None:
    dead = Glance(
        name="n1", address="10.0.0.11", state="down", has_vip=False, side=0, status=None,
        problem=None,
    )  # fmt: skip
    ill = Glance(
        name="n2", address="10.0.0.12", state="silent", has_vip=True, side=1, status=None,
        problem="error[MESH-2001]: read-only",
    )  # fmt: skip
    title, _, *rows = as_table(_laboratory("n1", "n2"), [dead, ill]).splitlines()
    assert "stand-in, not k3s" in title
    assert rows[0].split() == ["n1", "down", "10.0.0.11", "-", "-", "-", "-", "-"]
    assert "silent, cut off" in rows[1]
    assert rows[1].endswith("error[MESH-2001]: read-only")
    content = glance_json(_laboratory("n1", "n2"), [dead, ill])
    assert [node["state"] for node in content["nodes"]] == ["down", "silent"]


def test_an_audit_line_has_generation_node_and_time() -> None:
    one = Sighting(uid="u", generation=1, node="n2", time="2026-01-01T00:00:00Z")
    assert str(one) == "generation 1  n2  2026-01-01T00:00:00Z  uid u"
    unmarked = Sighting(uid="u", generation=None, node="n2", time="t")
    assert str(unmarked).startswith("generation ?")


def test_a_database_without_a_mark_has_no_generation() -> None:
    assert generation_on(Places("nosuchlab").node("n1")) is None


def test_the_mount_of_a_folder_is_found_by_the_kernels_own_list() -> None:
    assert removal.mounts_below(Path("/nowhere")) == []
    assert Path("/proc") in removal.mounts_below(Path("/"))


def test_a_refused_system_call_says_why(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="umount") as caught:
        kernel.unmount(tmp_path)
    assert os.strerror(caught.value.errno or 0) in str(caught.value)


def test_percentiles_are_samples_of_nearest_rank() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == 5.0
    assert percentile(values, 100) == 5.0
    assert percentile(values, 1) == 1.0


def test_a_missed_target_shows() -> None:
    met = Figure(what="a", nodes=3, unit="s", values=(0.1, 0.2), shown="max", target=0.5)
    missed = Figure(what="b", nodes=3, unit="s", values=(0.1, 0.9), shown="p99", target=0.5)
    free = Figure(what="c", nodes=3, unit="s", values=(0.1,), shown="p50", target=None)
    rows = table([met, missed, free]).splitlines()[1:]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "met", "MISSED by 0.4 s (80 %)", "0.1 - 0.1 - 0.1",
    ]  # fmt: skip
    assert "0.1 - 0.5 - 0.9" in rows[1]
    assert joined([met, free, met])[0].values == (0.1, 0.2, 0.1, 0.2)
    figures = as_json([met, missed, free], {"before": 0.0})["figures"]
    assert [figure["met"] for figure in figures] == [True, False, None]


def test_changes_exclude_each_other_although_their_folder_comes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("the laboratory needs root")
    monkeypatch.setattr(record, "ROOT", tmp_path / "root")
    inside, most, lock = 0, [0], threading.Lock()

    def change() -> None:
        nonlocal inside
        for _ in range(200):
            with record.changing():
                with lock:
                    inside += 1
                    most[0] = max(most[0], inside)
                (tmp_path / "root" / "lab").mkdir()  # The folder is there as long as it is locked.
                (tmp_path / "root" / "lab").rmdir()
                with lock:
                    inside -= 1

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(change) for _ in range(3)]:
            one.result()
    assert most == [1]
    assert not (tmp_path / "root").exists()
