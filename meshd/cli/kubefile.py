"""A kubeconfig as text: made from what k3s wrote, and merged into one that exists.

Pure. Invariant: of an existing file everything but this network's entries stays as it is, to the
letter of each value: the YAML's nodes are edited, never values that were read and written again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

LISTS = ("clusters", "contexts", "users")

_LIST = "tag:yaml.org,2002:seq"
_NULL = "tag:yaml.org,2002:null"


class Unreadable(Exception):
    """A text that is no kubeconfig: why, and in which line where that can be said."""


class Taken(Exception):
    """The name is another cluster's in that file: what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What it takes to be the administrator of a cluster; `repr` shows nothing of it."""

    name: str  # Of cluster, user and context.
    server: str
    authority: str  # Base64 of PEM, and so the next two.
    certificate: str
    key: str

    def __repr__(self) -> str:
        return f"Access({self.name}, {self.server})"


def read_access(text: str, *, name: str, server: str) -> Access:
    """Return the access that a kubeconfig of k3s' gives, under our name and by our server.

    Raises:
        Unreadable: it is not as k3s writes it.
    """
    root = _parse(text)
    if root is None:
        raise Unreadable("it is empty")
    cluster = _body(_entries(root, "clusters"), "cluster")
    user = _body(_entries(root, "users"), "user")
    found = {
        "certificate-authority-data": _scalar(cluster, "certificate-authority-data"),
        "client-certificate-data": _scalar(user, "client-certificate-data"),
        "client-key-data": _scalar(user, "client-key-data"),
    }
    for key, value in found.items():
        if not value:
            raise Unreadable(f"it has no {key}")
    authority, certificate, private = found.values()
    return Access(
        name=name,
        server=server,
        authority=str(authority),
        certificate=str(certificate),
        key=str(private),
    )


