"""The laws of merging: order, grouping and repetition never matter, and the root tells all."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ledger import Entry
from ledger._registers import Registers
from tests.ledger.world import entry_of

# One author may say several things with one `seq` here: the laws hold for liars too.
entries = st.builds(
    lambda author, name, seq, value: entry_of(author, name, seq=seq, value=value),
    st.integers(1, 3),
    st.sampled_from(["facts", "k3s"]),
    st.integers(1, 3),
    st.sampled_from([None, b"a", b"b"]),
)
histories = st.lists(entries, max_size=12)


def merged(*histories: list[Entry]) -> Registers:
    registers = Registers()
    for history in histories:
        for entry in history:
            registers.merge(entry)
    return registers


def joined(one: Registers, other: Registers) -> Registers:
    return merged(list(one.all.values()), list(other.all.values()))


@given(histories, st.randoms(use_true_random=False))
def test_merge_is_commutative(history: list[Entry], rng: Random) -> None:
    shuffled = rng.sample(history, len(history))
    assert dict(merged(history).all) == dict(merged(shuffled).all)
    assert merged(history).root == merged(shuffled).root


@given(histories, histories, histories)
def test_merge_is_associative(a: list[Entry], b: list[Entry], c: list[Entry]) -> None:
    left = joined(joined(merged(a), merged(b)), merged(c))
    right = joined(merged(a), joined(merged(b), merged(c)))
    assert dict(left.all) == dict(right.all)


@given(histories)
def test_merge_is_idempotent(history: list[Entry]) -> None:
    registers = merged(history)
    root = registers.root
    assert not any(registers.merge(entry) for entry in history)
    assert registers.root == root


@given(histories, histories)
def test_roots_are_equal_exactly_if_registers_are(a: list[Entry], b: list[Entry]) -> None:
    one, other = merged(a), merged(b)
    assert (one.root == other.root) == (dict(one.all) == dict(other.all))


@given(histories)
def test_a_root_asked_for_in_between_changes_nothing(history: list[Entry]) -> None:
    registers = Registers()
    roots = []
    for entry in history:
        before = registers.root
        changed = registers.merge(entry)
        assert (registers.root != before) == changed
        roots.append(registers.root)
    assert roots[-1:] == [merged(history).root][: len(roots)]


@given(histories)
def test_nobody_but_liars_is_proven_to_lie(history: list[Entry]) -> None:
    said: dict[tuple[str, str, int], bytes] = {}
    liars = set()
    for entry in history:
        if said.setdefault((entry.author, entry.key, entry.seq), entry.digest) != entry.digest:
            liars.add(entry.author)
    proven = merged(history).equivocations
    for author, (one, other) in proven.items():
        assert author in liars
        assert (one.author, one.key, one.seq) == (other.author, other.key, other.seq)
        assert one.value != other.value


def test_both_values_of_a_liar_are_kept_as_proof() -> None:
    one, other = entry_of(1, value=b"a"), entry_of(1, value=b"b")
    for order in ([one, other], [other, one]):
        assert set(merged(order).equivocations[one.author]) == {one, other}
    kept = merged([one, other]).find(one.author, one.key)
    assert kept == max(one, other, key=lambda entry: entry.digest)
