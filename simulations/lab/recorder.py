"""Keeps a record of every cluster that ever came up on any node, as long as the laboratory is up.

A cluster is told from another by the uid of namespace kube-system, which Kubernetes makes when it
first starts on an empty database. More than one for one generation is what must never be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NoReturn

from simulations.lab.places import NodePlaces, Places
from simulations.lab.servers import Server, Unanswered, has_credentials, server_on

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The first time that a cluster was seen.

    Args:
        uid: of its namespace kube-system.
        generation: as the mark beside its database says; None if that has no mark.
        node: where it was seen first.
        time: when, UTC.
    """

    uid: str
    generation: int | None
    node: str
    time: str

    def __str__(self) -> str:
        generation = "?" if self.generation is None else self.generation
        return f"generation {generation}  {self.node}  {self.time}  uid {self.uid}"


def record(places: Places) -> NoReturn:
    """Look at every node once a second, for ever; new clusters go to `places.sightings`."""
    servers: dict[str, Server] = {}
    known: set[str] = set()
    while True:
        started = time.monotonic()
        for found in look(places, servers):
            if found.uid in known:
                continue
            known.add(found.uid)
            with places.sightings.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found)) + "\n")
        time.sleep(max(0.0, started + LOOK_EVERY_S - time.monotonic()))


def look(places: Places, servers: dict[str, Server]) -> Iterable[Sighting]:
    """Ask every node's own server; yield what answers.

    Args:
        places: the laboratory.
        servers: connections by node, kept from one look to the next; added to.
    """
    for folder in sorted(places.folder.glob("n*/disk")):
        node = places.node(folder.parent.name)
        if not has_credentials(node):
            continue
        server = servers.setdefault(node.name, server_on(node))
        try:
            uid = server.cluster_uid()
        except Unanswered:
            continue
        yield Sighting(
            uid=uid,
            generation=generation_on(node),
            node=node.name,
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


def audit(places: Places) -> tuple[Sighting, ...]:
    """Return every cluster that ever came up, in the order of their coming."""
    seen: dict[str, Sighting] = {}
    if places.sightings.exists():
        for line in places.sightings.read_text(encoding="utf-8").splitlines():
            one = Sighting(**json.loads(line))
            seen.setdefault(one.uid, one)
    servers: dict[str, Server] = {}
    for one in look(places, servers):  # What came up since the recorder's last look.
        seen.setdefault(one.uid, one)
    for server in servers.values():
        server.close()
    return tuple(seen.values())


def resets(places: Places) -> tuple[str, ...]:
    """Return a line for each reset of etcd's membership, as its survivor's disk tells."""
    lines = []
    for file in sorted(places.folder.glob("n*/disk")):
        node = places.node(file.parent.name)
        for kept in sorted((node.state / "cluster" / "resets").glob("*.json")):
            told = json.loads(kept.read_text(encoding="utf-8"))
            if told["outcome"] == "done":
                when = datetime.fromtimestamp(told["at_ms"] / 1000, UTC)
                dead = ", ".join(seat["node_name"] for seat in told["dead"])
                at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
                lines.append(
                    f"reset to epoch {told['epoch']}  {node.name}  {at}  by {told['by']}, "
                    f"given up {dead or 'nobody'}"
                )
    return tuple(lines)


def generation_on(node: NodePlaces) -> int | None:
    """Return the generation that the mark beside the database on a node's disk names."""
    try:
        text = (node.k3s_folder / "server" / "meshd-cluster.json").read_text(encoding="utf-8")
        generation = json.loads(text)["generation"]
    except (OSError, ValueError, KeyError):
        return None
    return int(generation)
