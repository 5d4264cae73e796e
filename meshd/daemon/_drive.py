"""Drive the node: one task feeds it every event and deadline, and performs its effects in order.

Invariant: nothing is revealed that was not made durable. If a commit fails, the node in memory is
thrown away with its remaining effects and rebuilt from the disk, so a vote that was lost was never
told to anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, assert_never

import trio

from ledger import Instant, Moment, NodeId
from meshd.errors import MeshdError
from meshd.events import (
    Apply,
    ClockObserved,
    Connected,
    Disconnected,
    Effect,
    Event,
    FactsObserved,
    Health,
    HealthObserved,
    K3sObserved,
    Learn,
    LinkObserved,
    Note,
    Persist,
    Received,
    Reject,
    Seal,
    Send,
    Wakeup,
)
from meshd.metrics import Tally
from meshd.ports import Cluster, EventSink, Mesh, Store
from meshd.schema import Facts

INBOX_EVENTS_MAX = 1024
BATCH_EVENTS_MAX = 64  # Handled before one commit: a burst costs one fsync, not one for each.
STORAGE_RETRY_S = 5.0


class Log(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...


class Situation:
    """The newest of each lasting event, told again to a node that is rebuilt."""

    def __init__(self, facts: FactsObserved) -> None:
        self._facts = facts
        self._k3s: K3sObserved | None = None
        self._connections: dict[NodeId, Connected] = {}
        self._links: dict[NodeId, LinkObserved] = {}
        self._clocks: dict[NodeId, ClockObserved] = {}
        self._health: dict[str, tuple[Health, ...]] = {}

    def note(self, event: Event) -> None:
        """Remember `event` if it describes something that lasts."""
        match event:
            case FactsObserved():
                self._facts = event
            case K3sObserved():
                self._k3s = event
            case Connected(peer):
                self._connections[peer] = event
            case Disconnected(peer):
                self._connections.pop(peer, None)
                self._links.pop(peer, None)
                self._clocks.pop(peer, None)
            case LinkObserved(peer):
                self._links[peer] = event
            case ClockObserved(peer):
                self._clocks[peer] = event
            case _:
                pass  # Frames and wake-ups happen once.

    def set_health(self, source: str, items: Sequence[Health]) -> HealthObserved:
        """Replace what `source` reported; return the complete findings of all sources."""
        self._health[source] = tuple(items)
        return self.health

    @property
    def health(self) -> HealthObserved:
        return HealthObserved(tuple(i for s in sorted(self._health) for i in self._health[s]))

    @property
    def facts(self) -> Facts:
        """This node's own facts as last seen."""
        return self._facts.facts

    def replay(self) -> list[Event]:
        """Return the events that tell a new node how things stand."""
        events: list[Event] = [self.health, self._facts]
        events += [self._k3s] if self._k3s is not None else []
        events += [self._connections[peer] for peer in sorted(self._connections)]
        events += [self._links[peer] for peer in sorted(self._links)]
        events += [self._clocks[peer] for peer in sorted(self._clocks)]
        return events


