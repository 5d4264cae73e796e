"""The worlds in which meshes are tested."""

from __future__ import annotations

import pytest
import trio

from tests.mesh.stations import FakeWorld, RealWorld, World


@pytest.fixture
def real(nursery: trio.Nursery) -> RealWorld:
    return RealWorld(nursery)


@pytest.fixture(params=[RealWorld, FakeWorld], ids=["libp2p", "fake"])
def world(request: pytest.FixtureRequest, nursery: trio.Nursery) -> World:
    made: World = request.param(nursery)
    return made
