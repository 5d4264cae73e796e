"""The token's code: what it promises about damage, tried on every kind of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config.checksum import ALPHABET, Mistake, decode, encode, polymod

CONTENT = bytes(range(46))
TEXT = encode("meshd", CONTENT)
BODY = range(len("meshd1"), len(TEXT))


def test_the_code_is_the_published_one() -> None:
    """BIP-93, test vector 5: a long codex32 string."""
    vector = (
        "100c8vsm32zxfguhpchtlupzry9x8gf2tvdw0s3jn54khce6mua7lqpzygsfjd6an074rxvcemlh8wu3tk925acdefgh"
        "jklmnpqrstuvwxy06fhpv80undvarhrak"
    )
    values = [ALPHABET.index(character) for character in vector[1:]]
    assert polymod(values, 0x23181B3) == 0x43381E570BF4798AB26


@given(st.binary(min_size=1, max_size=600))
def test_what_was_encoded_is_decoded(content: bytes) -> None:
    text = encode("meshd", content)
    assert decode("meshd", text) == content
    assert decode("meshd", text.upper()) == content


def test_more_than_the_code_protects_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        encode("meshd", bytes(1000))


@pytest.mark.parametrize("index", BODY)
def test_any_single_wrong_character_is_found_and_the_right_one_named(index: int) -> None:
    for wrong in ALPHABET:
        if wrong != TEXT[index]:
            found = decode("meshd", TEXT[:index] + wrong + TEXT[index + 1 :])
            assert found == Mistake(place=index + 1, what=f"probably meant to be {TEXT[index]!r}")


@pytest.mark.parametrize("strange", ["b", "i", "o", "1", "-", "é", " "])
def test_a_character_that_no_token_has_is_found(strange: str) -> None:
    for index in BODY:
        found = decode("meshd", TEXT[:index] + strange + TEXT[index + 1 :])
        assert found == Mistake(place=index + 1, what=f"probably meant to be {TEXT[index]!r}")


@pytest.mark.parametrize("index", BODY[:-1])
def test_neighbours_that_were_swapped_are_found(index: int) -> None:
    swapped = TEXT[:index] + TEXT[index + 1] + TEXT[index] + TEXT[index + 2 :]
    found = decode("meshd", swapped)
    if TEXT[index] == TEXT[index + 1]:
        assert found == CONTENT
    else:
        assert found == Mistake(place=index + 1, what="this character and the next are swapped")


@pytest.mark.parametrize("index", BODY)
def test_a_missing_character_is_noticed_where_it_is_missing(index: int) -> None:
    found = decode("meshd", TEXT[:index] + TEXT[index + 1 :])
    # In a run of equal characters any of them may be the missing one.
    first = index
    while TEXT[first - 1] == TEXT[index] and first > BODY.start:
        first -= 1
    assert found == Mistake(place=first + 1, what="a character is missing here")


@pytest.mark.parametrize("index", BODY)
def test_a_character_too_many_is_found(index: int) -> None:
    extra = "q" if TEXT[index] != "q" else "p"
    damaged = TEXT[:index] + extra + TEXT[index:]
    found = decode("meshd", damaged)
    assert isinstance(found, Mistake)
    assert found.what == "this character is one too many"
    assert damaged[: found.place - 1] + damaged[found.place :] == TEXT


@pytest.mark.parametrize("size", [46, 200, 600])
def test_up_to_eight_wrong_characters_never_pass(size: int) -> None:
    rng = random.Random(size)
    for turn in range(200):
        text = list(encode("meshd", rng.randbytes(size)))
        for index in rng.sample(range(len("meshd1"), len(text)), 2 + turn % 7):
            text[index] = rng.choice([wrong for wrong in ALPHABET if wrong != text[index]])
        assert isinstance(decode("meshd", "".join(text)), Mistake)


def test_a_text_for_another_prefix_does_not_pass() -> None:
    assert isinstance(decode("other", encode("meshd", CONTENT).replace("meshd", "other")), Mistake)


def test_a_truncated_text_is_an_end_too_early() -> None:
    assert decode("meshd", "meshd1qqq") == Mistake(place=9, what="the text ends too early")
