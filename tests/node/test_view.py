"""What others publish is understood, or counted against them; it never breaks anything."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Entry, sign_entry
from meshd.events import Connected, Disconnected, Learn
from meshd.node._view import View
from meshd.schema import Facts, K3sRecord, LinkRecord
from tests.node import people

ME, OTHER = people.IDS[0], people.IDS[1]


def entry(name: str, value: bytes | None) -> Entry:
    return sign_entry(
        people.SIGNERS[1],
        network="oak-7f3a9c12",
        key=f"node/{OTHER}/{name}",
        seq=1,
        stamp_ms=0,
        value=value,
    )


def encoded(record: object) -> bytes:
    return msgspec.msgpack.encode(record)


def test_facts_are_kept_and_their_addresses_learned_once() -> None:
    view = View(ME)
    assert view.take(entry("facts", encoded(people.facts(1)))) == [
        Learn(OTHER, ("/ip4/10.0.0.11/tcp/7946",))
    ]
    assert view.directory[OTHER].name == "n1"
    assert view.take(entry("facts", encoded(people.facts(1)))) == []
    assert view.people_changed


@pytest.mark.parametrize(
    "change",
    [
        {"node_ip": "10.0.0.1:6443/ --token"},
        {"node_ip": "example.org"},
        {"vip": "no address"},
        {"node_name": "N1"},
        {"node_name": "n1\n- evil: true"},
        {"name": ""},
        {"name": "n1\x1b[2J"},
        {"name": "n" * 600},
        {"sealing_key": b"short"},
        {"addresses": tuple(f"/ip4/10.0.0.1/tcp/{n}" for n in range(100))},
        {"software": "\u202e"},
        {"settings": (("cluster-cidr", "10.0.0.0/8\n"),)},
        {"settings": tuple((f"key-{n}", "x") for n in range(100))},
    ],
)
def test_facts_that_could_harm_a_configuration_or_a_terminal_are_refused(
    change: dict[str, object],
) -> None:
    view = View(ME)
    facts: Facts = msgspec.structs.replace(people.facts(1), **change)
    assert view.take(entry("facts", encoded(facts))) == []
    assert view.directory[OTHER].facts is None
    assert view.malformed == {OTHER: 1}


def test_a_k3s_record_with_unprintable_words_or_too_many_voters_is_refused() -> None:
    view = View(ME)
    for record in (
        msgspec.structs.replace(people.record(), waiting_for="a\nb"),
        msgspec.structs.replace(people.record(), voters=tuple(map(str, range(40)))),
    ):
        view.take(entry("k3s", encoded(record)))
    assert view.directory[OTHER].k3s is None
    assert view.malformed[OTHER] == 2


def test_a_record_of_a_later_version_with_more_fields_is_understood() -> None:
    view = View(ME)
    later = {**msgspec.to_builtins(people.record()), "added_in_v2": [1, 2]}
    view.take(entry("k3s", encoded(later)))
    assert view.directory[OTHER].k3s == people.record()


@given(st.binary(max_size=200), st.sampled_from(("facts", "k3s", "links")))
def test_whatever_the_bytes_are_they_are_kept_or_counted(value: bytes, name: str) -> None:
    view = View(ME)
    view.take(entry(name, value))
    known = view.directory[OTHER]
    kept = {"facts": known.facts, "k3s": known.k3s, "links": known.neighbours or value == b"\x90"}
    assert view.malformed[OTHER] == (0 if kept[name] else 1)


def test_a_name_in_a_plan_stands_in_until_its_owner_says_it() -> None:
    view = View(ME)
    assert view.directory.name(OTHER) == OTHER[-8:]
    view.directory.name_seats(people.plan(0, 1, 2))
    assert view.directory.name(OTHER) == "n1"


def test_a_tombstone_changes_nothing() -> None:
    view = View(ME)
    view.take(entry("k3s", encoded(people.record())))
    view.take(entry("k3s", None))
    assert isinstance(view.directory[OTHER].k3s, K3sRecord)


def test_of_two_who_sealed_a_secret_the_initialiser_is_preferred() -> None:
    view = View(ME)
    for signer, value in ((people.SIGNERS[1], b"from 1"), (people.SIGNERS[2], b"from 2")):
        view.take(
            sign_entry(
                signer,
                network="oak-7f3a9c12",
                key=f"sealed/{ME}/agent-token",
                seq=1,
                stamp_ms=0,
                value=value,
            )
        )
    assert view.sealed_by(people.IDS[2]) == {"agent-token": b"from 2"}
    assert view.sealed_by(people.IDS[1]) == {"agent-token": b"from 1"}
    assert view.sealed_by(None) == {"agent-token": b"from 1"}
    assert (ME, "agent-token") in view.handed_over(1)


def test_nodes_further_off_are_present_through_what_their_neighbours_publish() -> None:
    directory = people.directory(0, size=2)
    far, gone = people.IDS[2], people.IDS[3]
    directory[far].facts, directory[gone].facts = people.facts(2), people.facts(3)
    assert directory.present() == {ME, OTHER}
    directory[OTHER].neighbours = (LinkRecord(peer=far, path="direct", rtt_class_ms=1),)
    assert directory.present() == {ME, OTHER, far}
    present = directory.present()
    assert directory.state_of(directory[far], present) == "alive"
    directory[OTHER].link = "failed"
    assert directory.present() == {ME}


def test_what_is_held_of_a_neighbour_that_came_back_says_nobody_is_here_until_it_is_of_now() -> (
    None
):
    view = View(ME)
    directory, far = view.directory, people.IDS[2]
    directory[far].facts = people.facts(2)
    directory[OTHER].neighbours = (LinkRecord(peer=far, path="direct", rtt_class_ms=1),)
    view.link_changed(Connected(OTHER, "direct"))
    assert directory.present() == {ME, OTHER}
    for caught_up in ((), (far,), (OTHER,)):
        view.people_changed = False
        view.caught_up(SimpleNamespace(caught_up=caught_up))
        assert view.people_changed == (OTHER in caught_up)
    assert directory.present() == {ME, OTHER, far}
    view.link_changed(Disconnected(OTHER, "no heartbeat"))
    view.link_changed(Connected(OTHER, "direct"))
    assert directory.present() == {ME, OTHER}
