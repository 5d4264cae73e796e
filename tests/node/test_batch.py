"""Durable first: whatever order the parts ask in, nothing is revealed before it is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger import sign_entry
from meshd.events import Channel, Effect, Note, Persist, Send
from meshd.node._batch import durable_first
from tests.node import people

rows = st.tuples(st.sampled_from(("promise/1/claim", "accept/1/claim")), st.binary(max_size=3))
effects = st.lists(
    st.one_of(
        st.builds(Persist, votes=st.lists(rows, max_size=3).map(tuple)),
        st.builds(Send, st.just(people.IDS[0]), st.just(Channel.GENESIS), st.binary(max_size=3)),
        st.builds(Note, kind=st.just("peer_joined"), text=st.text(max_size=3)),
    )
)


@given(effects)
def test_one_transaction_comes_first_with_the_newest_of_every_row(asked: list[Effect]) -> None:
    done = durable_first(asked)
    newest = {
        key: vote for effect in asked if isinstance(effect, Persist) for key, vote in effect.votes
    }
    kept = [effect for effect in done if isinstance(effect, Persist)]
    assert kept == ([Persist(votes=tuple(newest.items()))] if newest else [])
    assert done[: len(kept)] == kept


@given(effects)
def test_everything_else_keeps_its_order(asked: list[Effect]) -> None:
    others = [effect for effect in asked if not isinstance(effect, Persist)]
    assert [one for one in durable_first(asked) if not isinstance(one, Persist)] == others


def test_of_two_entries_of_one_register_the_later_one_is_kept() -> None:
    older, newer = (
        sign_entry(
            people.SIGNERS[0],
            network="oak-7f3a9c12",
            key="node/x/facts",
            seq=seq,
            stamp_ms=0,
            value=b"",
        )
        for seq in (1, 2)
    )
    (kept,) = durable_first([Persist(entries=(older,)), Persist(entries=(newer,))])
    assert kept == Persist(entries=(newer,))
