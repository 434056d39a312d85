"""Ed25519 over bytes as they are: cut the tail, check, and only then parse.

A signed text is `{...,"sig":"<86 characters of base64url>"}`. The signature covers a domain tag
and the bytes before `,"sig":` plus `}`, so no verifier has to re-create a canonical form.
"""

import base64
import binascii
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridtokenx_wire.errors import BadSignatureError, MalformedLineError

RECORD_DOMAIN = b"gridtokenx/v1\n"
RECEIPT_DOMAIN = b"gridtokenx/v1/receipt\n"
COMMAND_DOMAIN = b"gridtokenx/v1/command\n"
REPLY_DOMAIN = b"gridtokenx/v1/reply\n"

_MARK = b',"sig":"'
_SIGNATURE_CHARACTERS = 86
_TAIL_BYTES = len(_MARK) + _SIGNATURE_CHARACTERS + 2
_TO_BASE64 = bytes.maketrans(b"-_+/", b"+/!!")
"""The URL alphabet to the one `binascii` reads; what only that one has becomes no character."""
_LAST_CHARACTERS = (b"A", b"Q", b"g", b"w")
"""The last of 86 characters holds two bits of the 64 bytes; its other four are zero."""

Sign = Callable[[bytes], bytes]
"""Message -> 64-byte Ed25519 signature."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether it holds."""


def seal(body: bytes, domain: bytes, sign: Sign) -> bytes:
    """Append the signature to a canonical JSON object."""
    signature = base64.urlsafe_b64encode(sign(domain + body)).rstrip(b"=")
    return body[:-1] + _MARK + signature + b'"}'


def split(text: bytes) -> tuple[bytes, bytes]:
    """Return (canonical JSON object without signature, 64-byte signature).

    Raises:
        MalformedLineError: The tail is not exactly one signature in its shortest spelling.
    """
    tail = text[-_TAIL_BYTES:]
    if len(text) <= _TAIL_BYTES or not tail.startswith(_MARK) or not tail.endswith(b'"}'):
        raise MalformedLineError('does not end with ,"sig":"<86 characters>"}')
    encoded = tail[len(_MARK) : -2]
    try:
        signature = binascii.a2b_base64(encoded.translate(_TO_BASE64) + b"==", strict_mode=True)
    except binascii.Error as exc:
        raise MalformedLineError("the signature is not base64url") from exc
    if encoded[-1:] not in _LAST_CHARACTERS:
        raise MalformedLineError("the signature is not in its shortest spelling")
    return text[:-_TAIL_BYTES] + b"}", signature


def open_sealed(text: bytes, domain: bytes, public_key: bytes, verify: Verify) -> bytes:
    """Check the signature and return the canonical JSON object it covers.

    Raises:
        MalformedLineError: No signature at the end.
        BadSignatureError: The signature is not by *public_key* over these bytes.
    """
    body, signature = split(text)
    if not verify(public_key, domain + body, signature):
        raise BadSignatureError("the signature does not match these bytes and this key")
    return body


def signer(key: Ed25519PrivateKey) -> Sign:
    """Return the signing function of *key*."""
    return key.sign


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Verify with `cryptography`; for gateways, which must not load a Solana wheel.

    The cloud must use a verifier that refuses small-order keys instead (design: solders).
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
