"""The codec: canonical, complete, and the only door through which foreign entries come in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import BadEntry, Entry, decode_entry, encode_entry, sign_entry
from ledger._entry import KEY_MAX_BYTES, VALUE_MAX_BYTES
from tests.ledger.world import NETWORK, entry_of, signer_of

keys = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)
entries = st.builds(
    lambda author, key, seq, stamp_ms, value: sign_entry(
        signer_of(author), network=NETWORK, key=key, seq=seq, stamp_ms=stamp_ms, value=value
    ),
    st.integers(1, 3),
    keys,
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.none() | st.binary(max_size=300),
)


def fields_of(entry: Entry) -> list[object]:
    fields = msgspec.msgpack.decode(encode_entry(entry))
    assert isinstance(fields, list)
    return fields


@given(entries)
def test_decoding_is_the_inverse_of_encoding(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry), NETWORK) == entry


@given(entries, st.data())
def test_no_byte_can_be_changed(entry: Entry, data: st.DataObject) -> None:
    encoded = bytearray(encode_entry(entry))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadEntry):
        decode_entry(bytes(encoded), NETWORK)


@given(entries, st.binary(min_size=1, max_size=8))
def test_nothing_can_be_appended_or_cut_off(entry: Entry, more: bytes) -> None:
    encoded = encode_entry(entry)
    for changed in (encoded + more, encoded[: -len(more)]):
        with pytest.raises(BadEntry):
            decode_entry(changed, NETWORK)


@given(st.binary(max_size=400))
def test_random_bytes_are_a_bad_entry_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(BadEntry):
        decode_entry(noise, NETWORK)


def test_there_is_one_encoding_only() -> None:
    """The same fields with a longer form of an integer verify, but are refused."""
    encoded = encode_entry(entry_of(1, seq=7))
    key_end = encoded.index(b"/facts") + len(b"/facts")
    assert encoded[key_end] == 7
    longer = encoded[:key_end] + b"\xcc\x07" + encoded[key_end + 1 :]
    assert msgspec.msgpack.decode(longer) == msgspec.msgpack.decode(encoded)
    with pytest.raises(BadEntry, match="canonical"):
        decode_entry(longer, NETWORK)


def test_an_entry_of_another_network_is_refused() -> None:
    with pytest.raises(BadEntry, match="network"):
        decode_entry(encode_entry(entry_of(1)), "elm-00000000")


def test_an_author_cannot_be_exchanged() -> None:
    fields = fields_of(entry_of(1))
    fields[1] = signer_of(2).public_key
    with pytest.raises(BadEntry, match="signature"):
        decode_entry(msgspec.msgpack.encode(fields), NETWORK)


@pytest.mark.parametrize(
    ("position", "wrong"),
    [
        (1, b"\x01" * 31),
        (2, ""),
        (2, "a" * (KEY_MAX_BYTES + 1)),
        (2, "node/x/\n"),
        (2, "node/é"),
        (3, 0),
        (3, -1),
        (3, True),
        (3, 1.0),
        (3, 2**63),
        (4, -1),
        (4, 2**63),
        (5, "text"),
        (5, b"x" * (VALUE_MAX_BYTES + 1)),
        (6, b"\x01" * 63),
        (6, None),
    ],
)
def test_a_field_out_of_bounds_is_refused(position: int, wrong: object) -> None:
    fields = fields_of(entry_of(1))
    fields[position] = wrong
    with pytest.raises(BadEntry, match=r"^(?!.*signature is not)"):
        decode_entry(msgspec.msgpack.encode(fields), NETWORK)


def test_the_largest_value_passes_and_one_byte_more_does_not() -> None:
    largest = entry_of(1, value=b"x" * VALUE_MAX_BYTES)
    assert decode_entry(encode_entry(largest), NETWORK) == largest
    with pytest.raises(ValueError, match="65537 bytes"):
        entry_of(1, value=b"x" * (VALUE_MAX_BYTES + 1))


def test_a_signature_for_another_purpose_is_none_here() -> None:
    """The author signs the digest itself, without this ledger's prefix."""
    entry = entry_of(1)
    fields = fields_of(entry)
    fields[6] = signer_of(1).sign(entry.digest)
    with pytest.raises(BadEntry, match="signature"):
        decode_entry(msgspec.msgpack.encode(fields), NETWORK)


def test_a_clock_before_1970_still_signs() -> None:
    entry = sign_entry(signer_of(1), network=NETWORK, key="k", seq=1, stamp_ms=-5, value=None)
    assert decode_entry(encode_entry(entry), NETWORK).stamp_ms == 0
