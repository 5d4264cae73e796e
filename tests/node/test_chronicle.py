"""What goes into the history: each change once, in words with names."""

from __future__ import annotations

from meshd.events import Connected, K3sObserved, Note
from meshd.node._chronicle import AddressLog
from meshd.node._view import View
from tests.node import people


def seen(holder: str | None) -> K3sObserved:
    return K3sObserved(state="ready", vip_holder=holder)


def test_a_move_of_the_virtual_address_is_noted_once_with_both_names() -> None:
    directory, log = people.directory(0), AddressLog()
    holders = [None, "n1-00000001", "n1-00000001", None, "n1-00000001", "n2-00000002"]
    notes = [note for holder in holders for note in log.notes(directory, seen(holder))]
    assert notes == [
        Note(kind="vip_held", text="the virtual address is served by n1"),
        Note(kind="vip_moved", text="the virtual address is served by n2, before by n1"),
    ]


def test_a_holder_that_nobody_knows_has_its_kubernetes_name() -> None:
    (note,) = AddressLog().notes(people.directory(0), seen("other-0badcafe"))
    assert note.text == "the virtual address is served by other-0badcafe"


def test_a_peer_is_noted_by_name_or_by_its_whole_id() -> None:
    view = View(people.IDS[0])
    (stranger,) = view.link_changed(Connected(people.IDS[1], "direct"))
    assert stranger == Note(kind="peer_joined", text=f"connected to {people.IDS[1]} (direct)")
    view.directory[people.IDS[2]].facts = people.facts(2)
    (known,) = view.link_changed(Connected(people.IDS[2], "direct"))
    assert known == Note(kind="peer_joined", text="connected to n2 (direct)")
