"""Ed25519 as Solana checks it; unlike OpenSSL it refuses keys of small order."""

from solders.pubkey import Pubkey
from solders.signature import Signature

_SIGN_BIT = 1 << 255
_P = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8})
"""Every y of a point of order 1, 2, 4 or 8, in all spellings; anyone can sign for these."""


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether *signature* holds; the gateways' `Verify` at the cloud."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    return Signature.from_bytes(signature).verify(Pubkey.from_bytes(public_key), message)


def is_signing_key(key: bytes) -> bool:
    """Return whether *key* is a public key that only its owner can sign for."""
    y = int.from_bytes(key, "little") % _SIGN_BIT
    return y not in _SMALL_ORDER and is_on_curve(key)


def is_on_curve(key: bytes) -> bool:
    """Return whether 32 bytes are a point of the curve; a program's address never is."""
    return len(key) == 32 and Pubkey.from_bytes(key).is_on_curve()
