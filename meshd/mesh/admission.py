"""How many strangers may be at the door: connections that did not prove the token yet.

A connection beyond the limit waits for a place a moment, so that thirty machines of one rack that
boot together all get in; beyond the waiting room it is closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv6Address, ip_address

import trio

UNPROVEN_MAX = 32
UNPROVEN_PER_PREFIX_MAX = 4
WAITING_MAX = 128
WAITING_PER_PREFIX_MAX = 32
WAIT_MAX_S = 4.0


class DoorFull(Exception):
    """No place became free for this connection."""


def prefix_of(host: str) -> str:
    """Return the /24 of an IPv4 or the /64 of an IPv6 address: what one machine can occupy."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return prefix_of(str(address.ipv4_mapped))
        return address.packed[:8].hex()
    return address.packed[:3].hex()


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


class Admission:
    """The places for unproven connections."""

    def __init__(self) -> None:
        self._greeted: Counter[str] = Counter()  # IP addresses, inside or waiting.
        self._inside: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._freed = trio.Condition()
        self.turned_away = 0

    @property
    def inside(self) -> int:
        """How many unproven connections there are."""
        return self._inside.total()

    def greets(self, host: str) -> bool:
        """Whether an unproven connection from that IP address is inside or waits."""
        return host in self._greeted

    @asynccontextmanager
    async def place(self, host: str) -> AsyncIterator[None]:
        """Hold a place for a connection from `host` until the block ends.

        Raises:
            DoorFull: too many are inside and wait.
        """
        prefix = prefix_of(host)
        with _counted(self._greeted, host):
            await self._enter(prefix)
            try:
                yield
            finally:
                self._inside[prefix] -= 1
                if not self._inside[prefix]:
                    del self._inside[prefix]
                with trio.CancelScope(shield=True):  # Only a lock that nobody holds for long.
                    async with self._freed:
                        self._freed.notify_all()

    def _has_place(self, prefix: str) -> bool:
        return self.inside < UNPROVEN_MAX and self._inside[prefix] < UNPROVEN_PER_PREFIX_MAX

    async def _enter(self, prefix: str) -> None:
        if not self._has_place(prefix):
            full = (
                self._waiting.total() >= WAITING_MAX
                or self._waiting[prefix] >= WAITING_PER_PREFIX_MAX
            )
            if full or not await self._wait(prefix):
                self.turned_away += 1
                raise DoorFull
        self._inside[prefix] += 1

    async def _wait(self, prefix: str) -> bool:
        self._waiting[prefix] += 1
        try:
            with trio.move_on_after(WAIT_MAX_S):
                async with self._freed:
                    while not self._has_place(prefix):
                        await self._freed.wait()
                    return True
        finally:
            self._waiting[prefix] -= 1
        return False