class Machine(Protocol):
    """What is driven: `meshd.node.Node`."""

    @property
    def deadline(self) -> Instant:
        """When it wants a turn though nothing happened."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        """Return what is to be done, in order."""


Driven = TypeVar("Driven", bound=Machine)


class Driver(Generic[Driven]):
    """Owns the node.

    Args:
        build: makes the node from what the store holds; called again after a failed commit.
        facts: this node's own, at first.
        tally: counts frames and lines of the history.
        inbox: where the rest of the shell puts what it sees.
        sealed: the other end of it, for the answers to `Seal`.
    """

    def __init__(
        self,
        *,
        build: Callable[[Facts], Driven],
        facts: Facts,
        mesh: Mesh,
        cluster: Cluster,
        store: Store,
        log: Log,
        read_moment: Callable[[], Moment],
        tally: Tally,
        inbox: trio.MemoryReceiveChannel[Event],
        sealed: EventSink,
    ) -> None:
        self._build = build
        self._mesh = mesh
        self._cluster = cluster
        self._store = store
        self._log = log
        self._read_moment = read_moment
        self._tally = tally
        self.storage_trouble: MeshdError | None = None
        self._last_turn = self._read_moment().at
        self.situation = Situation(FactsObserved(facts))
        self.node = build(facts)
        self.history_grew = trio.lowlevel.ParkingLot()
        self._inbox = inbox
        self._sealed = sealed
        self._later: list[Effect] = []  # What followed while others were being performed.

    @property
    def idle_s(self) -> float:
        """Seconds since the node last had its turn."""
        return self._read_moment().at - self._last_turn

    def tell_in_between(self, source: str, items: Sequence[Health]) -> None:
        """Tell the node of health while a write hangs, so that status can say why it does nothing.

        Nothing overtakes: what follows is performed after the effects that wait for the disk.
        """
        health = self.situation.set_health(source, items)
        self._later += self.node.handle(health, self._read_moment())

    async def run(self) -> None:
        """Drive until cancelled."""
        pending = self.situation.replay()
        while True:
            try:
                await self._drive(pending)
            except MeshdError as error:
                await self._wait_for_storage(error)
            self._later = []
            self.node = self._build(self.situation.facts)
            pending = self.situation.replay()

    async def _drive(self, pending: list[Event]) -> None:
        while True:
            if not pending:
                pending = await self._next_events()
            self._last_turn = self._read_moment().at
            effects: list[Effect] = []
            for event in pending:
                effects += self.node.handle(event, self._read_moment())
            pending = []
            while effects:
                await self._perform(effects)
                effects, self._later = self._later, []

    async def _next_events(self) -> list[Event]:
        wait_s = max(0.0, self.node.deadline - self._read_moment().at)
        batch: list[Event] = []
        with trio.move_on_after(wait_s):
            batch.append(await self._inbox.receive())
        while batch and len(batch) < BATCH_EVENTS_MAX:
            try:
                batch.append(self._inbox.receive_nowait())
            except trio.WouldBlock:
                break
        for event in batch:
            self.situation.note(event)
            if isinstance(event, Received):
                self._tally.frame(event.channel, "in", len(event.frame))
        return batch or [Wakeup()]

    async def _perform(self, effects: Sequence[Effect]) -> None:
        persists = [effect for effect in effects if isinstance(effect, Persist)]
        if persists:
            # One transaction for all of them, before everything else: earlier than needed is safe.
            await self._store.persist(
                Persist(
                    entries=tuple(entry for persist in persists for entry in persist.entries),
                    votes=tuple(vote for persist in persists for vote in persist.votes),
                )
            )
        for effect in effects:
            await self._perform_one(effect)

    async def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Persist():
                pass  # Done, before all others.
            case Send(peer, channel, frame):
                self._tally.frame(channel, "out", len(frame))
                self._mesh.send_nowait(peer, channel, frame)
            case Reject(peer, reason):
                self._log.warning("peer_rejected", peer=peer, reason=reason)
                self._mesh.punish(peer)
            case Learn(peer, addresses):
                self._mesh.learn(peer, addresses)
                await self._store.remember_peer(peer, addresses)
            case Seal():
                await self._seal(effect)
            case Apply(order):
                self._cluster.apply(order)
            case Note(kind=kind, text=text):
                self._log.info(kind, text=text)
                self._tally.note(kind, self._read_moment().at)
                await self._store.append_history(self._read_moment().wall_ms, kind, text)
                self.history_grew.unpark_all()
            case _:
                assert_never(effect)

    async def _seal(self, effect: Seal) -> None:
        try:
            sealed = await self._cluster.seal(effect)
        except MeshdError as error:
            self._log.warning(
                "not_sealed", recipient=effect.recipient, code=error.code, what=error.what
            )
            return
        try:
            self._sealed.send_nowait(sealed)
        except trio.WouldBlock:
            # The node asks again: nothing was published yet.
            self._log.warning("inbox_full", lost="sealed secret", recipient=effect.recipient)

    async def _wait_for_storage(self, error: MeshdError) -> None:
        """Stay mute until the disk takes a commit again; status says why meanwhile."""
        self._log.warning("storage_failed", code=error.code, what=error.what, fix=error.fix)
        finding = Health(code=error.code, severity="error", message=error.what, fix=error.fix)
        self.storage_trouble = error
        health = self.situation.set_health("storage", [finding])
        self.node.handle(health, self._read_moment())  # Its effects are lost on purpose.
        while True:
            self._last_turn = self._read_moment().at
            with trio.move_on_after(STORAGE_RETRY_S):
                async for event in self._inbox:
                    self.situation.note(event)
            try:
                await self._store.probe()
            except MeshdError:
                continue
            self.storage_trouble = None
            self.situation.set_health("storage", [])
            self._log.info("storage_works_again")
            return
