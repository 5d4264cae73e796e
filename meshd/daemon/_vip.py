"""The network interface that the virtual address is on: which it is to be, and whether it is there.

kube-vip's DaemonSet has one interface for all servers, so it is used only if the plan's members all
would take the same one (meshd.cluster.groundwork); what holds is the plan's, for good.
"""

from __future__ import annotations

from collections.abc import Collection

from meshd.config import KubeVip
from meshd.events import Health
from meshd.machine import NodeAddress
from roles import ClusterPlan


def interface_for_vip(kubevip: KubeVip | None, address: NodeAddress | None) -> str:
    """Return the interface that would carry the address here; nothing if a static pod is wished."""
    if kubevip is None or kubevip.static_pod:
        return ""
    return kubevip.interface or (address.interface if address is not None else "")


def vip_items(
    kubevip: KubeVip | None, plan: ClusterPlan, names: Collection[str]
) -> tuple[Health, ...]:
    """Return what keeps a server from carrying the address, or differs from the plan.

    Args:
        kubevip: this machine's setting.
        plan: the decided one; this machine has a seat in it.
        names: of this machine's interfaces.
    """
    if kubevip is None or plan.vip is None:
        return ()
    items = []
    planned = plan.vip_interface
    wanted = planned or kubevip.interface
    if wanted and wanted not in names:
        whose = "on all servers" if planned else "here (kubevip.interface)"
        fix = f"give the interface the name {wanted} (systemd.link(5), or a rule of udev)"
        items.append(
            Health(
                code="MESH-6023",
                severity="error",
                message=f"this machine cannot hold the virtual address {plan.vip}: kube-vip puts "
                f"it on {wanted} {whose}, and there is no {wanted} (there are: "
                f"{', '.join(sorted(names)) or 'none'})",
                fix=fix if planned else f"correct kubevip.interface, or {fix}",
            )
        )
    if planned and kubevip.static_pod:
        items.append(_differs("kubevip.static_pod is true", "with a DaemonSet"))
    elif planned and kubevip.interface not in (None, planned):
        items.append(_differs(f"kubevip.interface is {kubevip.interface}", f"on {planned}"))
    return tuple(items)


def _differs(setting: str, planned: str) -> Health:
    return Health(
        code="MESH-6024",
        severity="warning",
        message=f"{setting} in this machine's file, but the cluster was formed with kube-vip "
        f"{planned}, and that counts",
        fix="put the setting back: how kube-vip runs is decided once, when the cluster forms",
    )
