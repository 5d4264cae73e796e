"""Tokens: what they carry, what is refused when one is made or read."""

import hmac
import random
from dataclasses import replace
from datetime import date
from typing import Literal

import pytest

from meshd.config import (
    Capability,
    Network,
    Token,
    decode_token,
    derive,
    encode_token,
    join_token,
    new_token,
    parse_token,
)
from meshd.config.checksum import encode
from meshd.config.naming import WORDS, network_id_from
from meshd.errors import ConfigError
from roles import VOTES_MAX, Bounds

RNG = random.Random(7)
PEER = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE"


OLD = (
    "meshd1qyzhca5lgyqqpxwquk7me77gtvmuaywtmc0urv82ddz0zvzrdhtjnl"
    "nfhk0ge6axqqpsqpgqqvqvkqr3qu0s587jdjh3qa5f8lrs"
)
"""A token as the first version made it, from the bytes of `Random(5)`."""


def made(control_plane: int = 3, nodes_max: int | None = None, *seeds: str) -> Token:
    return new_token(
        control_plane=control_plane, nodes_max=nodes_max, seeds=seeds, random_bytes=RNG.randbytes
    )


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_token(text)
    return caught.value


def test_a_token_without_seeds_has_95_characters() -> None:
    text = encode_token(made())
    assert text.startswith("meshd1")
    assert len(text) == 95


def test_a_token_says_again_what_was_put_in() -> None:
    token = made(
        5,
        11,
        "/ip4/203.0.113.7/tcp/7946",
        f"/ip6/2001:db8::7/tcp/443/p2p/{PEER}",
        "/dns/seed.example.org/tcp/7946",
    )
    assert decode_token(encode_token(token)) == token
    assert token.bounds == Bounds(bound="bounded", nodes_max=11, quorum=6, control_plane=5)


@pytest.mark.parametrize("capability", ["vote", "join", "relay"])
@pytest.mark.parametrize("bound", ["bounded", "open"])
def test_every_field_survives_the_text(
    capability: Capability, bound: Literal["bounded", "open"]
) -> None:
    token = Token(
        network=Network(
            network_id="toad-00ff00ff",
            epoch=65535,
            secret=bytes(range(32)),
            capability=capability,
            seeds=(),
        ),
        bounds=Bounds(
            bound=bound,
            nodes_max=65535 if bound == "bounded" else 0,
            quorum=32768,
            control_plane=7,
        ),
    )
    assert decode_token(encode_token(token)) == token


def test_case_and_white_space_around_do_not_matter() -> None:
    token = made()
    assert parse_token(f"\n  {encode_token(token).upper()} \r\n") == token


def test_the_network_id_is_a_word_and_eight_digits_that_the_secret_does_not_tell() -> None:
    one = made()
    word, number = one.network.network_id.split("-")
    assert word in WORDS
    assert len(bytes.fromhex(number)) == 4
    again = replace(one, network=replace(one.network, secret=bytes(32)))
    assert decode_token(encode_token(again)).network.network_id == one.network.network_id


def test_the_words_keep_their_numbers() -> None:
    assert len(set(WORDS)) == 64
    assert network_id_from(bytes([0, 0x7F, 0x3A, 0x9C, 0x12])) == "oak-7f3a9c12"
    assert WORDS[63] == "toad"


def test_a_token_never_shows_its_secret() -> None:
    token = made()
    assert token.network.secret.hex() not in repr(token)
    assert repr(token.network.secret) not in repr(token)


def test_a_join_token_differs_in_nothing_but_the_right_to_vote() -> None:
    token = made()
    joining = join_token(token)
    assert joining.network.capability == "join"
    assert replace(joining, network=replace(joining.network, capability="vote")) == token


def test_a_token_that_never_expires_is_the_same_to_the_byte_as_before_there_were_dates() -> None:
    seed = "/ip4/203.0.113.7/tcp/7946"
    token = new_token(
        control_plane=3, nodes_max=None, seeds=[seed], random_bytes=random.Random(5).randbytes
    )
    assert encode_token(token) == OLD
    assert decode_token(OLD) == token
    assert token.network.expires is None


@pytest.mark.parametrize("day", [date(1970, 1, 1), date(2026, 2, 28), date(2149, 6, 6)])
def test_a_date_is_kept_beside_everything_else(day: date) -> None:
    plain = made(3, 7, "/dns/seed.example.org/tcp/7946")
    token = replace(plain, network=replace(plain.network, expires=day))
    text = encode_token(token)
    assert decode_token(text) == token
    assert len(text) - len(encode_token(plain)) in {3, 4}


def test_a_join_token_has_its_own_date_and_not_that_of_the_token_it_is_made_from() -> None:
    token = made()
    dated = replace(token, network=replace(token.network, expires=date(2026, 1, 1)))
    assert join_token(dated).network.expires is None
    assert join_token(token, date(2027, 1, 1)).network.expires == date(2027, 1, 1)


@pytest.mark.parametrize("size", [2, 4, 6])
def test_an_even_control_plane_is_refused_with_the_reason(size: int) -> None:
    with pytest.raises(ConfigError, match=f"survives no more losses than one of {size - 1}"):
        made(size)


@pytest.mark.parametrize("size", [0, -1, 8, 9])
def test_a_control_plane_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        made(size)


