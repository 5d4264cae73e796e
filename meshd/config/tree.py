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

from meshd.config.schema import Finding, Origin

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNTAGGED = "untagged"
_DEFAULT_TAGS: dict[type[yaml.Node], str] = {
    yaml.ScalarNode: _UNTAGGED,
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
    yaml.MappingNode: "tag:yaml.org,2002:map",
}
_FIX = "correct the file; `meshd config validate FILE` checks it"

# What PyYAML says, and what the author of a file most likely did.
_EXPLAINED = (
    ("'\\t'", "a tab", "indent with spaces: YAML allows no tabs there"),
    (
        "mapping values are not allowed",
        "a `:` where no key may stand",
        "check the indentation here and in the line above; quote a value that contains `: `",
    ),
    (
        "found undefined alias",
        None,
        "quote the value if it is to begin with `*`, or define the anchor above",
    ),
    ("found unexpected end of stream", "a quotation mark that is never closed", "close it"),
    (
        "did not find expected",
        None,
        "check the indentation: keys of one mapping stand below one another",
    ),
    (
        "expected <block end>",
        "wrong indentation",
        "indent this line like its neighbours of the same mapping or list",
    ),
    (
        "could not find expected ':'",
        "a key without `:`",
        "write KEY: VALUE, with a space after the colon",
    ),
    (
        "expected ',' or",
        None,
        "close the bracket, or put a comma between its items",
    ),
)

# The parser notices these only lines later.
_AT_ITS_BEGINNING = frozenset({"found unexpected end of stream", "could not find expected ':'"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The first document of a text: None if it is empty or cannot be read.

    `more` says whether other documents follow, which nobody reads.
    """

    tree: Tree | None
    more: bool = False
    errors: tuple[Finding, ...] = ()


def parse_yaml(text: str, where: Path | Origin) -> Document:
    """Return what `text` says and everything that is wrong with it as YAML.

    Args:
        text: the content of a file, or a value from somewhere else.
        where: the file, or the one origin of all of it; only named, not read.
    """
    reader = _Reader(where)
    try:
        loader = _Loader(text)
        node = loader.get_node() if loader.check_node() else None
        if node is None:
            return Document(tree=None)
        tree = reader.read(node)
        return Document(tree=tree, more=loader.check_node(), errors=tuple(reader.errors))
    except yaml.MarkedYAMLError as error:
        found = _explained(error, reader)
    except yaml.YAMLError as error:  # Characters that no YAML text may have.
        found = syntax_error(reader.at(None), " ".join(str(error).split()))
    except RecursionError:
        found = syntax_error(reader.at(None), "nested too deeply")
    return Document(tree=None, errors=(*reader.errors, found))


def syntax_error(origin: Origin, why: str, fix: str = _FIX) -> Finding:
    """Return the error for a text that cannot be read."""
    return Finding(code="MESH-1020", origin=origin, message=why, fix=fix)


def plain(tree: Tree) -> object:
    """Return the tree without origins: dict, list, and Python's scalars."""
    if isinstance(tree, Table):
        return {key: plain(value) for key, value in tree.entries.items()}
    if isinstance(tree, Sequence):
        return [plain(item) for item in tree.items]
    return tree.value


def plain_scalar(text: str, origin: Origin) -> Scalar:
    """Return what an unquoted `text` means in YAML."""
    return Scalar(value=_value(text), text=text, origin=origin)


def _explained(error: yaml.MarkedYAMLError, reader: _Reader) -> Finding:
    said = error.problem or "not YAML"
    mark = error.problem_mark or error.context_mark
    for part, what, fix in _EXPLAINED:
        if part in said:
            begun = error.context_mark
            inside = ""
            if part in _AT_ITS_BEGINNING and begun is not None:
                mark = begun
            elif begun is not None and mark is not None and begun.line < mark.line:
                inside = f", in what begins on line {begun.line + 1}"
            return syntax_error(reader.at(mark), f"{what or said}{inside}", fix)
    return syntax_error(reader.at(mark), said)


class _Loader(yaml.SafeLoader):
    """Leaves the meaning of plain scalars to `_value`; explicit tags such as `!!str` stay."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:  # noqa: ARG002 - PyYAML's signature.
        return _DEFAULT_TAGS[kind]


class _Reader:
    """Turns PyYAML's nodes into trees; an anchor's tree is made once and shared."""

    def __init__(self, where: Path | Origin) -> None:
        self.errors: list[Finding] = []
        self._where = where
        self._done: dict[int, Tree] = {}
        self._open: set[int] = set()

    def at(self, mark: yaml.error.Mark | None) -> Origin:
        if isinstance(self._where, Origin):
            return self._where
        if mark is None:
            return Origin(path=self._where, line=1)
        return Origin(path=self._where, line=mark.line + 1, column=mark.column + 1)

    def read(self, node: yaml.Node) -> Tree:
        origin = self.at(node.start_mark)
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            self.errors.append(syntax_error(origin, "an anchor that contains itself"))
            return Scalar(value=None, text="", origin=origin)
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
            place = self.at(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.errors.append(
                    syntax_error(
                        place, "a key that is not text", "quote it if it is to begin with {, [ or ?"
                    )
                )
            elif key_node.value == "<<" and key_node.style is None:
                inherited.extend(self._merged(value_node, place))
            elif key_node.value in origins:
                first = origins[key_node.value]
                self.errors.append(
                    syntax_error(
                        place,
                        f"the key {key_node.value!r} stands twice; first on line {first.line}",
                        "merge the two, or remove one",
                    )
                )
            else:
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
            self.errors.append(
                syntax_error(place, "`<<` needs a mapping", "write `<<: *ANCHOR` of a mapping")
            )
        return found


def _scalar(node: yaml.ScalarNode, origin: Origin) -> Scalar:
    text: str = node.value
    untagged = node.tag == _UNTAGGED and node.style is None
    return Scalar(value=_value(text) if untagged else text, text=text, origin=origin)


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
