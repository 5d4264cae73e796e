"""What each server writes for kube-vip: the same DaemonSet as all others, or its own static pod.

k3s applies the files of all servers, so two that differ would overwrite one another.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meshd.cluster.plan import Launch
from meshd.config.schema import Settings
from meshd.events import ClusterOrder
from tests.cluster.bench import N1, N2, SETTINGS, VIP, initialiser, plan, server
from tests.cluster.laying import lay

SHARED, OWN = "data/server/manifests/meshd-kube-vip.yaml", "data/agent/pod-manifests"
OWN_FILE = f"{OWN}/meshd-kube-vip.yaml"


def with_interface(order: ClusterOrder, name: str) -> ClusterOrder:
    assert order.plan is not None
    return replace(order, plan=replace(order.plan, vip_interface=name))


def with_kube_vip(**changes: object) -> Settings:
    assert SETTINGS.kubevip is not None
    return replace(SETTINGS, kubevip=replace(SETTINGS.kubevip, **changes))  # type: ignore[arg-type] # Tests name what they change.


def test_all_servers_write_the_same_daemon_set_whatever_their_own_interfaces(
    tmp_path: Path,
) -> None:
    orders = ((N1, initialiser(formed=True)), (N2, server(formed=True)))
    written = set()
    for node, order in orders:
        settings = with_kube_vip(interface=None if node == N1 else "bond0")
        lay(tmp_path / node, node, with_interface(order, "eth9"), settings)
        written.add((tmp_path / node / SHARED).read_bytes())
        assert not (tmp_path / node / OWN).exists()
    (content,) = written
    assert b"value: eth9" in content


@pytest.mark.parametrize(("wanted", "named"), [(None, "eth7"), ("bond0", "bond0")])
def test_where_servers_differ_each_has_a_static_pod_with_its_own_interface(
    tmp_path: Path, wanted: str | None, named: str
) -> None:
    order = with_interface(initialiser(formed=True), "")
    lay(tmp_path, N1, order, with_kube_vip(interface=wanted))
    assert not (tmp_path / SHARED).exists()
    assert f"value: {named}" in (tmp_path / OWN_FILE).read_text()


def test_a_server_that_gave_the_cluster_a_daemon_set_stays_at_it(tmp_path: Path) -> None:
    # Two kube-vips on one machine would hold the address together, and let go of it apart.
    lay(tmp_path, N1, with_interface(initialiser(formed=True), "eth7"))
    before = (tmp_path / SHARED).read_bytes()
    lay(tmp_path, N1, with_interface(initialiser(formed=True), ""), with_kube_vip(static_pod=True))
    assert (tmp_path / SHARED).read_bytes() == before
    assert not (tmp_path / OWN).exists()


@pytest.mark.parametrize("interface", ["", "eth7"])
def test_kube_vip_serves_the_plans_address_whatever_the_file_says(
    tmp_path: Path, interface: str
) -> None:
    order = with_interface(server(formed=True), interface)
    lay(tmp_path, N2, order, with_kube_vip(address="10.0.0.60"))
    (manifest,) = (tmp_path / "data").rglob("meshd-kube-vip.yaml")
    text = manifest.read_text()
    assert (VIP in text, "10.0.0.60" in text) == (True, False)
    assert "10.0.0.60" not in (tmp_path / "etc/config.yaml.d/50-meshd.yaml").read_text()


def test_without_a_vip_in_the_plan_there_is_no_kube_vip(tmp_path: Path) -> None:
    order = replace(server(formed=True), plan=replace(plan(), vip=None))
    assert isinstance(lay(tmp_path, N2, order), Launch)
    assert list((tmp_path / "data").rglob("meshd-kube-vip.yaml")) == []
    # Nor from a file that wants none: the other servers' settings are not known here.
    lay(tmp_path, N2, server(formed=True), replace(SETTINGS, kubevip=None))
    assert list((tmp_path / "data").rglob("meshd-kube-vip.yaml")) == []
