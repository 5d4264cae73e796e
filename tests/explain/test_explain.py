"""`meshd explain` of nodes that really formed or really wait, as an operator reads it.

`MESHD_REWRITE=1 pytest tests/explain` rewrites the golden texts; read the diff first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from ledger import NodeId
from meshd.cli.explain import shown
from meshd.events import Connected, Disconnected, K3sObserved
from meshd.explain import (
    TOPICS,
    Cause,
    Contact,
    Explanation,
    Given,
    NoSuchNode,
    Refused,
    Setting,
    Topic,
    explain,
)
from meshd.node import Node
from roles import Bounds
from simulations.model.runs import MESHD
from simulations.model.scenario import calm
from simulations.model.world import World
from tests.node.test_status import node_in, world_after

GOLDEN = Path(__file__).parent / "golden"
FILE = "/oem/90_custom.yaml"
GIVEN = Given(
    settings=(
        Setting(key="p2p.network_token", value='"(hidden)"', place=f"{FILE}:3"),
        Setting(key="p2p.auto.ha.master_nodes", value="2", place=f"{FILE}:6"),
        Setting(key="kubevip.eip", value='"10.0.0.250"', place=f"{FILE}:8"),
    )
)
STRANGER = NodeId("12D3KooWStrangerStrangerStrangerStrangerStrangerStr4")

GUEST = NodeId("12D3KooWGuestGuestGuestGuestGuestGuestGuestGuestGue5")


def text_of(found: Explanation) -> str:
    """The text of the command line; what differs with every change of timing is masked."""
    text = shown(msgspec.json.decode(msgspec.json.encode(found)), 100)
    text = re.sub(r"seq \d+", "seq N", text)
    text = re.sub(r"\d+ entries", "N entries", text)
    text = re.sub(r"ballot \d+", "ballot N", text)
    return re.sub(r"kube-system is [0-9a-f]+", "kube-system is UID", text) + "\n"


def check_golden(name: str, found: Explanation) -> None:
    path, text = GOLDEN / f"{name}.txt", text_of(found)
    if os.environ.get("MESHD_REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def cause(found: Explanation, subject: str) -> Cause:
    """The first cause about `subject`."""
    return next(one for one in found.causes if one.subject == subject)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_formed_cluster_is_explained_with_records_entries_and_places(topic: Topic) -> None:
    # Three voters of three that must agree: all of them sign, whatever the timing.
    node = node_in(world_after(120.0, machines=3), 0)
    check_golden(f"formed-{topic}", explain(node, with_contacts(node), topic, None))


@pytest.mark.parametrize("topic", TOPICS)
def test_two_of_three_voters_are_told_what_is_missing(topic: Topic) -> None:
    node = node_in(world_after(20.0, machines=2), 0)
    check_golden(f"waiting-{topic}", explain(node, with_contacts(node), topic, None))


@pytest.mark.parametrize("topic", TOPICS)
def test_another_node_is_explained_too(topic: Topic) -> None:
    world = world_after(120.0, machines=3)
    node = node_in(world, 0)
    other = next(known.name for known in node.directory.others())
    check_golden(f"other-{topic}", explain(node, with_contacts(node), topic, other))


def with_contacts(node: Node) -> Given:
    contacts = tuple(
        Contact(peer=known.node, ways=("beacon",), addresses=known.facts.addresses, dialled=True)
        for known in node.directory.others()
        if known.facts is not None
    )
    return Given(settings=GIVEN.settings, contacts=contacts)


def test_a_role_names_the_ledger_entry_and_the_record_that_establish_it() -> None:
    node = node_in(world_after(120.0, machines=3), 0)
    found = explain(node, GIVEN, "role", None)
    (facts,) = cause(found, "machine").entries
    assert (facts.key, facts.author_id) == (f"node/{node.me}/facts", node.me)
    assert facts.seq == node.replica.entries[node.me, facts.key].seq
    plan = cause(found, "plan")
    assert plan.record is not None
    assert plan.record.key == "genesis/1/claim"
    assert len(plan.record.signers) == node.bounds.quorum
    assert [entry.key for entry in plan.entries] == ["genesis/1/claim"]
    assert [one.place for one in cause(found, "seats").settings] == [f"{FILE}:3", f"{FILE}:6"]


def test_a_machine_that_may_hold_no_seat_is_told_why() -> None:
    world = world_after(120.0, machines=6)  # The sixth may not vote.
    node = node_in(world, 0)
    found = explain(node, GIVEN, "role", "n6")
    assert found.answer == "worker"
    assert cause(found, "no seat").text == "n6: its token does not allow it to vote"
    assert any("p2p.role is set to none on n6" in change for change in found.would_change_if)
    genesis = explain(node, GIVEN, "genesis", "n6")
    assert cause(genesis, "no voter").text.startswith("n6 does not vote: its token")
    assert cause(genesis, "part").text == (
        "n6 is not counted as a voter; its signature is in no record"
    )


def test_before_a_plan_only_voters_that_are_here_are_ranked() -> None:
    node = node_in(world_after(20.0, machines=2), 0)
    found = explain(node, GIVEN, "role", None)
    assert cause(found, "ranking").text.endswith("and last the node id); 3 are needed")
    world = world_after(20.25, machines=2)  # One that no other test sees.
    node = node_in(world, 0)
    moment = world.machines[0].moment(world.timeline.now)
    node.handle(Disconnected(world.machines[1].node, "the cable"), moment)
    found = explain(node, GIVEN, "role", "n2")
    assert cause(found, "not ranked").text == "n2: it is not reached"
    assert "n2" not in cause(found, "ranking").text


def test_a_voter_that_did_not_sign_is_named() -> None:
    world = world_after(120.0, machines=5)  # Five voters, and three signatures are enough.
    node = node_in(world, 0)
    found = cause(explain(node, GIVEN, "genesis", None), "CLAIM")
    assert found.record is not None
    names = {machine.facts.name for machine in world.machines}
    missing = sorted(names - set(found.record.signers))
    assert f"not in the record: {', '.join(missing)} (a quorum was enough)" in found.text


def test_a_machine_alone_says_that_it_found_nobody_and_whom_it_refused() -> None:
    node = node_in(world_after(20.0, machines=1), 0)
    wrong = Refused(
        where="10.0.0.9", peer=STRANGER, why="its proof is not made with our token", count=3,
        ago_s=12.3,
    )  # fmt: skip
    seed = Contact(
        peer=None, addresses=("/ip4/203.0.113.7/tcp/7946",), ways=("seed",), failures=2,
        failure="timed out",
    )  # fmt: skip
    given = Given(
        contacts=(seed,), refused=(wrong,), foreign=("10.0.0.8",), deaf="UDP port 7946 is taken"
    )
    found = explain(node, given, "join", None)
    assert found.answer == "has not joined yet; the first step that is not done: found"
    assert cause(found, "found").text == (
        "nobody; cannot hear the LAN (UDP port 7946 is taken), one seed is named"
    )
    assert cause(found, "seed").text == "/ip4/203.0.113.7/tcp/7946 does not answer: timed out"
    assert cause(found, "foreign").text == "beacons of another network come from 10.0.0.8"
    assert cause(found, "refused").text == (
        f"10.0.0.9 ({STRANGER[-8:]}): {wrong.why} (3 times, last 12 s ago)"
    )


def test_a_stranger_at_the_door_can_be_asked_about() -> None:
    node = node_in(world_after(20.0, machines=1), 0)
    given = Given(
        settings=GIVEN.settings,
        refused=(Refused(where="10.0.0.9", peer=STRANGER, why="wrong token", count=1, ago_s=2.0),),
    )
    for word in (STRANGER, STRANGER[:20], STRANGER[-8:]):
        found = explain(node, given, "join", word)
        assert found.node.id == STRANGER
        assert found.answer == "has not joined yet; the first step that is not done: refused"
        assert cause(found, "refused").text == "wrong token (once, last 2 s ago, at 10.0.0.9)"
        assert found.would_change_if == (
            f"{STRANGER[-8:]} gets the same token as this node (p2p.network_token at {FILE}:3)",
        )


@pytest.mark.parametrize("topic", TOPICS)
def test_asking_changes_nothing(topic: Topic) -> None:
    node = node_in(world_after(20.0, machines=1), 0)
    given = Given(
        contacts=(Contact(peer=GUEST, ways=("beacon",), failures=1, failure="refused"),),
        refused=(Refused(where="10.0.0.9", peer=STRANGER, why="no", count=1, ago_s=1.0),),
    )
    for wanted in (None, GUEST, STRANGER):
        explain(node, given, topic, wanted)
    assert [known.node for known in node.directory] == [node.me]


def test_a_peer_that_cannot_be_dialled_is_named_with_the_reason() -> None:
    node = node_in(world_after(20.0, machines=1), 0)
    lost = Contact(
        peer=STRANGER, addresses=("/ip4/10.0.0.9/tcp/7946",), ways=("an earlier life",), failures=4,
        failure="/ip4/10.0.0.9/tcp/7946: no route to host",
    )  # fmt: skip
    given = Given(contacts=(lost,))
    text = f"{STRANGER[-8:]} cannot be reached: 4 dials in a row failed: {lost.failure}"
    assert cause(explain(node, given, "join", None), "unreached").text == text
    of_it = explain(node, given, "join", STRANGER)
    assert cause(of_it, "connected").text.endswith(f"4 dials in a row failed: {lost.failure}")


def test_words_that_fit_no_node_or_several_are_refused_with_those_that_exist() -> None:
    node = node_in(world_after(120.0, machines=3), 0)
    with pytest.raises(NoSuchNode, match=r"'x9' names no node; known are: n1, n2, n3"):
        explain(node, GIVEN, "role", "x9")
    with pytest.raises(NoSuchNode, match=r"'n' names several nodes; choose one of: n1, n2, n3"):
        explain(node, GIVEN, "role", "n")


def test_the_holder_of_the_address_is_named_with_whoever_says_so() -> None:
    world = world_after(120.0, machines=3)
    node = node_in(world, 0)
    plan = node.standing.plan
    assert plan is not None
    before, seat = node.observed, plan.seats[1]
    try:
        node.observed = K3sObserved(state="ready", vip_holder=seat.node_name)
        found = explain(node, GIVEN, "vip", None)
    finally:
        node.observed = before
    name = node.directory.name(seat.node)
    assert found.answer == f"the virtual address {plan.vip} is held by {name}"
    assert cause(found, "holder").text == f"{name} holds kube-vip's lease, as k3s on this node says"
    assert found.would_change_if[0].startswith(f"{name} does not renew its lease for 5 s")


def test_without_a_virtual_address_the_reason_is_where_it_was_looked_for() -> None:
    node = node_in(world_after(20.0, machines=1), 0)
    address = node.vip
    try:
        node.vip = None
        nowhere = explain(node, Given(), "vip", None)
        off = explain(node, GIVEN, "vip", None)
    finally:
        node.vip = address
    assert nowhere.answer == "there is no virtual address"
    assert "kubevip.eip stands in none of the files" in cause(nowhere, "configured").text
    assert cause(off, "configured").text == "none on this node: kubevip.enable is false"


def test_nobody_is_synchronised_before_the_ledgers_were_exchanged() -> None:
    world = world_after(20.5, machines=1)  # One that no other test sees.
    node = node_in(world, 0)
    moment = world.machines[0].moment(world.timeline.now)
    node.handle(Connected(GUEST, "direct"), moment)
    found = cause(explain(node, GIVEN, "join", None), "synchronised")
    assert (found.fulfilled, found.entries) == (False, ())
    assert found.text == "with nobody: the first exchange of ledgers is not complete"


def test_before_a_cluster_has_formed_the_lease_says_how_long_k3s_may_run_and_who_lets_it() -> None:
    world = world_after(12.0, machines=3)
    said = {}
    for place in range(3):
        node = node_in(world, place)
        moment = world.machines[place].moment(world.timeline.now)
        given = Given(settings=GIVEN.settings, now=moment.at)
        lease = node.genesis.state.lease
        assert lease is not None, node.genesis.state.phase
        said[lease.role] = cause(explain(node, given, "genesis", None), "lease").text
    assert sorted(said) == ["initialiser", "member"]
    assert re.fullmatch(
        r"k3s here may run \d+ s more; let run on by n\d \(asked \d+ s ago\).*", said["initialiser"]
    )
    assert re.fullmatch(r"k3s here may run \d+ s more, as n\d shares it", said["member"])


def test_a_generation_that_was_given_up_says_why_and_who_ranks_last_for_it() -> None:
    scenario = calm(Bounds.bounded(control_plane=3, nodes_max=5), 4)
    world = World(scenario, MESHD)
    world.faulty = False
    world.timeline.run_until(12.0)
    plan = node_in(world, 0).genesis.state.plan
    assert plan is not None
    first = next(one for one in world.machines if one.node == plan.initialiser)
    world.crash(first, power_cut=True, down_s=10_000.0)
    world.timeline.run_until(300.0)
    (other, *_) = (place for place, one in enumerate(world.machines) if one is not first)
    node = node_in(world, other)
    assert node.genesis.state.generation == 2
    found = cause(explain(node, GIVEN, "genesis", None), "gen. 1")
    name = node.directory.name(first.node)
    assert found.text.startswith(
        f"generation 1 of {name} was given up: its initialiser did not renew its lease; "
        f"{name} ranks last from then on; signed by "
    )
