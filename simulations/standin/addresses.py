"""This machine's addresses, read with iproute2."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from simulations.standin.log import fatal


def node_address(given: tuple[str, ...], interface: str | None) -> str:
    """Return the address etcd and the node use: `node-ip`, the interface's, the default route's."""
    if given:
        return given[0]
    interface = interface or default_interface()
    if interface is None:
        raise fatal("no default routes found in /proc/net/route or /proc/net/ipv6_route")
    for link in _ip("-json", "address", "show", "dev", interface):
        for address in link.get("addr_info", ()):
            if address["scope"] == "global" and not address.get("deprecated"):
                return str(address["local"])
    raise fatal(f"no valid IP found on interface {interface}")


def add_address(address: str, interface: str) -> None:
    """Put the address on the interface, deprecated: never the source of new connections."""
    _ip("address", "replace", address, "dev", interface, "preferred_lft", "0")


def remove_address(address: str, interface: str) -> bool:
    """Take the address off the interface; returns whether it was there."""
    there = any(
        f"{found['local']}/{found['prefixlen']}" == address
        for link in _ip("-json", "address", "show", "dev", interface)
        for found in link.get("addr_info", ())
    )
    if there:
        _ip("address", "delete", address, "dev", interface)
    return there


def default_interface() -> str | None:
    """Return the default route's interface, or None without such a route."""
    for family in ("-4", "-6"):
        for route in _ip("-json", family, "route", "show", "default"):
            return str(route["dev"])
    return None


def _ip(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.returncode, done.stderr.strip())
    # iproute2 prints empty objects for interfaces that a filter left out.
    return [entry for entry in json.loads(done.stdout or "[]") if entry]
