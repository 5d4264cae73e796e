"""The administrator's kubeconfig as k3s wrote it on this server, and its copies for `admins`.

Invariant: nothing of it leaves this module but sealed to one of those keys.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from meshd.cluster.paths import K3sPaths
from meshd.config.age import read_public_key
from meshd.config.critical import parse_args
from meshd.config.schema import Settings
from meshd.errors import MeshdError
from meshd.events import AdminAccess, ClusterOrder, Seal, SecretSealed
from meshd.schema import ADMIN_DIGEST_BYTES, K3sState
from meshd.sealing import seal

_VARIABLE = "K3S_KUBECONFIG_OUTPUT"


class Handout:
    """What this server can hand out."""

    def __init__(self, settings: Settings, paths: K3sPaths) -> None:
        self.file = _file(settings, paths)
        self._admins = tuple((one, read_public_key(one)) for one in settings.admins)
        self._seen: tuple[tuple[int, ...], bytes] | None = None

    def access(self, order: ClusterOrder, state: K3sState) -> AdminAccess | None:
        """Return what there is to hand out; the file is read again only if it changed.

        While k3s is not ready the file may be another cluster's, of before this one.
        """
        if not self._admins or not order.formed or order.seat == "worker" or state != "ready":
            return None
        try:
            found = self.file.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._seen is None or self._seen[0] != mark:
                self._seen = mark, _digest(self.file.read_bytes())
        except OSError:  # k3s has not written it yet; the next look is soon.
            return None
        return AdminAccess(digest=self._seen[1], admins=self._admins)

    def seal(self, request: Seal) -> SecretSealed:
        """Seal it to the key of an administrator: its digest, then the ciphertext.

        Raises:
            MeshdError: there is none to be read.
        """
        try:
            content = self.file.read_bytes()
            text = content.decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise MeshdError(
                "MESH-7040",
                f"the administrator's kubeconfig {self.file} cannot be read: {why}",
                fix="none needed while k3s starts; else see what k3s says in its log",
            ) from None
        sealed = seal(
            text, recipient=request.recipient, sealing_key=request.sealing_key, name=request.name
        )
        return SecretSealed(
            recipient=request.recipient,
            name=request.name,
            value=_digest(content) + sealed,
            cluster_id=request.cluster_id,
        )


def _digest(content: bytes) -> bytes:
    # Of a content with a private key in it: it tells nobody anything.
    return hashlib.sha256(b"meshd kubeconfig v1\n" + content).digest()[:ADMIN_DIGEST_BYTES]


def _file(settings: Settings, paths: K3sPaths) -> Path:
    """Return where k3s writes it; the user may have said so."""
    asked = [value for flag, value in parse_args(settings.k3s.args) if flag == "write-kubeconfig"]
    asked = asked or [value for name, value in settings.k3s.env if name == _VARIABLE and value]
    return Path(asked[-1]) if asked else paths.kubeconfig
