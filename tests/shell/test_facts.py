"""A node's own facts: secrets that an abandoned plan named are replaced, and then told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from meshd.cluster import Candidacy, prepare_secrets
from meshd.daemon._facts import Source, watch_facts
from meshd.events import Event, FactsObserved, Health, HealthObserved, K3sObserved, Wakeup
from meshd.identity import new_identity
from meshd.node import Node
from meshd.schema import Facts
from tests.cluster.bench import SETTINGS
from tests.shell.driven import ALONE, FACTS, Bench, Recorder, RecordingMesh, driven, moment


class Here(Source):
    """A machine that says the same on every host, but for its secrets."""

    def read(self, addresses: Sequence[str], blocked: str | None) -> Facts:
        told = super().read(addresses, blocked)
        return msgspec.structs.replace(
            FACTS, fuse=True, ca_hash=told.ca_hash, token_commitment=told.token_commitment
        )


@dataclass
class Site:
    """A node whose generation 1 is abandoned, and its daemon's look at its facts."""

    bench: Bench
    source: Source
    told: trio.MemoryReceiveChannel[Event]
    hidden: list[str]

    @property
    def node(self) -> Node:
        return self.bench.driver.node


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    source = Here(
        settings=replace(SETTINGS, bounds=ALONE),
        identity=new_identity(),
        candidacy=Candidacy(folder),
        fingerprint=FACTS.fingerprint,
        may_vote=True,
    )
    events, told = trio.open_memory_channel[Event](8)
    hidden: list[str] = []
    with driven(folder, source.read((), None)) as bench:
        abandon(bench.driver.node)
        watch = partial(watch_facts, log=Recorder(), hide=hidden.append)
        mesh = RecordingMesh(bench.store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, source, lambda: None, bench.driver, mesh, events)
            yield Site(bench, source, told, hidden)
            nursery.cancel_scope.cancel()


def abandon(node: Node) -> None:
    """Let k3s of generation 1 end until the node, alone as it is, gives it up."""
    node.handle(Wakeup(), moment())
    plan = node.standing.plan
    assert plan is not None
    ended = K3sObserved(state="failed", cluster_id=plan.cluster_id, exits=5)
    node.handle(ended, moment())
    node.handle(replace(ended, stopped=(plan.cluster_id,)), moment())
    assert (node.standing.generation, node.standing.plan) == (2, None)
    assert "to make new secrets" in (node.waiting_for or "")


async def test_secrets_of_an_abandoned_plan_are_replaced_before_anyone_hears_of_others(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    old = prepare_secrets(tmp_path)
    async with site(tmp_path) as found:
        event = await found.told.receive()
        assert isinstance(event, FactsObserved)
        new = prepare_secrets(tmp_path)
        assert (event.facts.ca_hash, event.facts.token_commitment) == (
            new.ca_hash,
            new.token_commitment,
        )
        assert new.ca_hash != old.ca_hash
        assert found.source.candidacy.secrets() == new
        assert found.hidden == [*new.tokens]
        found.node.handle(event, moment())
        plan = found.node.standing.plan
        assert plan is not None
        assert (plan.generation, plan.ca_hash) == (2, new.ca_hash)
        await trio.sleep(60.0)  # Twelve looks later nothing is spent any more.
        assert found.told.statistics().current_buffer_used == 0
        assert prepare_secrets(tmp_path) == new


async def test_a_disk_that_refuses_new_secrets_is_named_until_it_does_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    old = prepare_secrets(tmp_path)
    sync = os.fsync
    async with site(tmp_path) as found:
        monkeypatch.setattr(os, "fsync", full)
        refused = await found.told.receive()
        monkeypatch.setattr(os, "fsync", sync)
        assert isinstance(refused, HealthObserved)
        (item,) = refused.items
        assert isinstance(item, Health)
        assert (item.code, item.severity) == ("MESH-5001", "error")
        assert found.source.candidacy.secrets() == old
        assert await found.told.receive() == HealthObserved(())
        assert isinstance(await found.told.receive(), FactsObserved)
        assert found.source.candidacy.secrets() != old
