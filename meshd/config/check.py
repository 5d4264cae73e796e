"""Compares a merged cloud-config with the keys that meshd knows; finds every error, not one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

from meshd.config.key import Key
from meshd.config.keys import ALL, SECTIONS, SHAPE_KEYS
from meshd.config.kubevip_keys import ALIASES
from meshd.config.schema import Finding, Origin
from meshd.config.tree import Scalar, Sequence, Table, Tree
from meshd.config.values import Unfit, did_you_mean

T = TypeVar("T")

_TABLES = frozenset(
    path.rsplit(".", depth)[0] for path in ALL for depth in range(1, path.count(".") + 1)
)
_KUBEVIP_BY_LOWER_CASE = {path.lower(): path for path in ALL if path.startswith("kubevip.")}
# Unknown keys outside of these sections are Kairos' own or somebody else's.
_NEAR_SECTIONS = {
    **dict.fromkeys(("kube-vip", "kubevip"), "kubevip"),
    **dict.fromkeys(("k3s-agent", "k3sagent"), "k3s-agent"),
    "p2p": "p2p",
    "k3s": "k3s",
}
_OTHER_DISTRIBUTIONS = {"k0s": "k3s", "k0s-worker": "k3s-agent"}
# Names that at the top of a file can only be meant for a section: its line was forgotten, or what
# is below it is not indented.
_STRAY = {
    **{name: f"p2p.{name}" for name in ("network_token", "auto", "minimum_nodes", "disable_dht")},
    **{name: f"p2p.auto.{name}" for name in ("ha",)},
    **{name: f"p2p.auto.ha.{name}" for name in ("master_nodes", "external_db")},
    **{name: f"p2p.meshd.{name}" for name in ("nodes_max",)},
    "eip": "kubevip.eip",
}


@dataclass(slots=True, kw_only=True)
class Checked:
    """The values of a configuration, and what was wrong or odd."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)  # What the values were read from.
    errors: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)  # Paths of keys whose value does not do.

    def get(self, key: Key[T]) -> T | None:
        """Return the value of `key`, or None where no file sets it."""
        return cast("T | None", self.values.get(key.path))

    def origin(self, key: Key[object]) -> Origin | None:
        """Return where the value of `key` stands, or None where no file sets it."""
        return self.origins.get(key.path)


def check(content: Table) -> Checked:
    """Read all keys below meshd's sections of a merged configuration."""
    checked = Checked()
    for name, tree in content.entries.items():
        if name in SECTIONS:
            _check_table(name, tree, checked)
        else:
            _check_other(name, tree, content.origins[name], checked)
    checked.findings += _idle(checked)
    return checked


def _idle(checked: Checked) -> Iterator[Finding]:
    """Yield a warning for each value that has no effect, and is not what is so anyway."""
    for path, value in checked.values.items():
        key = ALL[path]
        if key.idle is None or value in (*key.settled, ()):
            continue
        if key.moot is None or checked.values.get(key.moot[0]) != key.moot[1]:
            yield Finding(
                code="MESH-1028",
                origin=checked.origins[path],
                message=f"{path} has no effect: {key.idle}",
                fix=key.mend,
            )


def _check_other(name: str, tree: Tree, origin: Origin, checked: Checked) -> None:
    """Look at a key at the top that is none of meshd's sections; most are for other readers."""
    plain_name = name.lower().replace("_", "-")
    near = _NEAR_SECTIONS.get(plain_name)
    if near is None and name not in _OTHER_DISTRIBUTIONS:
        near = next(iter(difflib.get_close_matches(plain_name, SECTIONS, n=1, cutoff=0.85)), None)
    if near is not None:
        message, fix = f"{name} is not read; did you mean {near!r}?", f"rename it to {near}"
        checked.findings.append(Finding(code="MESH-1023", origin=origin, message=message, fix=fix))
    elif name in _STRAY:
        checked.errors.append(
            Finding(
                code="MESH-1024",
                origin=origin,
                message=f"{name} is not read at the top of the file",
                fix=f"move it to {_STRAY[name]}: put it below its section, indented",
            )
        )
    elif name in _OTHER_DISTRIBUTIONS:
        checked.findings.append(
            Finding(
                code="MESH-1043",
                origin=origin,
                message=f"{name} is not read: meshd runs k3s",
                fix=f"put what k3s is to know below {_OTHER_DISTRIBUTIONS[name]}, or leave it for "
                "other readers of the file",
            )
        )
    elif name == "config_url" and not (isinstance(tree, Scalar) and not tree.text):
        checked.findings.append(
            Finding(
                code="MESH-1034",
                origin=origin,
                message="config_url is not supported: what it names is not read",
                fix="put the content into a file of its own",
            )
        )


