"""Records of resets: which one is lawful, and which one a node follows."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import msgspec
import pytest

from roles import ClusterPlan, Seat
from roles.resets import (
    BadReset,
    Reset,
    SeatsRecord,
    follow,
    judge,
    origin_of,
    read_reset,
    sign_reset,
)
from tests.node import people

NETWORK = "oak-1"
PLAN = people.plan(0, 1, 2, 3, 4)


def reset(
    survivor: int,
    *seats: int,
    after: Reset | None = None,
    plan: ClusterPlan = PLAN,
    by: str = "root",
    ends: tuple[Reset, ...] = (),
) -> Reset:
    """Return a record: the survivor, those that keep a seat beside it, all others dead."""
    before = plan.seats if after is None else after.record.seats
    kept = (survivor, *seats)
    held = {seat.node: seat for seat in before}
    earlier = [one.record.epoch for one in (after, *ends) if one is not None]
    record = SeatsRecord(
        network_id=NETWORK,
        cluster_id=plan.cluster_id,
        epoch=max(earlier, default=0) + 1,
        before=origin_of(plan) if after is None else after.digest,
        survivor=people.IDS[survivor],
        seats=tuple(held.get(people.IDS[n], stranger(n)) for n in kept),
        dead=tuple(s.node for s in before if s.node not in {people.IDS[n] for n in kept}),
        by=by,
        at_ms=1_795_715_760_000,
        ended=tuple(one.digest for one in ends),
    )
    return read_reset(sign_reset(people.SIGNERS[survivor], record), network_id=NETWORK)


def stranger(number: int) -> Seat:
    return Seat(node=people.IDS[number], node_name=f"s{number}", node_ip=f"10.0.1.{number}")


def known(*resets: Reset) -> dict[bytes, Reset]:
    return {one.digest: one for one in resets}


def verdict(one: Reset, *before: Reset) -> tuple[bool | None, str]:
    return judge(one.record, (PLAN,), known(*before))


def test_the_survivor_of_a_seat_may_say_who_is_left() -> None:
    assert verdict(reset(2)) == (True, "")
    assert verdict(reset(2, 4)) == (True, "")
    first = reset(2, 4)
    assert verdict(reset(4, after=first), first) == (True, "")


def test_a_record_whose_predecessor_is_not_known_is_not_judged_yet() -> None:
    first = reset(2, 4)
    assert verdict(reset(4, after=first))[0] is None
    assert judge(first.record, (), {})[0] is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": 2}, "epoch 2 cannot follow epoch 0"),
        ({"dead": people.IDS[:1]}, "it does not account for each seat"),
        ({"seats": (PLAN.seats[1], PLAN.seats[2])}, "its survivor is not the first seat"),
        ({"seats": (PLAN.seats[2], stranger(6))}, "it seats a newcomer"),
        ({"seats": (PLAN.seats[2], PLAN.seats[2])}, "it seats a node twice"),
    ],
)
def test_what_does_not_follow_is_refused(change: dict[str, object], why: str) -> None:
    record = msgspec.structs.replace(reset(2).record, **change)
    assert judge(record, (PLAN,), {}) == (False, why)


def test_who_never_had_a_seat_resets_nothing() -> None:
    record = msgspec.structs.replace(reset(2).record, survivor=people.IDS[6])
    assert judge(record, (PLAN,), {}) == (False, "its survivor had no seat")


def test_a_seat_may_have_another_address_from_an_epoch_on() -> None:
    first = reset(2, 4)
    seat, other = first.record.seats
    moved = msgspec.structs.replace(
        reset(2, 4, after=first).record, seats=(replace(seat, node_ip="10.0.9.1"), other)
    )
    second = read_reset(sign_reset(people.SIGNERS[2], moved), network_id=NETWORK)
    third = reset(2, 4, after=second)
    assert verdict(second, first) == (True, "")
    for chain, epoch in (((first,), 0), ((first, second), 2), ((first, second, third), 2)):
        found = follow(PLAN, known(*chain), held=b"", me=people.IDS[0])
        assert (found.epoch, found.readdressed) == (len(chain), epoch)
        assert found.plan is not None
        address = seat.node_ip if epoch == 0 else "10.0.9.1"
        assert [one.node_ip for one in found.plan.seats] == [address, other.node_ip]


def test_a_seat_that_was_given_up_resets_nothing_afterwards() -> None:
    first = reset(2, 4)
    late = msgspec.structs.replace(reset(4, after=first).record, survivor=people.IDS[0])
    assert judge(late, (PLAN,), known(first)) == (False, "its survivor had no seat")


def test_only_the_survivors_own_signature_counts() -> None:
    value = sign_reset(people.SIGNERS[2], reset(2).record)
    with pytest.raises(BadReset, match="of network oak-1, not elm-1"):
        read_reset(value, network_id="elm-1")
    body, signature = msgspec.msgpack.decode(value)
    for broken in (
        msgspec.msgpack.encode((body, bytes(64))),
        msgspec.msgpack.encode((body.replace(b"root", b"nobo"), signature)),
        b"",
        bytes(40_000),
    ):
        with pytest.raises(BadReset):
            read_reset(broken, network_id=NETWORK)


def test_everybody_follows_the_only_chain() -> None:
    first = reset(2, 4)
    second = reset(4, after=first)
    for me in people.IDS:
        found = follow(PLAN, known(second, first), held=b"", me=me)
        assert (found.epoch, found.newest, found.rivals) == (2, 2, ())
        assert found.plan is not None
        assert [seat.node for seat in found.plan.seats] == [people.IDS[4]]
        assert found.plan.cluster_id == PLAN.cluster_id
        assert [seat.node for seat in found.before_last] == [people.IDS[2], people.IDS[4]]


def test_without_a_formed_cluster_or_a_reset_the_plan_stands() -> None:
    assert follow(None, known(reset(2)), held=b"", me=people.IDS[0]).epoch == 0
    found = follow(PLAN, {}, held=b"", me=people.IDS[0])
    assert (found.plan, found.epoch, found.head, found.survivor) == (PLAN, 0, b"", None)


def test_of_two_resets_of_one_epoch_nobody_follows_the_other_ones() -> None:
    mine, other = reset(2), reset(4)
    for order in permutations((mine, other)):
        both = known(*order)
        heads = [
            follow(PLAN, both, held=held, me=people.IDS[me]).head
            for me, held in ((2, b""), (4, b""), (0, b""), (0, mine.digest), (0, other.digest))
        ]
        assert heads == [mine.digest, other.digest, b"", mine.digest, other.digest]
        found = follow(PLAN, both, held=b"", me=people.IDS[0])
        assert set(found.rivals) == {mine, other}
        assert (found.epoch, found.newest) == (0, 1)


def test_a_survivor_follows_its_own_even_if_it_followed_the_other_before() -> None:
    mine, other = reset(2, 4), reset(4, 2)
    found = follow(PLAN, known(mine, other), held=other.digest, me=people.IDS[2])
    assert found.head == mine.digest


def test_a_further_reset_that_names_the_other_decides_between_two() -> None:
    mine, other = reset(2, 4), reset(4, 2)
    decided = reset(2, after=mine, ends=(other,))
    later = reset(4, after=other)
    for me in (0, 2, 4):
        found = follow(PLAN, known(mine, other, decided), held=other.digest, me=people.IDS[me])
        assert (found.head, found.rivals) == (decided.digest, ())
        # Nobody chose between what was decided and what the other's survivor did meanwhile.
        found = follow(PLAN, known(mine, other, decided, later), held=b"", me=people.IDS[me])
        assert set(found.rivals) == {decided, later}
        assert found.head == {2: decided.digest, 4: later.digest, 0: b""}[me]


def test_the_longer_of_two_chains_is_no_better() -> None:
    mine, other = reset(2), reset(4, 3)
    longer = reset(4, after=other)
    both = known(mine, other, longer)
    heads = [
        follow(PLAN, both, held=held, me=people.IDS[me]).head
        for me, held in ((2, b""), (4, b""), (0, b""), (0, mine.digest), (0, other.digest))
    ]
    assert heads == [mine.digest, longer.digest, b"", mine.digest, longer.digest]
    shorter, none = (follow(PLAN, both, held=b"", me=people.IDS[me]) for me in (2, 0))
    assert set(shorter.rivals) == set(none.rivals) == {mine, longer}
    # What this node's gate compares its database with: its own chain's, not its rival's.
    assert (shorter.newest, none.newest) == (1, 2)


def test_who_ends_a_longer_chain_begins_a_higher_epoch_than_any_in_it() -> None:
    mine, other = reset(2), reset(4, 3)
    longer = reset(4, after=other)
    decided = reset(2, after=mine, ends=(longer,))
    before = (mine, other, longer)
    assert decided.record.epoch == 3
    assert verdict(decided, *before) == (True, "")
    low = msgspec.structs.replace(decided.record, epoch=1)
    assert judge(low, (PLAN,), known(*before)) == (False, "epoch 1 cannot follow epoch 1")
    for me in (0, 2, 3, 4):
        found = follow(PLAN, known(*before, decided), held=longer.digest, me=people.IDS[me])
        assert (found.head, found.epoch, found.rivals) == (decided.digest, 3, ())


def test_two_that_end_each_other_contradict_still() -> None:
    mine, other = reset(2), reset(4)
    rivals = reset(2, after=mine, ends=(other,)), reset(4, after=other, ends=(mine,))
    for me, head in ((2, rivals[0].digest), (4, rivals[1].digest), (0, b"")):
        found = follow(PLAN, known(mine, other, *rivals), held=b"", me=people.IDS[me])
        assert (found.head, set(found.rivals)) == (head, set(rivals))
    settled = reset(2, after=rivals[0], ends=(rivals[1],))
    for me in (0, 2, 4):
        found = follow(PLAN, known(mine, other, *rivals, settled), held=b"", me=people.IDS[me])
        assert (found.head, found.epoch, found.rivals) == (settled.digest, 3, ())


def test_who_followed_another_chain_is_told_of_addresses_anew() -> None:
    first = reset(2, 4)
    seats = tuple(replace(s, node_ip=f"10.0.9.{n}") for n, s in enumerate(first.record.seats))
    moved = msgspec.structs.replace(first.record, seats=seats)
    mine = read_reset(sign_reset(people.SIGNERS[2], moved), network_id=NETWORK)
    other = reset(4)
    decided = reset(2, after=mine, ends=(other,))
    plain = reset(2, after=first, ends=(other,))
    for chain, epoch in (((mine, decided), 2), ((first, plain), 2)):
        found = follow(PLAN, known(*chain, other), held=b"", me=people.IDS[0])
        assert (found.epoch, found.readdressed) == (2, epoch)


def test_nobody_ends_its_own_past() -> None:
    first = reset(2, 4)
    second = reset(4, after=first, ends=(first,))
    found = follow(PLAN, known(first, second), held=b"", me=people.IDS[0])
    assert (found.head, found.rivals) == (second.digest, ())


def test_rivals_with_a_common_past_leave_the_others_at_that() -> None:
    first = reset(2, 3, 4)
    rivals = reset(3, after=first), reset(4, after=first)
    found = follow(PLAN, known(first, *rivals), held=first.digest, me=people.IDS[0])
    assert (found.epoch, found.newest, found.head) == (1, 2, first.digest)
