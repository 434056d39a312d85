"""A key in the memory of this process."""

from typing import NoReturn

from solders.keypair import Keypair


class LocalSigner:
    """`KeySigner` over a key in memory; printed, it shows its address and nothing else.

    The bare `Keypair` stays in here: its text is the secret, and a name bound to it in any frame
    would be in that frame's traceback.
    """

    __slots__ = ("_pair", "address")

    def __init__(self, pair: Keypair) -> None:
        self._pair = pair
        self.address = str(pair.pubkey())

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is never copied or pickled")

    def sign_now(self, message: bytes) -> bytes:
        """Return the signature; some 20 microseconds, so nothing has to wait for it."""
        return bytes(self._pair.sign_message(message))

    async def sign(self, message: bytes) -> bytes:
        """See `KeySigner.sign`."""
        return self.sign_now(message)

    def expose(self) -> bytes:
        """Return seed and public key, 64 bytes, for writing them to a file."""
        return bytes(self._pair)
