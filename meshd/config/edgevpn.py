"""EdgeVPN's token, as Kairos uses it: base64 of a YAML text. meshd takes it as a secret, no more.

What EdgeVPN derives from it (rotating keys by MD5) is not used. Two tokens with the same content
are the same network, however they were written. (mudler/edgevpn, pkg/node/options.go:
YAMLConnectionConfig.)
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from meshd.config.naming import derive, network_id_from
from meshd.config.schema import Network
from meshd.config.tree import Scalar, Sequence, Table, Tree, parse_yaml
from meshd.errors import ConfigError

KEY_CHARACTERS_MIN = 22
"""Of [A-Za-z0-9]: 22 characters hold 131 bits."""

_KEYS = (("otp", "dht", "key"), ("otp", "crypto", "key"))


def read_edgevpn_token(text: str) -> Network:
    """Return the network of an EdgeVPN token; it may vote, and knows no bounds and no seeds.

    The secret is the SHA-256 of the content as canonical JSON. The token has no network id; one is
    derived under a label of its own, so it tells nothing about the secret.

    Raises:
        ConfigError: it is no EdgeVPN token, or its keys are too short to be secrets.
    """
    content = _content(text)
    for path in _KEYS:
        key = _text_at(content, path)
        if not key:
            raise _no_token(f"{'.'.join(path)} is missing")
        if len(key) < KEY_CHARACTERS_MIN:
            raise ConfigError(
                "MESH-1004",
                f"the EdgeVPN token's {'.'.join(path)} has {len(key)} characters",
                cause=f"whoever guesses it owns the cluster; {KEY_CHARACTERS_MIN} are the least",
                fix="make a new token: `meshd token new`, or EdgeVPN's own generator (43 each)",
            )
    secret = hashlib.sha256(json.dumps(_canonical(content), sort_keys=True).encode()).digest()
    return Network(
        network_id=network_id_from(derive(secret, "meshd edgevpn network id v1")),
        epoch=0,
        secret=secret,
        capability="vote",
        seeds=(),
        hidden=(text, secret, *_long_texts(content)),
    )


def _content(text: str) -> Table:
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode()
    except ValueError:  # Not base64, or not of text.
        raise _no_token("it does not begin with meshd1, and it is not base64") from None
    document = parse_yaml(decoded, Path("token"))
    if document.errors:
        raise _no_token("it is base64, but not of a YAML text")
    tree = document.tree
    if not isinstance(tree, Table):
        raise _no_token("it is base64, but not of a YAML mapping")
    return tree


def _canonical(tree: Tree) -> object:
    """Return the tree with every value as the text that stands there, whatever YAML makes of it."""
    if isinstance(tree, Table):
        return {key: _canonical(value) for key, value in tree.entries.items()}
    if isinstance(tree, Sequence):
        return [_canonical(item) for item in tree.items]
    return tree.text


def _long_texts(tree: Tree) -> Iterator[str]:
    """Yield keys, room and meeting points; numbers and switches are shorter."""
    if isinstance(tree, Table):
        for below in tree.entries.values():
            yield from _long_texts(below)
    elif isinstance(tree, Scalar) and len(tree.text) >= KEY_CHARACTERS_MIN:
        yield tree.text


def _text_at(tree: Tree, path: tuple[str, ...]) -> str:
    """Return the text at `path`, empty if there is none."""
    for name in path:
        if not isinstance(tree, Table) or name not in tree.entries:
            return ""
        tree = tree.entries[name]
    return tree.text if isinstance(tree, Scalar) else ""


def _no_token(why: str) -> ConfigError:
    return ConfigError(
        "MESH-1003",
        f"this is no token: {why}",
        fix="copy the whole line that `meshd token new` printed; an EdgeVPN token does as well",
    )
