"""Who votes, and why not: each rule by itself, and that rules only ever take votes away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles import Bounds, Candidate, Electorate, electorate
from roles._electorate import is_willing, machines
from tests.roles.world import candidate_of, signer_of

BOUNDS = Bounds.bounded(control_plane=1, nodes_max=3)
OTHER = Bounds.bounded(control_plane=3)
ME = signer_of(1).node_id


def voters_seen(
    candidates: Sequence[Candidate], *, has_voted: bool = False, faulty: Sequence[int] = ()
) -> Electorate:
    """Return the electorate as node 1 sees it with everyone present."""
    return electorate(
        candidates,
        me=ME,
        bounds=BOUNDS,
        has_voted=has_voted,
        present=[c.node for c in candidates],
        proven_faulty=[signer_of(n).node_id for n in faulty],
    )


def seen(*numbers: int, **changes: object) -> list[Candidate]:
    return [candidate_of(number, BOUNDS, **changes) for number in numbers]


def halt_of(found: Electorate) -> tuple[str, str]:
    assert found.halt is not None
    assert ME not in found.voters
    return found.halt.code, found.halt.message


def test_all_who_may_and_will_vote_are_counted() -> None:
    others = [
        candidate_of(4, BOUNDS, wish="worker"),
        candidate_of(5, BOUNDS, wish="none"),
        candidate_of(6, BOUNDS, may_vote=False),
    ]
    found = voters_seen([*seen(1, 2), candidate_of(3, BOUNDS, wish="control-plane"), *others])
    assert found.voters == tuple(sorted(signer_of(n).node_id for n in (1, 2, 3)))
    assert found.excluded == ()
    assert found.halt is None


def test_twice_the_quorum_of_machines_stops_the_vote() -> None:
    assert voters_seen(seen(1, 2, 3)).halt is None
    code, message = halt_of(voters_seen(seen(1, 2, 3, 4)))
    assert code == "MESH-4001"
    assert "4 machines may vote (n1, n2, n3, n4)" in message
    assert "safe among 3 at most" in message


def test_a_network_for_one_machine_stops_when_there_are_two() -> None:
    bounds = Bounds.bounded(control_plane=1, nodes_max=1)
    two = [candidate_of(n, bounds) for n in (1, 2)]
    found = electorate(two, me=ME, bounds=bounds, has_voted=False, present=[])
    assert halt_of(found)[0] == "MESH-4001"


def test_a_quorum_too_large_for_a_record_stops_the_vote() -> None:
    bounds = Bounds.bounded(control_plane=3, nodes_max=400)
    found = electorate([candidate_of(1, bounds)], me=ME, bounds=bounds, has_voted=False, present=[])
    assert halt_of(found)[0] == "MESH-4008"


def test_voters_that_left_are_still_counted() -> None:
    found = electorate(seen(1, 2, 3, 4), me=ME, bounds=BOUNDS, has_voted=True, present=[])
    assert halt_of(found)[0] == "MESH-4001"


def test_a_machine_with_two_identities_is_one_machine_and_does_not_count() -> None:
    again = candidate_of(9, BOUNDS, fingerprint=("other", "fingerprint-3"), name="n3")
    found = voters_seen([*seen(1, 2, 3), again])
    assert found.halt is None
    assert found.voters == tuple(sorted(signer_of(n).node_id for n in (1, 2)))
    assert [refusal.reason for refusal in found.excluded] == [
        "the same machine is known under another identity (n3)"
    ] * 2


def test_a_node_that_was_known_before_and_has_no_journal_has_lost_its_memory() -> None:
    before = candidate_of(8, BOUNDS, fingerprint=("fingerprint-1",), name="n1")
    code, message = halt_of(voters_seen([*seen(1, 2), before]))
    assert code == "MESH-4004"
    assert "this machine was known before as n1" in message


def test_a_node_that_remembers_its_votes_goes_on_beside_a_forgetful_copy() -> None:
    copy = candidate_of(8, BOUNDS, fingerprint=("fingerprint-1",))
    assert ME in voters_seen([*seen(1, 2), copy], has_voted=True).voters


def test_other_bounds_never_vote_together_and_the_smaller_group_waits() -> None:
    other = Bounds.bounded(control_plane=3)
    odd = candidate_of(3, other)
    found = voters_seen([*seen(1, 2), odd])
    assert odd.node not in found.voters
    assert found.excluded[0].reason == (
        "it is set up for 5 machines, quorum 3, control plane 3, "
        "not 3 machines, quorum 2, control plane 1"
    )
    assert found.halt is None
    code, message = halt_of(voters_seen([*seen(1), odd]))
    assert code == "MESH-4002"
    assert "n3 for 5 machines" in message


def test_what_a_bound_is_called_does_not_matter() -> None:
    called_open = Bounds(bound="open", nodes_max=3, quorum=2, control_plane=1)
    assert len(voters_seen([*seen(1), candidate_of(2, called_open)]).voters) == 2


def test_odd_settings_wait_and_are_named_on_both_sides() -> None:
    odd = {"settings_hash": "77" * 32, "settings": (("cluster-cidr", "10.44.0.0/16"),)}
    found = voters_seen([*seen(1, 2), *seen(3, **odd)])
    assert found.excluded[0].reason == (
        "its settings differ from those most have: cluster-cidr (10.44.0.0/16, not the default)"
    )
    code, message = halt_of(voters_seen([*seen(1, **odd), *seen(2, 3)]))
    assert code == "MESH-4003"
    assert message == (
        "this node's settings differ from those of n2, n3: cluster-cidr (10.44.0.0/16, not the "
        "default)"
    )


def test_another_virtual_address_is_an_odd_setting_and_a_hash_is_named_if_nothing_else_is() -> None:
    most = {"settings": (("kubevip.eip", "10.0.0.50"),)}
    odd = {"settings_hash": "77" * 32, "settings": (("kubevip.eip", "10.0.0.51"),)}
    _, message = halt_of(voters_seen([*seen(1, **odd), *seen(2, 3, **most)]))
    assert message.endswith(": kubevip.eip (10.0.0.51, not 10.0.0.50)")
    _, message = halt_of(voters_seen([*seen(1, settings_hash="77" * 32), *seen(2, 3)]))
    assert message.endswith(": hash 77777777, not 5e5e5e5e")


def test_settings_no_longer_matter_once_a_plan_is_decided() -> None:
    found = electorate(
        [*seen(1, settings_hash="77" * 32), *seen(2, 3)],
        me=ME,
        bounds=BOUNDS,
        has_voted=True,
        present=[],
        settings_matter=False,
    )
    assert len(found.voters) == 3


def test_a_proven_liar_does_not_count() -> None:
    found = voters_seen(seen(1, 2, 3), faulty=[3])
    assert signer_of(3).node_id not in found.voters
    assert halt_of(voters_seen(seen(1, 2), faulty=[1]))[0] == "MESH-4006"


@given(st.lists(st.tuples(st.integers(1, 9), st.sets(st.sampled_from("abcdef"))), max_size=9))
def test_machines_are_the_components_of_shared_fingerprints(
    drawn: list[tuple[int, set[str]]],
) -> None:
    marks = dict(drawn)
    nodes = [candidate_of(n, BOUNDS, fingerprint=tuple(sorted(m))) for n, m in marks.items()]
    groups = machines(nodes)
    assert sorted(c.node for group in groups for c in group) == sorted(c.node for c in nodes)
    group_of = {c.node: index for index, group in enumerate(groups) for c in group}
    parent = {c.node: c.node for c in nodes}  # The reference: merge until nothing changes.
    for _ in nodes:
        for one in nodes:
            for two in nodes:
                if set(one.fingerprint) & set(two.fingerprint):
                    parent[one.node] = parent[two.node] = min(parent[one.node], parent[two.node])
    for one in nodes:
        for two in nodes:
            together = parent[one.node] == parent[two.node]
            assert together == (group_of[one.node] == group_of[two.node])


@given(st.data())
def test_rules_only_take_votes_away(data: st.DataObject) -> None:
    candidates = [
        candidate_of(
            number,
            # A node's own bounds are those that it publishes.
            BOUNDS if number == 1 else data.draw(st.sampled_from([BOUNDS, OTHER])),
            wish=data.draw(st.sampled_from(["auto", "control-plane", "worker", "none"])),
            may_vote=data.draw(st.booleans()),
            fingerprint=tuple(data.draw(st.sets(st.sampled_from("abcdefgh"), max_size=2))),
            settings_hash=data.draw(st.sampled_from(["5e" * 32, "77" * 32])),
        )
        for number in range(1, data.draw(st.integers(1, 6)) + 1)
    ]
    found = voters_seen(candidates, has_voted=data.draw(st.booleans()))
    willing = {c.node for c in candidates if is_willing(c)}
    assert set(found.voters) <= willing
    assert set(found.voters) | {refusal.node for refusal in found.excluded} == willing
    assert not set(found.voters) & {refusal.node for refusal in found.excluded}
    assert all(c.bounds.limits == BOUNDS.limits for c in candidates if c.node in found.voters)


@pytest.mark.parametrize(
    ("control_plane", "nodes_max", "quorum"),
    [(1, 1, 1), (1, 2, 2), (1, 3, 2), (3, None, 3), (3, 7, 4), (5, None, 5), (5, 5, 5), (3, 3, 3)],
)
def test_the_quorum_is_a_majority_and_at_least_the_control_plane(
    control_plane: int, nodes_max: int | None, quorum: int
) -> None:
    bounds = Bounds.bounded(control_plane=control_plane, nodes_max=nodes_max)
    assert bounds.quorum == quorum
    assert bounds.nodes_max < 2 * bounds.quorum
