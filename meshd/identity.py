"""Who this machine is: its Ed25519 key, and the fingerprint that shows whether the disk was cloned.

Invariant: an identity is never overwritten. A state directory whose fingerprint matches no part of
this machine is set aside by one rename, and a new identity begins.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger import NodeId, Signer
from meshd.errors import MeshdError
from meshd.whole_file import sync_folder, write_whole

# What firmware says when its maker wrote nothing; compared in lower case.
PLACEHOLDERS = frozenset(
    {
        "", "0", "none", "default string", "not specified", "not applicable", "unknown",
        "system serial number", "to be filled by o.e.m.", "123456789",
        "03000200-0400-0500-0006-000700080009",
    }
)  # fmt: skip
_DMI = Path("/sys/class/dmi/id")
_DEVICE_TREE_SERIAL = Path("/proc/device-tree/serial-number")
_NETWORK = Path("/sys/class/net")

# Not set aside with a cloned disk's state: the lock is held, and `k3s` belongs to the supervisor,
# which may be running; its records name the boot that they are of.
_STAYS = frozenset({"lock", "machine", "k3s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A node's keys. `repr` shows no secret."""

    signer: Signer
    sealing_key: X25519PrivateKey
    private_key: Ed25519PrivateKey

    @property
    def node_id(self) -> NodeId:
        return self.signer.node_id

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


def load_identity(state_dir: Path) -> Identity | None:
    """Read `identity.key` (a seed of 32 bytes); None if this machine has none yet.

    Raises:
        MeshdError: the file is no key, or cannot be read.
    """
    path = state_dir / "identity.key"
    try:
        seed = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeshdError(
            "MESH-2010", f"{path} cannot be read: {error.strerror}", fix="run the daemon as root"
        ) from error
    if len(seed) != 32:
        raise MeshdError(
            "MESH-2011",
            f"{path} holds {len(seed)} bytes, an identity has 32: it is damaged",
            fix=f"move {state_dir} away: the machine then joins as a new node",
        )
    return _identity_of(seed)


def narrow_key(state_dir: Path) -> str | None:
    """Take `identity.key` from everybody but its owner.

    Returns:
        A sentence for the operator if others could read or write it before, else None.
    """
    path = state_dir / "identity.key"
    try:
        mode = path.stat().st_mode & 0o777
        if not mode & 0o077:
            return None
        path.chmod(0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeshdError(
            "MESH-2010",
            f"{path} cannot be made private: {error.strerror}",
            fix="run the daemon as root",
        ) from error
    return f"{path} was open to others (mode {mode:04o}); it is 0600 now"


def new_identity() -> Identity:
    """Return an identity that nobody ever had."""
    return _identity_of(os.urandom(32))


def keep_identity(state_dir: Path, identity: Identity) -> None:
    """Write `identity.key`, whole, durable and 0600.

    To be called once its database exists: a key without its votes would vote again.

    Raises:
        MeshdError: it cannot be written.
    """
    _keep(state_dir / "identity.key", identity.private_key.private_bytes_raw())


def _identity_of(seed: bytes) -> Identity:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    sealing = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"meshd sealing v1").derive(seed)
    return Identity(
        signer=Signer(key),
        sealing_key=X25519PrivateKey.from_private_bytes(sealing),
        private_key=key,
    )


def node_name_of(hostname: str, public_key: bytes) -> str:
    """Return the Kubernetes node name: `<hostname>-<8 hex of SHA-256(public key)>`, at most 63.

    A reinstalled machine has another key, hence another name: never a "duplicate node name".
    """
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in hostname.lower())
    suffix = hashlib.sha256(public_key).hexdigest()[:8]
    return f"{letters[:54].strip('-') or 'node'}-{suffix}"


