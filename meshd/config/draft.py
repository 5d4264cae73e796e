"""A new cloud-config, ready to use: what `meshd config init` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from meshd.config.json_schema import MODELINE, SCHEMA_FILE_NAME, json_schema
from meshd.config.load import examine
from meshd.config.schema import Misconfigured
from meshd.config.sources import HEADERS, read_text
from meshd.config.token import encode_token, new_token, parse_token
from meshd.errors import ConfigError, UsageError

CONTROL_PLANE_DEFAULT = 3


def draft(
    *,
    token: str | None,
    control_plane: int | None,
    nodes_max: int | None,
    vip: str | None,
    random_bytes: Callable[[int], bytes],
) -> str:
    """Return the text of a cloud-config.

    Args:
        token: the one to put in; None for a new one.
        control_plane: machines in the control plane; None for the token's size, or three.
        nodes_max: the most machines that may vote; None for the token's number or the default.
        vip: the control plane's virtual address, if it has one.
        random_bytes: makes the new token.

    Raises:
        ConfigError: the token is wrong.
        UsageError: token, numbers and address do not fit together.
    """
    if token is None:
        size = CONTROL_PLANE_DEFAULT if control_plane is None else control_plane
        try:
            made = new_token(
                control_plane=size, nodes_max=nodes_max, seeds=(), random_bytes=random_bytes
            )
        except ConfigError as error:
            raise _on_the_command_line(error) from None
        text = encode_token(made)
    else:
        bounds = parse_token(token).bounds
        known = CONTROL_PLANE_DEFAULT if bounds is None else bounds.control_plane
        size = known if control_plane is None else control_plane
        text = "".join(token.split())
    content = _content(text, size, nodes_max if token is not None else None, vip)
    wrong = examine(read_text(content, Path("the new file"))).errors
    if wrong:
        raise _on_the_command_line(Misconfigured(wrong[0]))
    return content


def write_draft(text: str, path: Path) -> Path:
    """Write `text` to `path`, which must be new, and the schema beside it.

    Returns:
        The path of the schema.

    Raises:
        ConfigError: `path` exists already, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        beside = path.with_name(SCHEMA_FILE_NAME)
        beside.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    except FileExistsError:
        raise ConfigError(
            "MESH-1044",
            f"{path} exists, and is not overwritten",
            fix="name another file, or move that one away: it may hold the only copy of a token",
        ) from None
    except OSError as error:
        raise ConfigError(
            "MESH-1045",
            f"{path} cannot be written: {error.strerror}",
            fix="name a file in a folder that exists and may be written to",
        ) from None
    return beside


def _content(token: str, control_plane: int, nodes_max: int | None, vip: str | None) -> str:
    more = control_plane - 1
    lines = [
        HEADERS[0],
        MODELINE,
        "# The same file on every machine. It is a secret: whoever has the token can join.",
        "p2p:",
        f'  network_token: "{token}"',
    ]
    if more:
        lines += [
            "  auto:",
            "    ha:",
            f"      master_nodes: {more}  # Besides the first: {control_plane} in all.",
        ]
    if nodes_max is not None:
        lines += ["  meshd:", f"    nodes_max: {nodes_max}"]
    if vip is None:
        lines += [
            "  vpn:",
            "    create: false  # This version has no overlay: the cluster forms on the LAN.",
            "# A virtual address for the control plane, free and outside of any DHCP range:",
            "# kubevip:",
            "#   eip: 10.0.0.50",
        ]
    else:
        lines += ["kubevip:", f"  eip: {json.dumps(vip)}"]
    return "\n".join(lines) + "\n"


def _on_the_command_line(error: ConfigError) -> UsageError:
    """Return the error of numbers that stand on the command line, not in a file."""
    return UsageError(error.code, error.what, cause=error.cause, fix=error.fix)