def fresh(access: Access, others: Sequence[str] = ()) -> str:
    """Return a whole kubeconfig; `others` are named in a comment, in case the server is lost."""
    content = {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    root = _made(content)
    assert isinstance(root, MappingNode)
    for kind, body in _bodies(access).items():
        _put(root, kind, SequenceNode(_LIST, [_named(access.name, kind, body)]))
    _put(root, "current-context", _made(access.name))
    comment = f"# Other servers of this cluster: {' '.join(others)}\n" if others else ""
    return comment + _written(root)


def merged(text: str, access: Access, *, force: bool, set_current: bool) -> str:
    """Return `text` with this access in it.

    Args:
        text: of a kubeconfig that exists; it may be empty.
        access: what is added, or brought up to date.
        force: replace entries of that name though they are another cluster's.
        set_current: make it the current context; without, it becomes that if there is none.

    Raises:
        Unreadable: `text` is no kubeconfig.
        Taken: the name is in use for another cluster, and not `force`.
    """
    root = _parse(text)
    if root is None:
        return fresh(access)
    lists = {kind: _entries(root, kind) for kind in LISTS}
    if not force:
        _refuse_others(lists, access)
    for kind, body in _bodies(access).items():
        held = _find(lists[kind], access.name)
        if held is None:
            lists[kind].value.append(_named(access.name, kind, body))
        elif kind == "contexts":
            _keep_rest(held, body)
        else:
            _put(held, kind.removesuffix("s"), _made(body))
    if set_current or not _scalar(root, "current-context"):
        _put(root, "current-context", _made(access.name))
    written = _written(root)
    if _rest(_parse(written), access.name) != _rest(_parse(text), access.name):
        raise Unreadable("it holds something that cannot be written again as it is")
    return written


def is_only(text: str, access: Access) -> bool:
    """Whether `text` holds nothing but this very cluster's entries, or nothing.

    Raises:
        Unreadable: it is no kubeconfig.
    """
    root = _parse(text)
    if root is None:
        return True
    lists = {kind: _entries(root, kind) for kind in LISTS}
    names = {_scalar(entry, "name") for entries in lists.values() for entry in entries.value}
    return not names or (names == {access.name} and _is_same_cluster(lists["clusters"], access))


def current_context(text: str) -> str:
    """Return the name of the current context, empty if there is none."""
    return _scalar(_parse(text), "current-context") or ""


def _parse(text: str) -> MappingNode | None:
    """Return the document's node, None if there is nothing in it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise Unreadable(f"{where}{error.problem or 'no YAML'}") from None
    except yaml.YAMLError:
        raise Unreadable("it holds characters that YAML does not allow") from None
    if root is None:
        return None
    if not isinstance(root, MappingNode):
        raise Unreadable("it is no YAML mapping")
    kind = _scalar(root, "kind")
    if kind not in {None, "", "Config"}:
        raise Unreadable(f"it is of kind {kind!r}, not Config")
    return root if root.value else None


def _entries(root: MappingNode, kind: str) -> SequenceNode:
    """Return the list `kind`, made if it is missing or null."""
    found = _get(root, kind)
    if found is None or found.tag == _NULL:
        found = SequenceNode(_LIST, [])
        _put(root, kind, found)
    if not isinstance(found, SequenceNode):
        raise Unreadable(f"line {found.start_mark.line + 1}: {kind} is no list")
    if found.flow_style and not found.value:
        found.flow_style = False  # `clusters: []`
    for entry in found.value:
        if not isinstance(entry, MappingNode) or not _scalar(entry, "name"):
            raise Unreadable(f"line {entry.start_mark.line + 1}: an entry of {kind} has no name")
    return found


def _bodies(access: Access) -> dict[str, dict[str, str]]:
    return {
        "clusters": {
            "certificate-authority-data": access.authority,
            "server": access.server,
        },
        "contexts": {"cluster": access.name, "user": access.name},
        "users": {
            "client-certificate-data": access.certificate,
            "client-key-data": access.key,
        },
    }


def _rest(root: MappingNode | None, name: str) -> dict[str, object]:
    """Return all that is not ours, to be compared: tags and values, whatever the writing."""
    assert root is not None
    rest: dict[str, object] = {
        str(key.value): _compared(value)
        for key, value in root.value
        if key.value not in {*LISTS, "current-context"}
    }
    for kind in LISTS:
        entries = _entries(root, kind).value
        rest[kind] = [_compared(entry) for entry in entries if _scalar(entry, "name") != name]
    return rest


def _compared(node: Node) -> object:
    if isinstance(node, MappingNode):
        return node.tag, [(_compared(key), _compared(value)) for key, value in node.value]
    if isinstance(node, SequenceNode):
        return node.tag, [_compared(item) for item in node.value]
    return node.tag, node.value


def _refuse_others(lists: dict[str, SequenceNode], access: Access) -> None:
    held = [kind for kind in LISTS if _find(lists[kind], access.name) is not None]
    if not held or _is_same_cluster(lists["clusters"], access):
        return
    if "clusters" in held:
        body = _get(_find(lists["clusters"], access.name), "cluster")
        where = _scalar(body, "server") or "an unknown server"
        raise Taken(f"there {access.name} is a cluster at {where} with another authority")
    raise Taken(f"there {access.name} stands among {' and '.join(held)}, without its cluster")


def _is_same_cluster(clusters: SequenceNode, access: Access) -> bool:
    """Whether the cluster of this name, if there is one, is known by the same authority."""
    entry = _find(clusters, access.name)
    said = _scalar(_get(entry, "cluster"), "certificate-authority-data")
    return said is not None and _decoded(said) == _decoded(access.authority)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True).strip()
    except binascii.Error:
        return text.encode()


def _keep_rest(entry: MappingNode, body: dict[str, str]) -> None:
    """Put `body` into a context that exists, whose namespace and whatever else it has stay."""
    context = _get(entry, "context")
    if not isinstance(context, MappingNode):
        _put(entry, "context", _made(body))
        return
    for key, value in body.items():
        _put(context, key, _made(value))


def _named(name: str, kind: str, body: dict[str, str]) -> Node:
    # In kubectl's order.
    word = kind.removesuffix("s")
    return _made({"name": name, word: body} if kind == "users" else {word: body, "name": name})


def _find(entries: SequenceNode, name: str) -> MappingNode | None:
    found = (entry for entry in entries.value if _scalar(entry, "name") == name)
    return next(found, None)


def _body(entries: SequenceNode, key: str) -> Node | None:
    return _get(entries.value[0], key) if entries.value else None


def _get(node: Node | None, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _scalar(node: Node | None, key: str) -> str | None:
    found = _get(node, key)
    return str(found.value) if isinstance(found, ScalarNode) and found.tag != _NULL else None


def _put(node: MappingNode, key: str, value: Node) -> None:
    for place, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[place] = (name, value)
            return
    node.value.append((_made(key), value))


def _made(content: object) -> Node:
    node = yaml.compose(yaml.safe_dump(content, sort_keys=False), Loader=yaml.SafeLoader)
    assert node is not None
    return node


def _written(root: Node) -> str:
    text = yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=4096)
    assert isinstance(text, str)
    return text
