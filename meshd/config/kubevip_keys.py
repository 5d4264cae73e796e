"""The keys below `kubevip`: Kairos' own, and kube-vip's settings by kube-vip's names.

Kairos' structure (provider-kairos, internal/provider/config/config.go) embeds kube-vip's without
`inline`, so its reader finds them below `kubevip.config` only (gopkg.in/yaml.v3); both are read
here.
"""

from __future__ import annotations

from meshd.config import values
from meshd.config.key import Key
from meshd.config.kubevip_own import OWN

ALIASES = frozenset({"kubevip.config", "kubevip.kubernetesleaderelection"})
"""Where Kairos' reader looks for kube-vip's settings; they mean the same as below `kubevip`."""

EIP = Key(
    path="kubevip.eip",
    read=values.address,
    about="The virtual address of the control plane: free, outside of any DHCP range, in the "
    "machines' network. Setting it switches kube-vip on.",
)
ENABLE = Key(
    path="kubevip.enable",
    read=values.flag,
    about="Whether kube-vip runs. Without it: exactly if kubevip.eip is set.",
)
INTERFACE = Key(
    path="kubevip.interface",
    read=values.interface,
    about="Network interface that carries the address. Without it, each node's own one is used.",
)
VERSION = Key(
    path="kubevip.version",
    read=values.text,
    about="Version of kube-vip's image.",
    default="v1.2.3",
)
IMAGE = Key(
    path="kubevip.image",
    read=values.text,
    about="kube-vip's image. If it names a tag or a digest itself, that counts, not the version.",
    default="ghcr.io/kube-vip/kube-vip",
)
STATIC_POD = Key(
    path="kubevip.static_pod",
    read=values.flag,
    about="Run kube-vip as a static pod instead of a DaemonSet, so that the address is there "
    "before any network plugin is.",
    default=False,
)
MANIFEST_URL = Key(
    path="kubevip.manifest_url",
    read=values.text,
    idle="meshd gives kube-vip the permissions that it needs, and fetches nothing that it cannot "
    "check",
    mend="remove it; what else is in there you can read, and put into "
    "/var/lib/rancher/k3s/server/manifests on a server yourself",
    about="Take the manifest of kube-vip's permissions (RBAC) from here.",
)
LEASE = Key(
    path="kubevip.leaseDuration",
    read=values.count(1, 3600),
    about="Seconds after which another node may take the address from a silent holder.",
    default=5,
)
RENEW = Key(
    path="kubevip.renewDeadline",
    read=values.count(1, 3600),
    about="Seconds in which the holder must renew its lease, or give the address up.",
    default=3,
)
RETRY = Key(
    path="kubevip.retryPeriod",
    read=values.count(1, 3600),
    about="Seconds between two attempts to take or renew the lease.",
    default=1,
)
FIRST = (
    *(EIP, ENABLE, INTERFACE, VERSION, IMAGE),
    *(STATIC_POD, MANIFEST_URL, LEASE, RENEW, RETRY),
)

EVERY: tuple[Key[object], ...] = (*FIRST, *OWN)
"""All keys below `kubevip`."""
