"""Puts the questions to a node that would catch one that forgot: asks below and beside its word.

The node is built from the disk as the daemon builds it, and thrown away afterwards. It answers
nothing that it would have to write down first: every ballot asked for is one that it refused or
answered already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ledger import Signer
from ledger._messages import Push, encode_frame
from meshd.daemon import _start
from meshd.events import Channel, Connected, Effect, LinkObserved, Persist, Received, Send
from roles._messages import Accept, Accepted, Authentic, Ballot, Prepare, hash_of, read_frame, seal
from roles._records import Claim, decode_value, encode_value
from tests.store import life
from tests.store.judge import Place, Word, word_of
from tests.store.record import Loaded, Shown


def examine(case: life.Case, found: _start.Opened, loaded: Loaded) -> None:
    """Ask, and write down what the node answers."""
    word = word_of(case.record.read(), found.identity.node_id)
    node = _start._build_node(found, life.facts_of(found, 0, case.role))
    now = life.moment()
    for store in life.peers_of(case.record):
        peer = life.peer_signer(store.author)
        node.handle(Connected(peer.node_id, "direct"), now)
        node.handle(LinkObserved(peer.node_id, "alive", 1.0), now)
        own = tuple(e for (author, _), e in store.entries.items() if author == peer.node_id)
        if own:
            frame = encode_frame(Push(own))
            node.handle(Received(peer.node_id, Channel.LEDGER, frame), now)
    values = dict(_values(loaded))
    for place, given in sorted(word.items()):
        for asker in map(life.peer_signer, (1, 2)):
            asks = _asks(place, given, asker, found, values.get(place))
            heard = [Received(asker.node_id, Channel.GENESIS, frame) for frame in asks]
            for effect in (effect for one in heard for effect in node.handle(one, now)):
                assert not _new_votes(effect), "it votes as if for the first time"
                if isinstance(effect, Send) and effect.channel is Channel.GENESIS:
                    case.record.write(Shown(0, effect.channel, effect.frame, examined=True))


def _new_votes(effect: Effect) -> list[str]:
    rows = effect.votes if isinstance(effect, Persist) else ()
    return [key for key, _ in rows if key.startswith(("promise/", "accept/", "ballot/"))]


def _values(loaded: Loaded) -> Iterator[tuple[Place, bytes]]:
    """Yield the values that were voted for."""
    for key, data in loaded.votes:
        row = read_frame(data) if key.startswith("accept/") else None
        if isinstance(row, Authentic) and isinstance(row.message, Accepted):
            yield (row.message.generation, row.message.slot), row.value


def _asks(
    place: Place, given: Word, asker: Signer, found: _start.Opened, value: bytes | None
) -> Iterator[bytes]:
    known = {*given.accepted, *given.proposed, *given.asked}
    known |= {given.promised} if given.promised is not None else set()
    contradictions: list[bytes] = []  # Last: who contradicts himself is not answered again.
    for ballot in sorted(known):
        # The highest below that this asker can have; and its own once more, with another value.
        below = Ballot(ballot.round, asker.node_id)
        if below > ballot and ballot.round > 1:
            below = Ballot(ballot.round - 1, asker.node_id)
        if below > max(known):
            continue
        common = {
            "network_id": found.settings.network.network_id,
            "limits": found.settings.bounds.limits,
            "generation": place[0],
            "slot": place[1],
            "sender": asker.node_id,
        }
        yield seal(Prepare(ballot=below, **common), asker).frame  # type: ignore[arg-type]
        if value is None or (below == max(known) and below not in given.accepted):
            continue
        for asked in (value, *_others(place, value)):
            message = Accept(ballot=below, value_hash=hash_of(asked), **common)  # type: ignore[arg-type]
            contradictions.append(seal(message, asker, asked).frame)
    yield from contradictions


def _others(place: Place, value: bytes) -> Iterator[bytes]:
    """Yield another value that the slot could hold, if there is one."""
    decoded = decode_value(value, place[1], place[0])  # type: ignore[arg-type] # A slot's name.
    if isinstance(decoded, Claim):
        plan = replace(decoded.plan, cluster_id="0" * 32)
        yield encode_value(Claim(plan))
