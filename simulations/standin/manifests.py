"""What lies in the server's manifests folder is applied to the cluster, and never deleted from it.

The kinds the stand-in does not offer are named in the log and left out.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from simulations.standin.etcd import EtcdError
from simulations.standin.kube import Fields, Objects, Refused, kind_of, merged
from simulations.standin.log import log, note

POLL_INTERVAL_S = 2.0  # k3s looks every 15 s.
_Stamp = tuple[int, int]


async def apply_manifests(objects: Objects, folder: Path) -> None:
    """Apply each file when it is new or has changed, for ever."""
    applied: dict[Path, _Stamp] = {}
    while True:
        for path, stamp in manifest_files(folder):
            if applied.get(path) != stamp and await _applied(objects, path):
                applied[path] = stamp
        await asyncio.sleep(POLL_INTERVAL_S)


def manifest_files(folder: Path) -> list[tuple[Path, _Stamp]]:
    """Return the manifests in name order with (mtime_ns, size); a `<file>.skip` hides its file."""
    found = []
    for path in sorted(folder.rglob("*")):
        wanted = path.suffix in {".yaml", ".yml", ".json"} and not path.name.startswith(".")
        if wanted and path.is_file() and not path.with_name(path.name + ".skip").exists():
            status = path.stat()
            found.append((path, (status.st_mtime_ns, status.st_size)))
    return found


def documents(path: Path) -> list[Fields]:
    """Return the objects in a manifest, lists opened; a broken file is logged and empty."""
    try:
        found = [d for d in yaml.safe_load_all(path.read_bytes()) if isinstance(d, dict)]
    except (OSError, yaml.YAMLError) as error:
        log("error", f"Failed to process config: failed to process {path}: {error}")
        return []
    opened: list[Fields] = []
    for document in found:
        opened.extend(document["items"] if document.get("kind") == "List" else [document])
    return opened


async def _applied(objects: Objects, path: Path) -> bool:
    """Apply one file; returns False if it must be tried again."""
    for fields in documents(path):
        try:
            await _apply(objects, fields)
        except (EtcdError, Refused) as error:
            log("error", f"Failed to process config: failed to process {path}: {error}")
            return False
    log("info", f"Applied manifest {path.name}")
    return True


async def _apply(objects: Objects, fields: Fields) -> None:
    kind = kind_of(fields)
    if kind is None:
        note(f"left out {fields.get('apiVersion')}/{fields.get('kind')}: not offered")
        return
    metadata = fields.get("metadata", {})
    namespace = metadata.get("namespace", "default") if kind.namespaced else ""
    try:
        await objects.create(kind, namespace, fields)
    except Refused as refusal:
        if refusal.reason != "AlreadyExists":
            raise
        name = metadata["name"]
        await objects.change(kind, namespace, name, lambda old: merged(old, fields))
