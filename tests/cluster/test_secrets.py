from __future__ import annotations

import hashlib
import os
import shutil
from itertools import count
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ledger import NodeId
from meshd.cluster import Candidacy, CandidateSecrets, prepare_secrets
from meshd.cluster.secrets import AUTHORITIES, renew_secrets
from meshd.errors import MeshdError
from meshd.sealing import seal, unseal
from tests.cluster.bench import N1, N2, sealing_key, tree
from tests.cluster.power import power_cut_before


def test_secrets_are_made_once_and_found_again(tmp_path: Path) -> None:
    made = prepare_secrets(tmp_path)
    assert prepare_secrets(tmp_path) == made
    assert made.server_token != made.agent_token


def test_two_candidates_share_nothing(tmp_path: Path) -> None:
    one, other = prepare_secrets(tmp_path / "1"), prepare_secrets(tmp_path / "2")
    assert one.ca_hash != other.ca_hash
    assert one.token_commitment != other.token_commitment
    assert not set(dict(one.tls).values()) & set(dict(other.tls).values())


def test_only_root_reads_the_secrets_and_no_text_shows_them(tmp_path: Path) -> None:
    secrets = prepare_secrets(tmp_path)
    folder = tmp_path / "cluster"
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()} == {0o700}
    assert secrets.server_token not in repr(secrets)
    assert secrets.agent_token not in f"{secrets}"


def test_the_files_are_what_k3s_keeps_if_it_finds_them(tmp_path: Path) -> None:
    secrets = prepare_secrets(tmp_path)
    tls = dict(secrets.tls)
    assert len(tls) == 11
    for name in AUTHORITIES:
        certificate = x509.load_pem_x509_certificate(tls[f"{name}.crt"])
        key = load_pem_private_key(tls[f"{name}.key"], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert certificate.public_key() == key.public_key()
        certificate.verify_directly_issued_by(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert basic.value.ca
        assert usage.value.key_cert_sign
        # A machine whose clock was never set must find them valid.
        assert certificate.not_valid_before_utc.year == 2020
        assert certificate.not_valid_after_utc.year == 2060
    assert tls["service.key"].startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert secrets.ca_hash == hashlib.sha256(tls["server-ca.crt"]).hexdigest()


def test_a_power_cut_while_they_are_made_leaves_none_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    monkeypatch.setattr(rsa, "generate_private_key", lambda **_: key)  # The slow one.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    outcomes = []
    for call in count():
        state = tmp_path / str(call)
        state.mkdir()
        with power_cut_before(call, monkeypatch, state) as made:
            prepare_secrets(state)
        outcomes.append((state / "cluster" / "candidate").exists())
        first = prepare_secrets(state)
        assert prepare_secrets(state) == first
        if "cut" not in made:
            break
    assert outcomes == sorted(outcomes), "they appear at one point and never disappear"
    assert len(outcomes) > 60
    assert {False, True} == set(outcomes)


@pytest.mark.parametrize("lost", ["tls/etcd/peer-ca.key", "server-token"])
def test_incomplete_secrets_are_refused_and_not_made_again(tmp_path: Path, lost: str) -> None:
    prepare_secrets(tmp_path)
    (tmp_path / "cluster" / "candidate" / lost).unlink()
    with pytest.raises(MeshdError) as error:
        prepare_secrets(tmp_path)
    assert error.value.code == "MESH-5002"
    assert not (tmp_path / "cluster" / "candidate" / lost).exists()


def test_spent_secrets_are_moved_aside_and_share_nothing_with_those_that_follow(
    tmp_path: Path,
) -> None:
    old = prepare_secrets(tmp_path)
    before = tree(tmp_path / "cluster/candidate")
    assert renew_secrets(tmp_path, ()) == old
    new = renew_secrets(tmp_path, {old.ca_hash})
    assert prepare_secrets(tmp_path) == new
    assert not set(dict(old.tls).values()) & set(dict(new.tls).values())
    assert not set(old.tokens) & set(new.tokens)
    assert renew_secrets(tmp_path, {old.ca_hash}) == new, "whose earlier call came as far"
    renew_secrets(tmp_path, {new.ca_hash})
    aside = tmp_path / f"cluster/spent-{old.ca_hash[:16]}"
    assert tree(aside) == before
    modes = {path.stat().st_mode & 0o777 for path in aside.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert len(list((tmp_path / "cluster").iterdir())) == 3


@pytest.mark.parametrize("names_hurry", [False, True])
def test_a_power_cut_while_they_are_replaced_loses_none_and_revives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, names_hurry: bool
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    monkeypatch.setattr(rsa, "generate_private_key", lambda **_: key)  # The slow one.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    old = prepare_secrets(tmp_path / "first")
    before = tree(tmp_path / "first/cluster/candidate")
    found = set()
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    with power_cut_before(-1, monkeypatch, tmp_path / "whole", names_hurry=True) as made:
        renew_secrets(tmp_path / "whole", {old.ca_hash})
    changes = len(made)  # The most of them make others, as at the first time; then come renames.
    for call in (0, changes // 2, *range(changes - 8, changes + 1)):
        state = tmp_path / str(call)
        shutil.copytree(tmp_path / "first", state)
        told: list[CandidateSecrets] = []
        with power_cut_before(call, monkeypatch, state, names_hurry=names_hurry):
            told.append(renew_secrets(state, {old.ca_hash}))
        at_start = prepare_secrets(state)
        assert told in ([], [at_start]), "what was told is there after the power cut"
        after = renew_secrets(state, {old.ca_hash})
        assert (after == at_start) is (at_start.ca_hash != old.ca_hash)
        assert after.ca_hash != old.ca_hash
        assert tree(state / f"cluster/spent-{old.ca_hash[:16]}") == before, "nothing is lost"
        found.add("new" if told else "old" if at_start == old else "none")
    assert found == {"old", "none", "new"}


def test_a_disk_too_full_for_others_leaves_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    candidacy = Candidacy(tmp_path)
    old = candidacy.secrets()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(MeshdError, match="No space left on device"):
            candidacy.renew({old.ca_hash})
    assert candidacy.secrets() == prepare_secrets(tmp_path) == old
    candidacy.renew({old.ca_hash})
    assert candidacy.secrets() == prepare_secrets(tmp_path) != old


def test_a_disk_that_refuses_is_the_operators_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MeshdError, match="No space left on device") as error:
        prepare_secrets(tmp_path)
    assert error.value.code == "MESH-5001"


def test_a_sealed_secret_opens_for_its_recipient_and_name_only() -> None:
    key = sealing_key(N1)
    public = key.public_key().public_bytes_raw()
    value = seal("secret", recipient=N1, sealing_key=public, name="server-token")
    assert b"secret" not in value
    assert unseal(value, recipient=N1, sealing_key=key, name="server-token") == "secret"
    others: list[tuple[NodeId, X25519PrivateKey, str, bytes]] = [
        (N2, key, "server-token", value),
        (N1, sealing_key(N2), "server-token", value),
        (N1, key, "agent-token", value),
        (N1, key, "server-token", value[:-1] + bytes([value[-1] ^ 1])),
        (N1, key, "server-token", b""),
    ]
    for recipient, own_key, name, changed in others:
        with pytest.raises(ValueError, match="was not sealed to this key"):
            unseal(changed, recipient=recipient, sealing_key=own_key, name=name)


def test_nothing_is_sealed_to_a_key_that_is_none() -> None:
    with pytest.raises(ValueError, match="shared key"):
        seal("secret", recipient=N1, sealing_key=bytes(32), name="server-token")
