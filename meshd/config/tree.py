"""YAML with places: what a file says, and where it says it.

Values follow YAML 1.2's core schema, as Go's yaml.v3 reads them into untyped values for Kairos:
`on` and `yes` are words, not booleans. A key that stands twice in one mapping is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from meshd.config.schema import Origin
from meshd.errors import ConfigError

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value; `text` is what stands in the file, without quotes."""

    value: bool | int | float | str | None
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list of trees."""

    items: tuple[Tree, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping with text keys, in the file's order; `origins` says where each key stands."""

    entries: Mapping[str, Tree]
    origins: Mapping[str, Origin]
    origin: Origin


Tree = Scalar | Sequence | Table


def parse_yaml(text: str, path: Path) -> tuple[Tree | None, bool]:
    """Return the first document of `text`, None if it is empty, and whether there are more.

    `path` is only named in origins and errors.

    Raises:
        ConfigError: not YAML, a key twice, or a key that is no text; with line and column.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_node() if loader.check_node() else None
        if node is None:
            return None, False
        return _Reader(path).read(node), loader.check_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = Origin(path=path, line=1) if mark is None else _origin(path, mark)
        raise syntax_error(origin, error.problem or "not YAML") from None
    except yaml.YAMLError as error:  # Characters that no YAML text may have.
        raise syntax_error(Origin(path=path, line=1), " ".join(str(error).split())) from None
    except RecursionError:
        raise syntax_error(Origin(path=path, line=1), "nested too deeply") from None


def syntax_error(origin: Origin, why: str) -> ConfigError:
    """Return the error for a file that cannot be read at all."""
    return ConfigError(
        "MESH-1020",
        f"{origin}:{origin.column}: {why}",
        fix="correct the file; `meshd config validate FILE` checks it",
    )


def plain(tree: Tree) -> object:
    """Return the tree without origins: dict, list, and Python's scalars."""
    if isinstance(tree, Table):
        return {key: plain(value) for key, value in tree.entries.items()}
    if isinstance(tree, Sequence):
        return [plain(item) for item in tree.items]
    return tree.value


def _origin(path: Path, mark: yaml.error.Mark) -> Origin:
    return Origin(path=path, line=mark.line + 1, column=mark.column + 1)


class _Reader:
    """Turns PyYAML's nodes into trees; an anchor's tree is made once and shared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[int, Tree] = {}
        self._open: set[int] = set()

    def read(self, node: yaml.Node) -> Tree:
        origin = _origin(self._path, node.start_mark)
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            raise syntax_error(origin, "an anchor that contains itself")
        self._open.add(id(node))
        tree: Tree
        if isinstance(node, yaml.MappingNode):
            tree = self._table(node, origin)
        elif isinstance(node, yaml.SequenceNode):
            tree = Sequence(items=tuple(self.read(item) for item in node.value), origin=origin)
        else:
            assert isinstance(node, yaml.ScalarNode)
            tree = _scalar(node, origin)
        self._open.discard(id(node))
        self._done[id(node)] = tree
        return tree

    def _table(self, node: yaml.MappingNode, origin: Origin) -> Table:
        entries: dict[str, Tree] = {}
        origins: dict[str, Origin] = {}
        inherited: list[Table] = []
        for key_node, value_node in node.value:
            place = _origin(self._path, key_node.start_mark)
            if key_node.tag == _MERGE_TAG:
                inherited.extend(self._merged(value_node, place))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise syntax_error(place, "a key that is not text")
            if key_node.value in origins:
                first = origins[key_node.value]
                raise syntax_error(
                    place, f"the key {key_node.value!r} stands twice; first on line {first.line}"
                )
            entries[key_node.value] = self.read(value_node)
            origins[key_node.value] = place
        for table in inherited:
            entries = {**table.entries, **entries}
            origins = {**table.origins, **origins}
        return Table(entries=entries, origins=origins, origin=origin)

    def _merged(self, node: yaml.Node, place: Origin) -> list[Table]:
        """Return the tables that `<<: *anchor` or `<<: [*a, *b]` brings in."""
        tree = self.read(node)
        tables = tree.items if isinstance(tree, Sequence) else (tree,)
        found = [table for table in tables if isinstance(table, Table)]
        if len(found) != len(tables):
            raise syntax_error(place, "`<<` needs a mapping")
        return found


def _scalar(node: yaml.ScalarNode, origin: Origin) -> Scalar:
    text: str = node.value
    quoted = node.style is not None
    return Scalar(value=text if quoted else _value(text), text=text, origin=origin)


def _value(text: str) -> bool | int | float | str | None:
    """Return what plain `text` means in YAML 1.2's core schema (spec, section 10.3.2)."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
        return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
