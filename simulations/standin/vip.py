"""kube-vip's part: one server holds a Lease and, while it does, an address on its interface.

Settings come from the manifest's environment variables, as kube-vip reads them (kube-vip
pkg/kubevip/config_envvar.go). The election is client-go's: a candidate waits until the lease has
not changed for its duration by the candidate's own clock, then swaps it; a holder that cannot
renew within the deadline lets go. Unlike kube-vip, which outlives k3s, this part ends with the
stand-in: at SIGTERM it gives the lease and the address back, at SIGKILL the address stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from simulations.standin.addresses import add_address, default_interface, remove_address
from simulations.standin.etcd import EtcdError
from simulations.standin.kube import DAEMON_SET, LEASE, Fields, Objects, Refused, stamp
from simulations.standin.log import log, note
from simulations.standin.manifests import POLL_INTERVAL_S, documents, manifest_files

_NAMESPACE = "kube-system"
_ARP_INTERVAL_S = 3.0  # kube-vip's vip_arpRate.
_RELEASE_LIMIT_S = 1.0
_ETHERTYPE_ARP = 0x0806


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the manifest asks for; times in seconds, no interface: the default route's."""

    address: str
    prefix: int
    interface: str
    lease: str
    duration_s: int
    deadline_s: float
    retry_s: float

    @property
    def cidr(self) -> str:
        return f"{self.address}/{self.prefix}"


async def play_kube_vip(objects: Objects, static_pods: Path, node_name: str) -> None:
    """Follow the cluster's DaemonSet, or this node's static pod, for ever."""
    settings: Settings | None = None
    running: asyncio.Task[None] | None = None
    told = ""
    try:
        while True:
            wanted = await _wanted(objects, static_pods, settings)
            if wanted != settings:
                await _end(running)
                settings, running, told = wanted, None, ""
            elif running is not None and running.done():
                running.result()  # It never returns: this raises what ended it.
            if wanted is not None and running is None:  # The pod ends, and is started again.
                running, told = _started(objects, wanted, node_name, told)
            await asyncio.sleep(POLL_INTERVAL_S)
    finally:
        await _end(running)


def settings_in(manifest: Fields) -> Settings | None:
    """Return kube-vip's settings from a DaemonSet or a Pod, or None if it is not kube-vip."""
    spec = manifest.get("spec", {})
    if manifest.get("kind") == "DaemonSet":
        spec = spec.get("template", {}).get("spec", {})
    for container in spec.get("containers", ()):
        pairs = container.get("env") or ()
        values = {pair["name"]: str(pair.get("value", "")) for pair in pairs}
        if values.get("address") and values.get("vip_arp") == "true":
            wide = "32" if ipaddress.ip_address(values["address"]).version == 4 else "128"
            return Settings(
                address=values["address"],
                prefix=int(values.get("vip_subnet", wide).split(",")[0]),
                interface=values.get("vip_interface", ""),
                lease=values.get("vip_leasename", "plndr-cp-lock"),
                duration_s=int(values.get("vip_leaseduration", "15")),
                deadline_s=float(values.get("vip_renewdeadline", "10")),
                retry_s=float(values.get("vip_retryperiod", "2")),
            )
    return None


async def _wanted(objects: Objects, static_pods: Path, now: Settings | None) -> Settings | None:
    local = (doc for path, _ in manifest_files(static_pods) for doc in documents(path))
    found = _first_settings(doc for doc in local if can_mount(doc))
    if found is not None:
        return found
    try:
        stored = await objects.find(DAEMON_SET, _NAMESPACE, local=True)
    except EtcdError:
        return now  # Unknown is no reason to stop; the lease decides who holds the address.
    return _first_settings(stored["items"])


def can_mount(pod: Fields) -> bool:
    """Whether the files that a static pod mounts are there; the kubelet waits until they are."""
    volumes = [volume.get("hostPath", {}) for volume in pod.get("spec", {}).get("volumes", ())]
    return all(Path(v["path"]).is_file() for v in volumes if v.get("type") == "File")


def _first_settings(manifests: Iterable[Fields]) -> Settings | None:
    return next(filter(None, map(settings_in, manifests)), None)


def _started(
    objects: Objects, wanted: Settings, node_name: str, told: str
) -> tuple[asyncio.Task[None] | None, str]:
    """Start kube-vip; or return why it would end at once, said unless that was `told`."""
    interface = wanted.interface or default_interface()
    there = [name for _, name in socket.if_nameindex()]
    if interface in there:
        candidate = _Candidate(objects, replace(wanted, interface=interface), node_name)
        return asyncio.ensure_future(candidate.run()), ""
    problem = f"there is no interface {interface} (vip_interface)"
    if interface is None:
        problem = "no vip_interface and no default route to find one by"
    if problem != told:
        log("error", f"kube-vip: {problem}")
    return None, problem