def test_a_control_plane_of_one_needs_the_number_of_machines() -> None:
    with pytest.raises(ConfigError, match="needs the number of machines"):
        made(1)
    token = made(1, 1)
    assert token.bounds == Bounds(bound="bounded", nodes_max=1, quorum=1, control_plane=1)
    assert made(1, 4).bounds == Bounds(bound="bounded", nodes_max=4, quorum=3, control_plane=1)


def test_more_machines_than_a_decision_has_room_for_are_refused() -> None:
    largest = made(3, 399).bounds
    assert largest is not None
    assert largest.quorum == VOTES_MAX
    with pytest.raises(ConfigError, match="400 machines that may vote are too many") as caught:
        made(3, 400)
    assert caught.value.code == "MESH-1017"
    assert "399" in caught.value.fix


def test_fewer_machines_than_control_plane_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 machines do not fit a control plane of 3"):
        made(3, 2)


@pytest.mark.parametrize(
    ("seed", "why"),
    [
        ("10.0.0.1:7946", "not of the form"),
        ("/ip4/10.0.0.999/tcp/7946", "not an address of kind ip4"),
        ("/ip4/10.0.0.1/udp/7946", "not of the form"),
        ("/ip4/10.0.0.1/tcp/70000", "not a TCP port"),
        ("/ip4/10.0.0.1/tcp/0", "port 0"),
        ("/dns/-bad-/tcp/1", "not a host name"),
        ("/ip4/10.0.0.1/tcp/7946/p2p/xyz", "not an Ed25519 peer id"),
    ],
)
def test_a_seed_that_is_no_address_is_refused(seed: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        made(3, None, seed)


def test_more_seeds_than_the_checksum_protects_are_refused() -> None:
    with pytest.raises(ConfigError, match="longer than its checksum protects"):
        made(3, None, *(f"/ip6/2001:db8::{n:x}/tcp/7946/p2p/{PEER}" for n in range(12)))


def test_a_typing_error_is_refused_with_its_place() -> None:
    text = encode_token(made())
    wrong = "q" if text[40] != "q" else "p"
    error = refusal(text[:40] + wrong + text[41:])
    assert error.code == "MESH-1002"
    assert error.exit_code == 6
    assert error.what == (
        f"the token is mistyped at character 41 ({wrong!r}): probably meant to be {text[40]!r}"
    )


def test_a_mistyped_beginning_is_recognised() -> None:
    assert refusal("meshdl" + encode_token(made())[6:]).what == (
        "the token is mistyped in its first characters: it must begin with meshd1"
    )


@pytest.mark.parametrize("text", ["", "hello", "aGVsbG8=", "e30=", "ä"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refusal(text).code == "MESH-1003"


def test_a_token_of_a_later_version_asks_for_an_update() -> None:
    error = refusal(encode("meshd", bytes([3]) + bytes(50)))
    assert error.code == "MESH-1012"
    assert "version 3" in error.what
    assert "update meshd" in error.fix


@pytest.mark.parametrize(
    "content",
    [
        bytes([1]),
        bytes([1, 64]) + bytes(44),
        bytes([1]) + bytes(39) + bytes([9, 3, 0, 5, 0, 3]),
        bytes([1]) + bytes(39) + bytes([0, 3, 0, 9, 0, 3]),  # 9 voters, 3 agree: two clusters.
        bytes([1]) + bytes(39) + bytes([0, 0, 0, 5, 0, 3]),
        bytes([1]) + bytes(39) + bytes([0, 3, 0, 5, 0, 6]),
        bytes([1]) + bytes(39) + bytes([0, 3, 0, 5, 0, 3]) + bytes([0, 10, 0]),
        bytes([1]) + bytes(39) + bytes([0, 3, 0, 5, 0, 3]) + bytes([77]),
        bytes([1]) + bytes(39) + bytes([0, 3, 0, 5, 0, 3]) + bytes([2, 255]),
        bytes([2]) + bytes(39) + bytes([0, 3, 0, 5, 0, 3]),
        bytes([2]) + bytes(39) + bytes([0, 3, 0, 5, 0, 3]) + bytes([77]),
    ],
)
def test_a_well_coded_token_that_makes_no_sense_is_refused(content: bytes) -> None:
    assert refusal(encode("meshd", content)).code in {"MESH-1012", "MESH-1015"}


def test_every_content_is_read_or_refused_and_nothing_else() -> None:
    rng = random.Random(11)
    for _ in range(2000):
        size = rng.randrange(1, 90)
        content = bytes([rng.choice((1, 2)), rng.randrange(64)]) + rng.randbytes(size)
        try:
            token = decode_token(encode("meshd", content))
        except ConfigError:
            continue
        assert decode_token(encode_token(token)) == token


def test_derived_keys_are_those_of_rfc_5869() -> None:
    """RFC 5869 with one block: T(1) = HMAC(HMAC(zeros, secret), info || 1)."""
    extracted = hmac.digest(bytes(32), b"secret", "sha256")
    expected = hmac.digest(extracted, b"meshd net v1" + b"\x01", "sha256")
    assert derive(b"secret", "meshd net v1") == expected
    assert derive(b"secret", "meshd net v2") != expected
