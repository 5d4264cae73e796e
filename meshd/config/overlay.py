"""Settings that stand outside of files: on the kernel command line and in the environment.

A flag wins over the environment, the environment over the kernel command line, that over files,
and files over what is built in. The kernel command line is read as Kairos reads it
(kairos-io/kairos-sdk, machine/bootcmdline.go), but a value means what it would mean in YAML.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from meshd.config.key import Key
from meshd.config.keys import ALL, NETWORK_TOKEN, SECTIONS
from meshd.config.schema import Finding, Origin
from meshd.config.sources import Sources, empty_table
from meshd.config.tree import Scalar, Sequence, Table, Tree, parse_yaml, plain_scalar
from meshd.config.values import did_you_mean

CMDLINE = Path("/proc/cmdline")
CMDLINE_VARIABLE = "MESHD_CMDLINE_FILE"
"""Names another file in place of /proc/cmdline: machines in a laboratory share the kernel's."""

TOKEN_FILE_VARIABLE = "MESHD_TOKEN_FILE"  # noqa: S105 - The name of a variable, no secret.

_OWNED = ("kairos.config=", "cos.setup=")
_URL = "kairos.config_url="
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
_INDEX_MAX = 255
_OWN_PREFIXES = ("MESHD_P2P_", "MESHD_KUBEVIP_")


def variable_of(key: Key[object]) -> str:
    """Return the environment variable that sets `key`, such as MESHD_P2P_ROLE."""
    return "MESHD_" + re.sub(r"[.-]", "_", key.path).upper()


VARIABLES = {variable_of(key): key for key in ALL.values()}


def add_cmdline(sources: Sources, env: Mapping[str, str]) -> None:
    """Merge what the kernel command line says over `sources`."""
    named = env.get(CMDLINE_VARIABLE)
    path = Path(named) if named else CMDLINE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if named:
            sources.errors.append(
                Finding(
                    code="MESH-1025",
                    origin=Origin(name=f"environment {CMDLINE_VARIABLE}"),
                    message=f"{named} cannot be read: {error.strerror}",
                    fix="correct the variable, or remove it",
                )
            )
        return
    table = empty_table(Origin(name=str(path)))
    given = list(_assignments(text))
    for name, value in given:
        origin = Origin(name=f"{path}: {name}")
        placed = _placed(table, name.split("."), plain_scalar(value, origin), origin)
        if not isinstance(placed, Table):
            sources.errors.append(
                Finding(
                    code="MESH-1041",
                    origin=origin,
                    message=f"a list may have {_INDEX_MAX + 1} items here, counted from 0",
                    fix="put the list into a file",
                )
            )
            continue
        table = placed
        key = ALL.get(name)
        if key is not None and key.secret:
            sources.findings.append(
                Finding(
                    code="MESH-1038",
                    origin=origin,
                    message="a secret on the kernel command line can be read by every user and "
                    "program of this machine",
                    fix=f"put it into a file with mode 0600, or set {TOKEN_FILE_VARIABLE}",
                )
            )
    if given:
        sources.others.append(str(path))
        sources.lay_over(table)


def add_token_file(sources: Sources, env: Mapping[str, str]) -> None:
    """Replace the token in `sources` by the one in the file that MESHD_TOKEN_FILE names."""
    named = env.get(TOKEN_FILE_VARIABLE)
    if not named:
        return
    origin = Origin(name=f"environment {TOKEN_FILE_VARIABLE}")
    try:
        text = Path(named).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        sources.errors.append(
            Finding(
                code="MESH-1025",
                origin=origin,
                message=f"{named} cannot be read: {why}",
                fix="correct the variable or the file's permissions",
            )
        )
        return
    sources.others.append(f"{origin.name}: {named}")
    _replace_value(sources, NETWORK_TOKEN, Scalar(value=text, text=text, origin=origin))


def add_environment(sources: Sources, env: Mapping[str, str]) -> None:
    """Replace values in `sources` by those of the environment's variables."""
    for name in sorted(env):
        value = env[name]
        key = VARIABLES.get(name)
        if not value or (key is None and not name.startswith(_OWN_PREFIXES)):
            continue
        origin = Origin(name=f"environment {name}")
        if key is None:
            sources.findings.append(
                Finding(
                    code="MESH-1039",
                    origin=origin,
                    message=f"no setting has this variable{did_you_mean(name, VARIABLES)}",
                    fix="correct its name, or remove it",
                )
            )
        elif key.secret:
            sources.errors.append(
                Finding(
                    code="MESH-1040",
                    origin=origin,
                    message=f"{key.path} is a secret, and other programs can read a variable",
                    fix=f"put a token into a file that {TOKEN_FILE_VARIABLE} names, anything else "
                    "into a cloud-config file with mode 0600",
                )
            )
        else:
            document = parse_yaml(value, origin)
            sources.errors += document.errors
            if document.tree is not None:
                sources.others.append(origin.name)
                _replace_value(sources, key, document.tree)


def _replace_value(sources: Sources, key: Key[object], tree: Tree) -> None:
    placed = _placed(sources.content, key.path.split("."), tree, tree.origin)
    assert isinstance(placed, Table)
    sources.content = placed


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value) of the parameters that are settings; the strongest come last."""
    owned = []
    for word in _words(text):
        if word.startswith(_URL):
            owned.append(("config_url", word.removeprefix(_URL)))
            continue
        prefix = next((known for known in _OWNED if word.startswith(known)), None)
        payload = word if prefix is None else word.removeprefix(prefix)
        name, equals, value = payload.partition("=")
        name, value = name.strip('"'), value.strip('"') if equals else "true"
        if prefix == "cos.setup=" and not equals:
            owned.append(("config_url", name))
        elif prefix is not None and name and not name[0].isdigit():
            owned.append((name, value))
        elif name == "config_url" or ("." in name and name.partition(".")[0] in SECTIONS):
            yield name, value
    yield from owned


def _words(text: str) -> list[str]:
    """Split as a shell does, or, where an apostrophe makes that impossible, as the kernel does."""
    try:
        return shlex.split(text)
    except ValueError:
        return [word.replace('"', "") for word in _WORD.findall(text)]


def _placed(tree: Tree | None, path: list[str], value: Tree, origin: Origin) -> Tree | None:
    """Return `tree` with `value` at `path`; a number in the path is a place in a list.

    None if that place is beyond what a list may have here.
    """
    if not path:
        return value
    name, below = path[0], path[1:]
    if name.isascii() and name.isdigit():
        index = int(name)
        items = list(tree.items) if isinstance(tree, Sequence) else []
        if index > _INDEX_MAX:
            return None
        items += [Scalar(value=None, text="", origin=origin)] * (index + 1 - len(items))
        placed = _placed(items[index], below, value, origin)
        if placed is None:
            return None
        items[index] = placed
        return Sequence(items=tuple(items), origin=origin)
    table = tree if isinstance(tree, Table) else empty_table(origin)
    placed = _placed(table.entries.get(name), below, value, origin)
    if placed is None:
        return None
    return replace(
        table,
        entries={**table.entries, name: placed},
        origins={**table.origins, name: origin},
    )
