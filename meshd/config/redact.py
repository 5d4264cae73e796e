"""The merged configuration as it may be shown: meshd's sections, without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from meshd.config.age import looks_private
from meshd.config.check import Checked
from meshd.config.keys import ALL, SECTIONS
from meshd.config.schema import BUILT_IN, Origin, Settings
from meshd.config.tree import Scalar, Sequence, Table, Tree, plain
from meshd.config.values import HIDDEN, without_secrets

_SECRET_NAME = re.compile(r"token|password|passwd|secret|key|endpoint", re.IGNORECASE)


def redacted(content: Table) -> Table:
    """Return meshd's sections of `content` with every secret replaced.

    Hidden are keys that are known to be secret, unknown ones whose name says so, and values of
    k3s arguments such as `--agent-token`.
    """
    entries = {
        name: _redacted(name, content.entries[name]) for name in SECTIONS if name in content.entries
    }
    return replace(content, entries=entries)


def secrets_of(settings: Settings) -> Iterator[str | bytes]:
    """Yield everything in `settings` that must never be shown."""
    yield settings.network.secret
    yield from settings.network.hidden
    if settings.external_db is not None:
        yield settings.external_db
    for name, value in (*settings.k3s.env, *settings.k3s_agent.env):
        if _SECRET_NAME.search(name):
            yield value


def flat(tree: Tree, path: str = "") -> Iterator[tuple[str, str, Origin]]:
    """Yield (path, value as JSON, where it comes from) of every value, items of lists by number."""
    if isinstance(tree, Table) and tree.entries:
        for name, below in tree.entries.items():
            yield from flat(below, f"{path}.{name}" if path else name)
    elif isinstance(tree, Sequence) and tree.items:
        for number, below in enumerate(tree.items):
            yield from flat(below, f"{path}[{number}]")
    elif path:
        yield path, json.dumps(plain(tree), ensure_ascii=False), tree.origin


def built_in(checked: Checked) -> Iterator[tuple[str, str, Origin]]:
    """Yield the same of what nobody set and has a default."""
    for key in ALL.values():
        if key.default is not None and key.path not in checked.values:
            yield key.path, json.dumps(key.default, ensure_ascii=False), BUILT_IN


def _redacted(path: str, tree: Tree) -> Tree:
    key = ALL.get(path)
    secret = _SECRET_NAME.search(path.rpartition(".")[2]) if key is None else key.secret
    if isinstance(tree, Table):
        entries = {
            name: Scalar(value=HIDDEN, text=HIDDEN, origin=below.origin)
            if secret
            else _redacted(f"{path}.{name}", below)
            for name, below in tree.entries.items()
        }
        return replace(tree, entries=entries)
    if isinstance(tree, Sequence):
        return replace(tree, items=tuple(_redacted(path, item) for item in tree.items))
    if tree.value is None or tree.value == "":
        return tree
    # A private key is never shown, whatever key of the file it stands at.
    secret = secret or looks_private(tree.text)
    text = HIDDEN if secret else without_secrets(tree.text)
    return tree if text == tree.text else replace(tree, value=text, text=text)
