"""Base58 with the Bitcoin alphabet, for 32-byte keys; the agent must not load a Solana wheel."""

from functools import lru_cache

from gridtokenx_wire.errors import MalformedLineError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INDEX = {character: value for value, character in enumerate(_ALPHABET)}


def encode_key(key: bytes) -> str:
    """Return the base58 text of a 32-byte public key (32 to 44 characters)."""
    number = int.from_bytes(key, "big")
    digits: list[str] = []
    while number:
        number, remainder = divmod(number, 58)
        digits.append(_ALPHABET[remainder])
    leading_zeros = len(key) - len(key.lstrip(b"\x00"))
    return "1" * leading_zeros + "".join(reversed(digits))


# Every line names the same token and few gateways; decoding costs a sixth of a signature check.
@lru_cache(maxsize=1024)
def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a base58 key.

    Raises:
        MalformedLineError: Not base58, or not exactly 32 bytes in its shortest spelling.
    """
    number = 0
    if not 32 <= len(text) <= 44:
        raise MalformedLineError(f"{text[:60]!r} is no 32-byte base58 key: wrong length")
    for character in text:
        value = _INDEX.get(character)
        if value is None:
            raise MalformedLineError(f"{text!r} is no base58 key: {character!r} is not base58")
        number = number * 58 + value
    if number >> 256:
        raise MalformedLineError(f"{text!r} is no 32-byte base58 key: too large")
    key = number.to_bytes(32, "big")
    if encode_key(key) != text:
        raise MalformedLineError(f"{text!r} is no 32-byte base58 key: wrong length")
    return key
