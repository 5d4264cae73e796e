"""Which interface the virtual address would be on, and what is said of one that is not there."""

import pytest

from meshd.config import KubeVip
from meshd.daemon._vip import interface_for_vip, vip_items
from meshd.machine import NodeAddress
from roles import ClusterPlan
from tests.cluster.bench import VIP, plan

ADDRESS = NodeAddress(ip="10.0.0.11", interface="ens18")


@pytest.mark.parametrize(
    ("kubevip", "expected"),
    [
        (None, ""),
        (KubeVip(address=VIP), "ens18"),
        (KubeVip(address=VIP, interface="bond0"), "bond0"),
        (KubeVip(address=VIP, interface="bond0", static_pod=True), ""),
    ],
)
def test_it_is_the_named_one_or_that_of_the_node_address(
    kubevip: KubeVip | None, expected: str
) -> None:
    assert interface_for_vip(kubevip, ADDRESS) == expected


def test_before_there_is_an_address_it_is_not_known() -> None:
    assert interface_for_vip(KubeVip(address=VIP), None) == ""


def planned(interface: str) -> ClusterPlan:
    found = plan()
    return ClusterPlan(
        **{f: getattr(found, f) for f in found.__slots__} | {"vip_interface": interface}
    )


def said(interface: str, kubevip: KubeVip) -> list[tuple[str, str]]:
    items = vip_items(kubevip, planned(interface), ["lo", "ens18"])
    return [(item.code, item.message) for item in items]


def test_a_server_without_the_planned_interface_says_so() -> None:
    ((code, message),) = said("eth0", KubeVip(address=VIP))
    assert code == "MESH-6023"
    assert "on eth0 on all servers, and there is no eth0 (there are: ens18, lo)" in message
    ((code, message),) = said("", KubeVip(address=VIP, interface="eth0"))
    assert code == "MESH-6023"
    assert "eth0 here (kubevip.interface)" in message


def test_with_the_interface_there_is_nothing_to_say() -> None:
    for kubevip in (KubeVip(address=VIP), KubeVip(address=VIP, interface="ens18")):
        for interface in ("ens18", ""):
            assert said(interface, kubevip) == []
    assert said("", KubeVip(address=VIP, static_pod=True)) == []


def test_settings_that_came_too_late_are_named() -> None:
    for kubevip, words in (
        (KubeVip(address=VIP, static_pod=True), "kubevip.static_pod is true"),
        (KubeVip(address=VIP, interface="bond0"), "kubevip.interface is bond0"),
    ):
        ((code, message),) = said("ens18", kubevip)
        assert code == "MESH-6024"
        assert message.startswith(words)
