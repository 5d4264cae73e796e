"""One node of the tests with a real k3s: `python -m tests.cluster.real_node FOLDER NODE SECRETS`.

Takes orders from standard input and says what it observes on standard output, as lines of JSON.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from ledger import NodeId
from meshd.clock import read_moment
from meshd.cluster import K3sCluster, K3sPaths, prepare_secrets
from meshd.config.schema import K3sArguments
from meshd.events import ClusterOrder, Event, K3sObserved
from tests.cluster.bench import ADDRESSES, NAMES, SETTINGS, sealing_key

ARGUMENTS = K3sArguments(
    args=(
        "--disable-agent", "--flannel-backend=none", "--disable-helm-controller",
        "--disable-network-policy", "--etcd-disable-snapshots",
        "--disable=coredns,traefik,servicelb,metrics-server,local-storage",
    )
)  # fmt: skip


async def main(folder: Path, node: NodeId, secrets_dir: Path) -> None:
    """Run until standard input ends."""
    cluster = K3sCluster(
        settings=replace(SETTINGS, k3s=ARGUMENTS),
        node_id=node,
        node_name=NAMES[node],
        node_ip=lambda: ADDRESSES[node],
        state_dir=folder / "state",
        run_dir=folder / "run",
        secrets=partial(prepare_secrets, secrets_dir),
        sealing_key=sealing_key(node),
        clock=read_moment,
        paths=K3sPaths(config_dir=folder / "etc", data_dir=folder / "data"),
    )
    send, receive = trio.open_memory_channel[Event](16)

    async def say() -> None:
        async for event in receive:
            assert isinstance(event, K3sObserved)
            os.write(1, msgspec.json.encode(event) + b"\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run, send)
        nursery.start_soon(say)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            cluster.apply(msgspec.json.decode(line, type=ClusterOrder))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, Path(sys.argv[1]), NodeId(sys.argv[2]), Path(sys.argv[3]))
