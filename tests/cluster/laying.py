"""Short words for tests of what lies on disk before k3s is started."""

from __future__ import annotations

from pathlib import Path

import yaml

from ledger import NodeId
from meshd.cluster.groundwork import Tokens
from meshd.cluster.obstacle import Obstacle
from meshd.cluster.plan import Launch
from meshd.config.schema import Settings
from meshd.events import ClusterOrder
from tests.cluster.bench import N1, SETTINGS, groundwork, initialiser, surroundings


def lay(
    folder: Path, node: NodeId, order: ClusterOrder, settings: Settings = SETTINGS
) -> Launch | Obstacle:
    ground = groundwork(node, folder, settings)
    tokens = ground.tokens(order)
    assert isinstance(tokens, Tokens), tokens
    return ground.lay(order, tokens, surroundings(node))


def expect_obstacle(result: Launch | Obstacle, state: str, words: str) -> None:
    assert isinstance(result, Obstacle), result
    assert result.state == state
    assert words in result.sentence


def drop_in(folder: Path) -> dict[str, object]:
    content = yaml.safe_load((folder / "etc/config.yaml.d/50-meshd.yaml").read_bytes())
    assert isinstance(content, dict)
    return content


def begin(folder: Path) -> None:
    """Let etcd have a database on this disk."""
    (folder / "data/server/db/etcd/member/wal").mkdir(parents=True, exist_ok=True)


def formed(folder: Path) -> None:
    """Leave a disk as the initialiser's is once its cluster is formed."""
    assert isinstance(lay(folder, N1, initialiser()), Launch)
    begin(folder)
    assert isinstance(lay(folder, N1, initialiser(formed=True)), Launch)
