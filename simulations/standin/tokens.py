"""The token's two forms and the files k3s keeps them in.

`K10<64 hex>::<user>:<password>`; the hex is the SHA-256 of the bytes of server-ca.crt as stored
(the PEM text, not its DER).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from simulations.standin.layout import Layout, link, write
from simulations.standin.log import fatal


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as given; `ca_hash` and `user` are None in the bare form."""

    ca_hash: str | None
    user: str | None
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """The two passwords of a cluster; equal where no agent token is set."""

    server: str
    agent: str


def parse_token(text: str) -> Token:
    """Return the parts of a token in either form; raises Exit on a K10 token without them."""
    if not text.startswith("K10"):
        user, colon, password = text.partition(":")
        if colon and user in {"server", "node"}:
            return Token(ca_hash=None, user=user, password=password)
        return Token(ca_hash=None, user=None, password=text)
    ca_hash, marks, credentials = text[3:].partition("::")
    user, colon, password = credentials.partition(":")
    if not (marks and colon and password):
        raise fatal(
            "failed to normalize token; must be in format"
            " K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>"
        )
    return Token(ca_hash=ca_hash, user=user, password=password)


def ca_hash(ca: bytes) -> str:
    """Return the hash that a token carries for this CA file."""
    return hashlib.sha256(ca).hexdigest()


def stored_passwords(layout: Layout) -> Passwords | None:
    """Return what an earlier start wrote, or None."""
    if not layout.passwd.is_file():
        return None
    rows = [row.split(",") for row in layout.passwd.read_text(encoding="utf-8").splitlines()]
    by_user = {row[1]: row[0] for row in rows}
    return Passwords(server=by_user["server"], agent=by_user["node"])


def write_token_files(layout: Layout, passwords: Passwords) -> None:
    """Write token, node-token, agent-token and cred/passwd as k3s does, 0600."""
    digest = ca_hash((layout.tls / "server-ca.crt").read_bytes())
    token = layout.server / "token"
    write(token, f"K10{digest}::server:{passwords.server}\n")
    link(layout.server / "node-token", token)
    if passwords.agent == passwords.server:
        link(layout.server / "agent-token", token)
    else:
        agent_token = layout.server / "agent-token"
        agent_token.unlink(missing_ok=True)
        write(agent_token, f"K10{digest}::node:{passwords.agent}\n")
    rows = (
        f"{passwords.server},server,server,k3s:server",
        f"{passwords.agent},node,node,k3s:agent",
    )
    write(layout.passwd, "\n".join(rows) + "\n")
