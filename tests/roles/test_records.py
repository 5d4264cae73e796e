"""A record proves its decision to anyone; nothing less than q different voters' signatures does."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import NodeId
from ledger._identity import REMEMBERED_MAX_BYTES
from roles import ClusterPlan, Seat, Slot, verify_record
from roles._messages import (
    FRAME_MAX_BYTES,
    NETWORK_ID_MAX,
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    Prepare,
    Promise,
    hash_of,
    read_frame,
    seal,
    write_record,
)
from roles._messages import Record as DecidedFrame
from roles._records import (
    Abandon,
    Claim,
    Done,
    Started,
    Value,
    contradiction,
    decode_value,
    done_voters_min,
    encode_value,
    read_record,
)
from tests.roles.world import NETWORK, signer_of

VALUE = encode_value(Started(NodeId("someone")))
BALLOT = Ballot(3, signer_of(1).node_id)


def vote(
    number: int,
    *,
    value: bytes = VALUE,
    ballot: Ballot = BALLOT,
    slot: Slot = "started",
    network_id: str = NETWORK,
    limits: tuple[int, int, int] = (3, 2, 1),
    generation: int = 1,
) -> Authentic:
    signer = signer_of(number)
    return seal(
        Accepted(
            network_id=network_id,
            limits=limits,
            generation=generation,
            slot=slot,
            ballot=ballot,
            sender=signer.node_id,
            value_hash=hash_of(value),
        ),
        signer,
    )


def flaw(record: bytes, *, key: str = "genesis/1/started", quorum: int = 2) -> str | None:
    return verify_record(record, key=key, network_id=NETWORK, quorum=quorum)


def plan(*numbers: int, **changes: object) -> ClusterPlan:
    fields: dict[str, object] = {
        "cluster_id": "0" * 32,
        "generation": 1,
        "initialiser": signer_of(numbers[0]).node_id,
        "seats": tuple(
            Seat(node=signer_of(n).node_id, node_name=f"n{n}", node_ip=f"10.0.0.{n}")
            for n in numbers
        ),
        "network": "lan",
        "settings_hash": "5e" * 32,
        "ca_hash": "ca" * 32,
        "token_commitment": "70" * 32,
        "vip": None,
    }
    return ClusterPlan(**(fields | changes))  # type: ignore[arg-type] # Tests name what they change.


def seats_at(*addresses: str) -> tuple[Seat, ...]:
    return tuple(
        Seat(node=signer_of(n).node_id, node_name=f"n{n}", node_ip=address)
        for n, address in enumerate(addresses, start=1)
    )


def test_a_quorum_of_votes_for_one_value_of_one_ballot_is_a_decision() -> None:
    record = write_record(VALUE, [vote(2), vote(1)])
    assert flaw(record) is None
    decision = read_record(record, network_id=NETWORK, quorum=2)
    assert decision.value == Started(NodeId("someone"))
    assert set(decision.signers) == {signer_of(1).node_id, signer_of(2).node_id}
    assert decision.ballot == BALLOT


def test_a_record_is_the_same_bytes_in_whatever_order_the_votes_came() -> None:
    assert write_record(VALUE, [vote(2), vote(1)]) == write_record(VALUE, [vote(1), vote(2)])


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ([vote(1)], "1 voters signed it, 2 are needed"),
        ([vote(1), vote(1)], "1 voters signed it, 2 are needed"),
        ([vote(1), vote(1), vote(2)], "2 voters signed it, 2 are needed"),
        ([vote(1), vote(2, value=b"other")], "its votes are not for one value of one ballot"),
        ([vote(1, value=b"x"), vote(2, value=b"x")], "its votes are for another value"),
        (
            [vote(1), vote(2, ballot=Ballot(4, signer_of(1).node_id))],
            "its votes are not for one value of one ballot",
        ),
        (
            [vote(1), vote(2, limits=(5, 3, 3))],
            "its votes are not for one value of one ballot",
        ),
        (
            [vote(n, limits=(5, 3, 3)) for n in (1, 2)],
            "2 voters signed it, 3 are needed",
        ),
        ([vote(n, network_id="elm") for n in (1, 2)], "of network elm, not oak-7f3a9c12"),
        ([vote(n, slot="claim") for n in (1, 2)], "slot claim cannot hold Started"),
        ([vote(n, generation=2) for n in (1, 2)], "belongs under genesis/2/started"),
    ],
)
def test_a_record_that_proves_less_is_refused(votes: list[Authentic], reason: str) -> None:
    assert flaw(write_record(VALUE, votes)) == reason


def test_a_quorum_below_the_verifiers_own_is_not_enough() -> None:
    record = write_record(VALUE, [vote(1), vote(2)])
    assert flaw(record, quorum=3) == "2 voters signed it, 3 are needed"


def test_a_record_stands_under_its_own_key_only() -> None:
    record = write_record(VALUE, [vote(1), vote(2)])
    assert flaw(record, key="genesis/1/done") == "belongs under genesis/1/started"
    assert flaw(record, key="genesis/01/started") == "belongs under genesis/1/started"


def test_a_vote_that_is_not_its_signers_is_refused() -> None:
    """The signature of one voter under the body of another."""
    real, other = (msgspec.msgpack.decode(vote(n).frame) for n in (1, 2))
    forged = ["message", other[1], real[2], b""]
    record = msgspec.msgpack.encode(["decided", VALUE, [real, forged]])
    assert flaw(record) == f"not signed by {signer_of(2).node_id[-8:]}"


def test_other_messages_are_no_votes() -> None:
    signer = signer_of(2)
    prepare = Prepare(
        network_id=NETWORK,
        limits=(3, 2, 1),
        generation=1,
        slot="started",
        ballot=BALLOT,
        sender=signer.node_id,
    )
    record = write_record(VALUE, [vote(1), seal(prepare, signer)])
    assert flaw(record) == "holds something that is not a vote"
    assert flaw(vote(1).frame) == "a message, not a record"


@given(st.binary(max_size=200))
def test_random_bytes_prove_nothing(record: bytes) -> None:
    assert flaw(record) is not None


@settings(max_examples=300)
@given(st.data())
def test_no_flipped_bit_goes_unnoticed_where_it_matters(data: st.DataObject) -> None:
    """A changed record is refused, or it still proves the same decision."""
    record = bytearray(write_record(VALUE, [vote(1), vote(2)]))
    record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if flaw(bytes(record)) is None:
        decision = read_record(bytes(record), network_id=NETWORK, quorum=2)
        assert (decision.raw_value, decision.ballot) == (VALUE, BALLOT)


def test_nesting_without_end_is_refused_and_not_followed() -> None:
    for junk in (b"\x91" * 50_000, b"\x81\xa1x" * 15_000, b"\x93\xa7decided" + b"\x91" * 40_000):
        assert flaw(junk) == "not a genesis frame"


def test_a_decision_of_the_largest_network_fits_into_a_frame() -> None:
    limits = (399, 200, 7)
    value = encode_value(Claim(plan(*range(1, 8))))
    votes = [vote(n, value=value, slot="claim", limits=limits) for n in range(1, 201)]
    record = write_record(value, votes)
    assert len(record) <= FRAME_MAX_BYTES
    assert flaw(record, key="genesis/1/claim", quorum=200) is None


def test_every_signed_body_is_small_enough_for_its_check_to_be_remembered() -> None:
    longest = NodeId(max((signer_of(n).node_id for n in range(1, 50)), key=len))
    ballot = Ballot(2**48, longest)
    promise = Promise(
        network_id="x" * NETWORK_ID_MAX,
        limits=(399, 200, 7),
        generation=2**31,
        slot="started",
        ballot=ballot,
        sender=longest,
        accepted=(ballot, bytes(32)),
    )
    assert len(msgspec.msgpack.encode(promise)) + 32 < REMEMBERED_MAX_BYTES  # 32: the domain.


def test_a_usual_record_is_small() -> None:
    value = encode_value(Claim(plan(1, 2, 3)))
    votes = [vote(n, value=value, slot="claim", limits=(5, 3, 3)) for n in (1, 2, 3)]
    assert len(write_record(value, votes)) < 2048


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"generation": 2}, "a plan of generation 2 in 1"),
        ({"initialiser": signer_of(2).node_id}, "first seat is not the initialiser's"),
        ({"cluster_id": "0" * 31}, "without a cluster id"),
        ({"cluster_id": "Z" * 32}, "without a cluster id"),
        ({"seats": ()}, "first seat is not the initialiser's"),
        ({"seats": plan(1).seats * 2}, "seats a node twice"),
        ({"seats": seats_at("10.0.2.15", "10.0.2.15")}, "two seats at one address"),
        ({"seats": seats_at("10.0.0.1", "")}, "a seat without an address"),
        ({"seats": seats_at("10.0.0.1", "10.0.0.9"), "vip": "10.0.0.9"}, "a seat at the virtual"),
    ],
)
def test_a_flawed_plan_is_refused(changes: dict[str, object], reason: str) -> None:
    raw = encode_value(Claim(plan(1, 2, 3, **changes)))
    with pytest.raises(BadMessage, match=reason):
        decode_value(raw, "claim", 1)


def test_values_survive_the_wire() -> None:
    done = Done(NodeId("x"), "uid", ("n1", "n2"))
    values: list[tuple[Slot, Value]] = [
        ("claim", Claim(plan(1, 2, 3))),
        ("started", Started(NodeId("x"))),
        ("done", done),
    ]
    for slot, value in values:
        assert decode_value(encode_value(value), slot, 1) == value


def test_a_value_of_an_unknown_type_is_refused_not_guessed_at() -> None:
    raw = msgspec.msgpack.encode(["abdicate", "x", "why"])
    with pytest.raises(BadMessage, match="not a genesis value"):
        decode_value(raw, "started", 1)


def test_a_value_must_follow_from_the_claim() -> None:
    claim, first = plan(1, 2, 3), signer_of(1).node_id
    other = signer_of(2).node_id
    assert contradiction(Started(first), claim, "started") is None
    assert contradiction(Started(first), None, "started") is not None
    assert contradiction(Started(other), claim, "started") is not None
    assert contradiction(Done(first, "uid", ("n1", "n2", "n3")), claim, "done") is None
    assert contradiction(Done(first, "uid", ("n1", "n2", "n9")), claim, "done") is not None
    assert contradiction(Done(other, "uid", ("n1", "n2", "n3")), claim, "done") is not None


def test_a_plan_is_abandoned_before_its_start_or_under_its_lease() -> None:
    unleased, first = plan(1, 2, 3), signer_of(1).node_id
    leased = replace(unleased, leased=True)
    assert contradiction(Abandon(first, "why"), unleased, "started") is None
    assert contradiction(Abandon(first, "why"), leased, "done") is None
    refusal = contradiction(Abandon(first, "why"), unleased, "done")
    assert refusal == "ABANDON of a plan that was started without a lease"
    assert contradiction(Abandon(signer_of(2).node_id, "why"), leased, "done") is not None
    assert contradiction(Abandon(first, "why"), None, "started") is not None


def test_done_leaves_no_cluster_that_one_loss_kills() -> None:
    assert [done_voters_min(size) for size in (1, 3, 5, 7)] == [1, 3, 4, 5]


def test_a_record_is_read_back_as_one() -> None:
    assert isinstance(read_frame(write_record(VALUE, [vote(1)])), DecidedFrame)
