"""Where a laboratory keeps what it makes: folders, namespaces, addresses. No I/O.

Everything a laboratory makes carries its name, so that leftovers of one that crashed are found
without any record of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/var/lib/meshd-lab")
NAMESPACES = Path("/run/netns")
MADE = ROOT / "made"
"""Lists what was made outside ROOT, for the last laboratory to take away."""

NODES_MAX = 39  # n1 has .11, n39 has .49; the VIP is .50.
_LAN_IPV4 = "10.0.0."
_LAN_IPV6 = "fd10::"  # A unique local prefix (RFC 4193); the last part is written as in IPv4.

# Folder on a node: folder of its disk below `disk/`.
DISKS = {
    Path("/etc/rancher"): "etc-rancher",
    Path("/var/lib/rancher"): "var-lib-rancher",
    Path("/var/lib/meshd"): "var-lib-meshd",
}
_NAME = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a laboratory.

    Args:
        lab: its name, 1 to 16 small letters and digits.
        ipv6: its LAN has no IPv4 at all.
    """

    lab: str
    ipv6: bool = False

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.lab), self.lab

    @property
    def folder(self) -> Path:
        return ROOT / self.lab

    @property
    def record(self) -> Path:
        return self.folder / "lab.json"

    @property
    def binaries(self) -> Path:
        return self.folder / "bin"

    @property
    def cloud_config(self) -> Path:
        return self.folder / "cloud-config.yaml"

    @property
    def zygote_socket(self) -> Path:
        return self.folder / "zygote.sock"

    @property
    def zygote_log(self) -> Path:
        return self.folder / "zygote.log"

    @property
    def sightings(self) -> Path:
        """What the recorder saw: one JSON object a line."""
        return self.folder / "sightings.jsonl"

    @property
    def namespace_prefix(self) -> str:
        return f"meshd-{self.lab}-"

    @property
    def lan(self) -> str:
        """The namespace of the bridges."""
        return f"{self.namespace_prefix}lan"

    @property
    def vip(self) -> str:
        return self.on_lan(50)

    @property
    def gateway(self) -> str:
        return self.on_lan(254)

    @property
    def prefix_length(self) -> int:
        return 64 if self.ipv6 else 24

    def on_lan(self, number: int) -> str:
        """Return an address of the LAN."""
        return f"{_LAN_IPV6 if self.ipv6 else _LAN_IPV4}{number}"

    def node(self, name: str) -> NodePlaces:
        return NodePlaces(self, name)


@dataclass(frozen=True, slots=True)
class NodePlaces:
    """The places of one node, `n1` to `n39`."""

    places: Places
    name: str

    @property
    def number(self) -> int:
        return int(self.name[1:])

    @property
    def folder(self) -> Path:
        return self.places.folder / self.name

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def k3s_folder(self) -> Path:
        """k3s' data folder, as seen from outside."""
        return self.disk / DISKS[Path("/var/lib/rancher")] / "k3s"

    @property
    def state(self) -> Path:
        """meshd's state folder, as seen from outside."""
        return self.disk / DISKS[Path("/var/lib/meshd")]

    @property
    def cloud_config(self) -> Path:
        return self.folder / "cloud-config.yaml"

    @property
    def wall_offset(self) -> Path:
        """Seconds by which meshd's wall clock on this node is off; none if it is not there."""
        return self.folder / "wall-offset"

    @property
    def card_file(self) -> Path:
        return self.folder / "card"

    @property
    def card(self) -> str:
        """What the machine calls its card on the LAN."""
        try:
            return self.card_file.read_text(encoding="ascii")
        except FileNotFoundError:
            return "eth0"

    @property
    def log(self) -> Path:
        return self.folder / "log" / "meshd.log"

    @property
    def exits(self) -> Path:
        """One line for each daemon that ended by itself: its exit code, negative for a signal."""
        return self.folder / "log" / "exits"

    @property
    def init(self) -> Path:
        """Holds the number of the node's first process."""
        return self.folder / "init.pid"

    @property
    def namespace(self) -> str:
        return f"{self.places.namespace_prefix}{self.name}"

    @property
    def namespace_file(self) -> Path:
        return NAMESPACES / self.namespace

    @property
    def address(self) -> str:
        return self.places.on_lan(10 + self.number)

    @property
    def pod_subnet(self) -> str:
        """Where its pods have their addresses, if it runs any."""
        if self.places.ipv6:
            return f"fd42:0:0:{self.number}::/64"
        return f"10.42.{self.number}.0/24"

    @property
    def fingerprint(self) -> str:
        return f"{self.places.lab}-{self.name}"