def hardware_identifiers(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what tells this machine from others, sorted; may be empty.

    Each is its machine's alone: not the product or chassis serial, which the blades of one chassis
    and the guests of some hypervisors share, and not /etc/machine-id, which images are cloned with.

    Args:
        environment: `MESHD_FINGERPRINT` replaces the hardware's answer (laboratory, containers).
    """
    injected = environment.get("MESHD_FINGERPRINT")
    return (f"injected:{injected}",) if injected else tuple(sorted(set(_read_hardware())))


def machine_fingerprint(key: bytes, identifiers: Iterable[str]) -> tuple[str, ...]:
    """Return sorted keyed hashes of `identifiers`: without `key` nobody can test a guess."""
    return tuple(
        sorted(hmac.digest(key, part.encode(), "sha256").hex()[:32] for part in identifiers)
    )


def set_aside_if_cloned(state_dir: Path, identifiers: tuple[str, ...]) -> str | None:
    """Bind the state to this machine; move a cloned disk's state away.

    Returns:
        A sentence for the operator if the state was set aside, else None. `state_dir` itself
        stays (it may be a mount point); its content goes into a folder beside the new files.

    Raises:
        MeshdError: the state cannot be read or moved.
    """
    mark = state_dir / "machine"
    try:
        salt, *bound = mark.read_text(encoding="ascii").split() or [""]
    except FileNotFoundError:
        salt, bound = os.urandom(16).hex(), []
    except (OSError, UnicodeDecodeError) as error:
        raise MeshdError(
            "MESH-2012",
            f"{mark} cannot be read: {error}",
            fix=f"move {state_dir} away: the machine then joins as a new node",
        ) from error
    # Salted by itself, not by the token: another token is not another machine.
    fingerprint = machine_fingerprint(salt.encode("ascii"), identifiers)
    if not fingerprint:
        return None  # A machine that says nothing about itself can be bound to nothing.
    cloned = bool(bound) and not set(bound) & set(fingerprint)
    aside = None
    if cloned:
        aside = state_dir / f"cloned-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        try:
            _move_state(state_dir, aside)
        except OSError as error:
            raise MeshdError(
                "MESH-2001",
                f"the state of another machine in {state_dir} cannot be set aside: "
                f"{error.strerror}",
                fix="make the disk writable and free some space, or name another --state-dir",
            ) from error
    if cloned or sorted(bound) != sorted(fingerprint):
        _keep(mark, "".join(f"{line}\n" for line in (salt, *fingerprint)).encode("ascii"))
    if aside is None:
        return None
    return (
        "the state on this disk belongs to another machine (no hardware identifier matches): "
        f"it was set aside in {aside}, and this machine has a new identity"
    )


def _move_state(state_dir: Path, aside: Path) -> None:
    """Move all but what stays; after a power cut at any moment the next start moves the rest."""
    aside.mkdir(mode=0o700, exist_ok=True)
    names = {path.name for path in state_dir.iterdir() if not path.name.startswith("cloned-")}
    for name in sorted(names - _STAYS):
        (state_dir / name).rename(aside / name)
    # What leaves one folder must have arrived in the other, and `machine`, by which the next start
    # knows that the rest is another's, goes only after all else went: unsynced names are kept or
    # lost in any order.
    sync_folder(aside)
    sync_folder(state_dir)
    (state_dir / "machine").rename(aside / "machine")
    sync_folder(aside)
    sync_folder(state_dir)


def _read_hardware() -> Iterable[str]:
    for name in ("product_uuid", "board_serial"):
        yield from _identifier(name, _DMI / name)
    yield from _identifier("device-tree", _DEVICE_TREE_SERIAL)
    if not _NETWORK.is_dir():
        return
    for interface in sorted(_NETWORK.iterdir()):
        # Only hardware has a `device`; address type 0 is a permanent address (sysfs-class-net).
        if (interface / "device").exists() and _read(interface / "addr_assign_type") == "0":
            yield from _identifier("mac", interface / "address")


def _identifier(kind: str, path: Path) -> Iterable[str]:
    value = _read(path).lower()
    if value not in PLACEHOLDERS and set(value) - set("0-: .fx"):
        yield f"{kind}:{value}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _keep(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise MeshdError(
            "MESH-2001",
            f"{path} cannot be written: {error.strerror}",
            fix="make the disk writable and free some space, or name another --state-dir",
        ) from error
