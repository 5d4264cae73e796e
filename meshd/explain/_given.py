"""What the shell hands in: how the configuration came about, and what the mesh saw of strangers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ledger import NodeId
from meshd.explain._model import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What is known about reaching one peer; a seed that never answered has no id."""

    peer: NodeId | None
    addresses: tuple[str, ...] = ()  # Multiaddrs, newest first.
    ways: tuple[str, ...] = ()  # How they came here: `beacon`, `seed`, `the ledger`, …
    dialled: bool | None = None  # Who opened the connection; None without one.
    failures: int = 0  # Dials that failed in a row.
    failure: str | None = None  # What came of the last one.


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A peer that was not let in, or did not let this node in."""

    where: str
    peer: NodeId
    why: str
    count: int
    ago_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Everything that an explanation needs beside the node."""

    settings: tuple[Setting, ...] = ()  # In the order of the files; secrets are hidden.
    contacts: tuple[Contact, ...] = ()
    refused: tuple[Refused, ...] = ()  # The latest last.
    foreign: tuple[str, ...] = ()  # IP addresses from which other networks' beacons came.
    deaf: str | None = None  # Why beacons cannot be heard.
    vip_lease_s: int = 5  # How long kube-vip's holder may be silent.
    discovery: tuple[str, ...] = ("lan", "seeds")
    now: float = 0.0  # Seconds on CLOCK_BOOTTIME.

    def stated(self, *keys: str) -> tuple[Setting, ...]:
        """Return those of the settings that somebody stated, in the order of `keys`.

        Of a list every item, such as `p2p.meshd.seeds[0]`.
        """
        return tuple(
            setting
            for key in keys
            for setting in self.settings
            if setting.key.partition("[")[0] == key
        )

    def contact(self, peer: NodeId) -> Contact | None:
        """Return what is known about reaching `peer`, several entries put together."""
        found = [contact for contact in self.contacts if contact.peer == peer]
        if not found:
            return None
        last = max(found, key=lambda contact: (contact.dialled is not None, contact.failures))
        return Contact(
            peer=peer,
            addresses=_all(contact.addresses for contact in found),
            ways=_all(contact.ways for contact in found),
            dialled=last.dialled,
            failures=last.failures,
            failure=last.failure,
        )

    def refusal(self, peer: NodeId) -> Refused | None:
        """Return the last refusal of `peer`."""
        return next((one for one in reversed(self.refused) if one.peer == peer), None)

    def strangers(self, known: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Return the peers that only the mesh has met, sorted."""
        met = {contact.peer for contact in self.contacts if contact.peer is not None}
        return tuple(sorted((met | {one.peer for one in self.refused}) - set(known)))


def _all(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group))