def _check_table(path: str, tree: Tree, checked: Checked) -> None:
    if isinstance(tree, Scalar) and tree.value is None:
        return
    if not isinstance(tree, Table):
        checked.errors.append(
            Finding(
                code="MESH-1022",
                origin=tree.origin,
                message=f"{path} is {'a list' if isinstance(tree, Sequence) else 'one value'}, "
                "not a mapping",
                fix=f"write the keys of {path} below it, indented, each with its value after `: `",
            )
        )
        checked.refused.add(path)
        return
    for name, below in tree.entries.items():
        spelled = f"{path}.{name}"
        known = _KUBEVIP_BY_LOWER_CASE.get(spelled.lower(), spelled)
        if known in ALL:
            _check_value(ALL[known], below, checked)
        elif known in _TABLES:
            _check_table(known, below, checked)
        elif spelled.lower() in ALIASES and isinstance(below, Table):
            _check_table(path, below, checked)
        else:
            _report_unknown(spelled, below, tree.origins[name], checked)


def _check_value(key: Key[object], tree: Tree, checked: Checked) -> None:
    if _says_nothing(key, tree):
        return
    if key.path in checked.origins:
        checked.errors.append(
            Finding(
                code="MESH-1042",
                origin=tree.origin,
                message=f"{key.path} is given twice, in two spellings; first at "
                f"{checked.origins[key.path]}",
                fix="remove one",
            )
        )
        return
    for scalar in _scalars(tree):
        if "{{" in scalar.text:
            checked.findings.append(
                Finding(
                    code="MESH-1034",
                    origin=scalar.origin,
                    message=f"{key.path} looks like a template; templates are not filled in",
                    fix="write the value itself",
                )
            )
    try:
        checked.values[key.path] = key.read(tree)
    except Unfit as unfit:
        what = "does not do" if key.secret else unfit.what
        checked.errors.append(
            Finding(
                code="MESH-1022",
                origin=unfit.origin or tree.origin,
                message=f"{key.path} {what}",
                fix=unfit.fix,
            )
        )
        checked.refused.add(key.path)
        return
    checked.origins[key.path] = tree.origin
    checked.trees[key.path] = tree


def _says_nothing(key: Key[object], tree: Tree) -> bool:
    """Whether a value is empty, as in Kairos' examples: `manifest_url: ""`."""
    if not isinstance(tree, Scalar):
        return False
    return tree.value is None or (key.read.blank and tree.text == "")


def _report_unknown(path: str, tree: Tree, origin: Origin, checked: Checked) -> None:
    """Report an unknown key; one that would shape the cluster elsewhere is an error."""
    misplaced = [
        (below, place, home)
        for below, place in _leaves(path, tree, origin)
        if (home := _home_of(below)) is not None
    ]
    shaping = [entry for entry in misplaced if entry[2].rsplit(".", 1)[-1] in SHAPE_KEYS]
    for below, place, home in shaping:
        checked.errors.append(
            Finding(
                code="MESH-1024",
                origin=place,
                message=f"{below} is not read here, and it would change the cluster's shape",
                fix=f"move it to {home}",
            )
        )
    if shaping:
        return
    parent, _, last = path.rpartition(".")
    everywhere = [known.rpartition(".") for known in (*ALL, *sorted(_TABLES))]
    near = did_you_mean(last, [name for above, _, name in everywhere if above == parent])
    home = f"; it belongs at {misplaced[0][2]}" if misplaced and not near else ""
    checked.findings.append(
        Finding(
            code="MESH-1023",
            origin=origin,
            message=f"{path} is no known key{near}{home}",
            fix="correct it, or remove it",
        )
    )


def _leaves(path: str, tree: Tree, origin: Origin) -> Iterator[tuple[str, Origin]]:
    """Yield the path and place of every value at or below an unknown key."""
    if not isinstance(tree, Table):
        yield path, origin
        return
    for name, below in tree.entries.items():
        yield from _leaves(f"{path}.{name}", below, tree.origins[name])


def _home_of(path: str) -> str | None:
    """Return the known key with the same last name, if there is just one."""
    last = path.rsplit(".", 1)[-1]
    homes = [known for known in ALL if known.rsplit(".", 1)[-1] == last]
    return homes[0] if len(homes) == 1 else None


def _scalars(tree: Tree) -> Iterator[Scalar]:
    if isinstance(tree, Scalar):
        yield tree
    elif isinstance(tree, Sequence):
        for item in tree.items:
            yield from _scalars(item)
    else:
        for item in tree.entries.values():
            yield from _scalars(item)
