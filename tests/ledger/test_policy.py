"""Who may write what: every row of the table, and that the rest is refused."""

from __future__ import annotations

import pytest

from ledger import Policy, Verdict
from tests.ledger.world import signer_of

A = signer_of(1).node_id
B = signer_of(2).node_id


def policy(*, answer: bool | None) -> Policy:
    return Policy(
        genesis_valid=lambda _generation, _slot, _value: answer,
        seats_valid=lambda _epoch, _value: answer,
        held_seat=lambda _node: answer,
    )


@pytest.mark.parametrize("name", ["facts", "links", "k3s", "x-anything.1"])
def test_a_node_writes_about_itself_only(name: str) -> None:
    judge = policy(answer=None).judge
    assert judge(A, f"node/{A}/{name}", b"v") is Verdict.ACCEPT
    assert judge(A, f"node/{A}/{name}", None) is Verdict.ACCEPT
    assert judge(B, f"node/{A}/{name}", b"v") is Verdict.WRONG_AUTHOR


@pytest.mark.parametrize(
    "key",
    [
        f"sealed/{B}/server-token",
        "sealed/age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj/kubeconfig",
        f"cluster/order/{B}",
        f"revoke/{B}",
        "keyring/3",
    ],
)
def test_seat_holders_order_seal_revoke_and_rotate(key: str) -> None:
    assert policy(answer=True).judge(A, key, b"v") is Verdict.ACCEPT
    assert policy(answer=True).judge(A, key, None) is Verdict.ACCEPT
    assert policy(answer=False).judge(A, key, b"v") is Verdict.WRONG_AUTHOR
    assert policy(answer=None).judge(A, key, b"v") is Verdict.DEFER


@pytest.mark.parametrize("key", ["genesis/1/claim", "genesis/12/done", "cluster/seats/0"])
def test_a_value_that_proves_itself_may_come_from_anyone(key: str) -> None:
    assert policy(answer=True).judge(A, key, b"v") is Verdict.ACCEPT
    assert policy(answer=False).judge(A, key, b"v") is Verdict.BAD_VALUE
    assert policy(answer=None).judge(A, key, b"v") is Verdict.DEFER


@pytest.mark.parametrize("key", ["genesis/1/claim", "cluster/seats/0"])
def test_what_was_decided_is_not_deleted(key: str) -> None:
    assert policy(answer=True).judge(A, key, None) is Verdict.BAD_VALUE


@pytest.mark.parametrize(
    "key",
    [
        "facts",
        "node",
        f"node/{A}",
        f"node/{A}/",
        f"node/{A}/facts/more",
        f"/node/{A}/facts",
        f"xnode/{A}/facts",
        f"node/{A}/../facts",
        "genesis/x/claim",
        "genesis/01/claim",
        "genesis/-1/claim",
        "genesis/1",
        "cluster/seats/x",
        "cluster/seats/",
        "cluster/leader",
        f"sealed/{A}",
        "sealed//name",
        "keyring/first",
        f"Sealed/{A}/name",
    ],
)
def test_an_unknown_key_is_refused_whoever_writes_it(key: str) -> None:
    assert policy(answer=True).judge(A, key, b"v") is Verdict.UNKNOWN_KEY


def test_verifiers_get_what_the_key_says() -> None:
    asked: list[tuple[object, ...]] = []

    def genesis_valid(generation: int, slot: str, value: bytes) -> bool:
        asked.append((generation, slot, value))
        return True

    def seats_valid(epoch: int, value: bytes) -> bool:
        asked.append((epoch, value))
        return True

    def held_seat(node: str) -> bool:
        asked.append((node,))
        return True

    rules = Policy(genesis_valid=genesis_valid, seats_valid=seats_valid, held_seat=held_seat)
    rules.judge(A, "genesis/7/started", b"one")
    rules.judge(A, "cluster/seats/2", b"two")
    rules.judge(B, f"sealed/{A}/agent-token", b"three")
    assert asked == [(7, "started", b"one"), (2, b"two"), (B,)]