async def _end(running: asyncio.Task[None] | None) -> None:
    if running is None:
        return
    running.cancel()
    await asyncio.wait([running])


class _Candidate:
    """This server's part in the election for one address."""

    def __init__(self, objects: Objects, settings: Settings, node_name: str) -> None:
        self._objects = objects
        self._settings = settings
        self._me = node_name
        self._holding = False
        self._seen = ("", "")
        self._seen_at = float("-inf")
        self._renewed_at = float("-inf")
        self._announced_at = float("-inf")

    async def run(self) -> None:
        """Stand for election until cancelled, then let go."""
        settings = self._settings
        note(f"playing kube-vip for {settings.cidr} on {settings.interface}")
        if remove_address(settings.cidr, settings.interface):
            note(f"removed {settings.cidr}, left over from before")
        try:
            while True:
                await self._round()
                await asyncio.sleep(settings.retry_s)
        finally:
            await self._resign()

    async def _round(self) -> None:
        """Renew or try to take the lease once, and act on the outcome."""
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                mine = await self._take_or_renew()
        except (EtcdError, Refused, TimeoutError) as error:
            log("debug", f"Lease {self._settings.lease}: {error}")
            mine = None
        now = time.monotonic()
        if mine:
            self._renewed_at = now
            self._hold(now)
        elif mine is False or now - self._renewed_at >= self._settings.deadline_s:
            self._let_go()

    async def _take_or_renew(self) -> bool:
        """Return whether the lease is this server's after the attempt."""
        began = time.monotonic()
        try:
            lease = await self._objects.get(LEASE, _NAMESPACE, self._settings.lease)
        except Refused as refusal:
            if refusal.code != 404:
                raise
            lease = {"metadata": {"name": self._settings.lease}, "spec": {}}
            await self._objects.create(LEASE, _NAMESPACE, self._claimed(lease))
            return True
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime") or "")
        if seen != self._seen:
            self._seen, self._seen_at = seen, began
        waited = began - self._seen_at
        if holder not in {"", self._me} and waited < spec["leaseDurationSeconds"]:
            return False
        await self._objects.update(LEASE, _NAMESPACE, self._settings.lease, self._claimed(lease))
        return True

    def _claimed(self, lease: Fields) -> Fields:
        spec = dict(lease["spec"])
        if spec.get("holderIdentity") != self._me:
            spec["acquireTime"] = stamp(micro=True)
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec["holderIdentity"] = self._me
        spec["leaseDurationSeconds"] = self._settings.duration_s
        spec["renewTime"] = stamp(micro=True)
        return {**lease, "spec": spec}

    def _hold(self, now: float) -> None:
        """Put the address in place, again if somebody removed it, and announce it now and then."""
        settings = self._settings
        if self._holding and now - self._announced_at < _ARP_INTERVAL_S:
            return
        try:
            add_address(settings.cidr, settings.interface)
        except OSError as error:
            log("error", f"could not add {settings.cidr} to {settings.interface}: {error}")
            return
        if not self._holding:
            note(f"{self._me} holds {settings.cidr}")
            self._holding = True
        _announce(settings)
        self._announced_at = now

    def _let_go(self) -> None:
        if self._holding:
            remove_address(self._settings.cidr, self._settings.interface)
            note(f"{self._me} let go of {self._settings.cidr}")
            self._holding = False

    async def _resign(self) -> None:
        """Remove the address, then hand the lease back so that nobody waits for its end."""
        held = self._holding
        self._let_go()
        if not held:
            return
        try:
            async with asyncio.timeout(_RELEASE_LIMIT_S):
                lease = await self._objects.get(LEASE, _NAMESPACE, self._settings.lease)
                if lease["spec"].get("holderIdentity") == self._me:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    free = {**lease, "spec": spec}
                    await self._objects.update(LEASE, _NAMESPACE, self._settings.lease, free)
        except (EtcdError, Refused, TimeoutError) as error:
            log("warning", f"Lease {self._settings.lease} not released: {error}")


def _announce(settings: Settings) -> None:
    """Send an ARP announcement (RFC 5227 section 2.3), so that neighbours learn the new place."""
    address = ipaddress.ip_address(settings.address)
    if address.version != 4:
        return  # The kernel's duplicate address detection makes IPv6 neighbours look again.
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind((settings.interface, _ETHERTYPE_ARP))
            hardware = link.getsockname()[4]
            link.send(arp_announcement(hardware, address.packed))
    except OSError as error:
        log("warning", f"could not announce {settings.address}: {error}")


def arp_announcement(hardware: bytes, address: bytes) -> bytes:
    """Return the Ethernet frame: an ARP request whose sender and target address are the same."""
    frame = b"\xff" * 6 + hardware + struct.pack("!H", _ETHERTYPE_ARP)
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return frame + request + hardware + address + b"\x00" * 6 + address
