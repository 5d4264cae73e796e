"""LAN beacons: read by members, noise to others."""

from __future__ import annotations

import secrets

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger import node_id_of
from meshd.clock import read_moment
from meshd.events import Connected
from meshd.mesh import LibP2PMesh
from meshd.mesh.beacon import DATAGRAM_MAX_BYTES, MAGIC, Beacon, places_in, seal, unseal
from meshd.mesh.keys import derive_keys
from meshd.mesh.lan import beacon_pause
from tests.mesh.stations import LOOPBACK, Station, network_of, private_key

KEYS = derive_keys(network_of(b"a" * 32))
OTHERS = derive_keys(network_of(b"b" * 32))
NODE = node_id_of(Ed25519PrivateKey.from_private_bytes(b"n" * 32).public_key().public_bytes_raw())
BEACON = Beacon(node=NODE, port=7946, addresses=("/ip4/10.0.0.11/tcp/7946",))


def test_members_read_what_a_member_said_and_nobody_else_does() -> None:
    datagram = seal(BEACON, KEYS)
    assert unseal(datagram, [KEYS]) == BEACON
    assert unseal(datagram, [OTHERS, KEYS]) == BEACON
    assert unseal(datagram, [OTHERS]) is None
    assert NODE.encode() not in datagram
    assert b"10.0.0.11" not in datagram


@given(st.binary(max_size=200))
def test_garbage_says_nothing(garbage: bytes) -> None:
    assert unseal(garbage, [KEYS]) is None
    assert unseal(MAGIC + garbage, [KEYS]) is None


def test_a_sealed_node_id_that_is_none_is_no_beacon() -> None:
    wrong = Beacon(node="12D3KooWnobody", port=1, addresses=())
    assert unseal(seal(wrong, KEYS), [KEYS]) is None


def test_a_beacon_fits_into_a_packet_however_many_addresses_there_are() -> None:
    many = tuple(f"/ip6/2001:db8:aaaa:bbbb:cccc:dddd:eeee:{n:x}/tcp/7946" for n in range(100))
    datagram = seal(Beacon(node=NODE, port=7946, addresses=many), KEYS)
    assert len(datagram) <= DATAGRAM_MAX_BYTES
    read = unseal(datagram, [KEYS])
    assert read is not None
    assert read.addresses == many[: len(read.addresses)]


def test_where_it_came_from_is_the_last_place_to_dial() -> None:
    places = [str(place) for place in places_in(BEACON, "fe80::1%eth0")]
    assert places == ["/ip4/10.0.0.11/tcp/7946", "/ip6/fe80::1%eth0/tcp/7946"]
    assert len(places_in(BEACON, "10.0.0.11")) == 1
    strange = Beacon(node=NODE, port=7946, addresses=("/quic/x", "/ip4/10.0.0.11/tcp/7946"))
    assert len(places_in(strange, "10.0.0.11")) == 1


def test_beacons_slow_down_once_nothing_changes_unless_nobody_was_found() -> None:
    pauses = [beacon_pause(sent, alone=False) for sent in range(12)]
    assert pauses[:6] == [2.0] * 6
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
    assert beacon_pause(1000, alone=True) == 2.0


async def start(nursery: trio.Nursery, name: str, secret: bytes, port: int) -> Station:
    mesh = LibP2PMesh(
        private_key=private_key(name),
        network=network_of(secret),
        read_moment=read_moment,
        listen=LOOPBACK,
        discovery=("lan",),
        beacon_port=port,
    )
    station = Station(mesh, mesh.node_id)
    await nursery.start(station.run)
    return station


async def test_nodes_of_one_token_find_each_other_and_a_stranger_hears_only_that_it_is_one(
    nursery: trio.Nursery,
) -> None:
    port = 20000 + secrets.randbelow(10000)
    stranger = await start(nursery, "stranger", b"b" * 32, port)
    one = await start(nursery, "one", b"a" * 32, port)
    started = trio.current_time()
    other = await start(nursery, "other", b"a" * 32, port)
    await one.meets(other)
    assert trio.current_time() - started < 1.5
    assert not [event for event in stranger.ear.drain() if isinstance(event, Connected)]
    assert isinstance(stranger.mesh, LibP2PMesh)
    (item,) = stranger.mesh.health()
    assert item.code == "MESH-3102"


async def test_a_beacon_port_that_is_taken_is_a_health_item_and_no_end(
    nursery: trio.Nursery,
) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as taken:
        await taken.bind(("0.0.0.0", 0))  # noqa: S104
        station = await start(nursery, "one", b"a" * 32, taken.getsockname()[1])
        assert isinstance(station.mesh, LibP2PMesh)
        with trio.fail_after(5):
            while not station.mesh.health():
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert station.mesh.health()[0].code == "MESH-3103"


@pytest.mark.parametrize("addresses", [(), ("/ip4/10.0.0.11/tcp/7946",)])
def test_a_later_version_may_say_more(addresses: tuple[str, ...]) -> None:
    class Later(Beacon, frozen=True, array_like=True, kw_only=True):
        more: str = "something new"

    assert unseal(seal(Later(node=NODE, port=7946, addresses=addresses), KEYS), [KEYS]) == Beacon(
        node=NODE, port=7946, addresses=addresses
    )
