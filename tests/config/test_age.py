"""Keys of administrators are age's own, and a mistake in one is said without showing a secret."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from meshd.config import age
from meshd.config.redact import redacted
from tests.config.loading import Load, refusal

# The example key of age's own tests (FiloSottile/age, age_test.go): the byte 0x42, 32 times.
PRIVATE = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
PUBLIC = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"


def config(*admins: str) -> str:
    return f"p2p:\n  network_token: TOKEN\n  meshd:\n    admins: [{', '.join(admins)}]\n"


def test_a_key_of_age_is_read_and_written_as_age_does() -> None:
    (key,) = age.read_private_keys(f"# created: 2026-01-02\n# public key: {PUBLIC}\n{PRIVATE}\n")
    assert key.private_bytes_raw() == b"\x42" * 32
    assert age.write_private_key(key) == PRIVATE
    assert age.write_public_key(key) == PUBLIC
    assert age.read_public_key(PUBLIC) == key.public_key().public_bytes_raw()
    assert age.read_public_key(PUBLIC.upper()) == age.read_public_key(PUBLIC)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_survives_being_written(raw: bytes) -> None:
    key = X25519PrivateKey.from_private_bytes(raw)
    (again,) = age.read_private_keys(age.write_private_key(key))
    assert again.private_bytes_raw() == raw
    assert age.read_public_key(age.write_public_key(key)) == key.public_key().public_bytes_raw()


@given(st.integers(4, len(PUBLIC) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_one_wrong_character_is_noticed(place: int, letter: str) -> None:
    if letter != PUBLIC[place]:
        with pytest.raises(ValueError, match="checksum"):
            age.read_public_key(PUBLIC[:place] + letter + PUBLIC[place + 1 :])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("# nothing\n\n", "holds no key"),
        (PUBLIC, "line 1 is a public key"),
        (PRIVATE[:-1], "line 1: it is mistyped or cut"),
        ("ssh-ed25519 AAAA", "line 1: it mixes small and capital letters"),
        ("hello", "line 1: it does not begin with AGE-SECRET-KEY-1"),
        (PRIVATE.replace("GFP", "BIO", 1), "line 1: its character 17 is not used in keys"),
    ],
)
def test_a_file_without_a_key_is_told_why_and_nothing_of_it_is_shown(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        age.read_private_keys(text)
    assert PRIVATE[20:30] not in str(caught.value)


def test_the_settings_have_each_public_key_once(load: Load) -> None:
    settings = load(config(PUBLIC, PUBLIC.upper()))
    assert settings.admins == (PUBLIC,)
    assert load("p2p:\n  network_token: TOKEN\n").admins == ()


def test_a_private_key_in_the_file_is_refused_and_never_shown(load: Load) -> None:
    error = refusal(load, config(PUBLIC, PRIVATE))
    assert "p2p.meshd.admins" in error.what
    assert ":5:" in error.what
    assert "private key" in error.what
    shown = str(redacted(load.examine(config(PRIVATE)).sources.content).entries["p2p"])
    assert "(hidden)" in shown
    for text in (error.render(), shown):
        assert PRIVATE[16:24] not in text


def test_a_mistyped_public_key_is_refused_with_what_would_do(load: Load) -> None:
    error = refusal(load, config(PUBLIC[:-1]))
    assert "checksum" in error.what
    assert "meshd admin-key new" in error.fix
