"""A token's mint as its account shows it: the part both programs share, then extensions. No I/O."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from solders.pubkey import Pubkey
from solders.token.state import Mint

from gridtokenx_cloud.adapters.solana_rpc.accounts import Shown
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_2022, TOKEN_PROGRAMS
from gridtokenx_cloud.errors import ChainMismatchError

MINT_BYTES = 82
"""Of every mint; Token-2022 may add extensions, padded so that no mint can pass as an account."""
_TYPE_OFFSET, _IS_MINT = 165, 1
FIRST_EXTENSION = _TYPE_OFFSET + 1

DEFAULT_ACCOUNT_STATE, METADATA_POINTER, TOKEN_METADATA = 6, 18, 19
_HARMLESS = frozenset({METADATA_POINTER, TOKEN_METADATA, 20, 21, 22, 23})
"""Metadata, groups and membership in groups: they say something and move nothing."""
_OFF_WHEN_EMPTY = {
    3: "MintCloseAuthority: the mint could be closed and made anew with another supply",
    12: "PermanentDelegate: somebody can take or burn any holder's tokens",
    14: "TransferHook: a program of somebody else decides over every transfer",
}
"""Without an authority and a program they do nothing, and nobody can ever turn them on."""
_REFUSED = {
    1: "TransferFeeConfig: holders would receive less than was sent",
    4: "ConfidentialTransferMint: balances can be hidden, so no audit can add them up",
    9: "NonTransferable: tokens could not be traded",
    10: "InterestBearingConfig: wallets would show another amount than was metered",
    16: "ConfidentialTransferFeeConfig: holders would receive less than was sent",
    24: "ConfidentialMintBurn: the supply would be hidden from the audit",
    25: "ScaledUiAmount: wallets would show another amount than was metered",
    26: "Pausable: somebody can stop minting and every transfer",
    28: "PermissionedBurn: holders could not burn their tokens without somebody's leave",
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a Token-2022 mint says of itself; *update_authority* None = for ever."""

    name: str
    symbol: str
    uri: str
    update_authority: Pubkey | None


@dataclass(frozen=True, slots=True)
class MintAccount:
    """A token's mint."""

    program: Pubkey
    decimals: int
    authority: Pubkey | None
    freeze_authority: Pubkey | None
    supply: int
    extensions: Mapping[int, bytes]

    @property
    def metadata(self) -> Metadata | None:
        """Name, symbol and URI, where the mint itself carries them."""
        data = self.extensions.get(TOKEN_METADATA)
        return None if data is None else _metadata(data)

    def refusals(self) -> tuple[str, ...]:
        """Return why energy must not be minted with this token, one sentence each."""
        found = (_refusal(kind, data, self) for kind, data in self.extensions.items())
        return tuple(reason for reason in found if reason is not None)


def read_mint(address: Pubkey, account: Shown) -> MintAccount:
    """Return what an account says, as a node shows it.

    Raises:
        ChainMismatchError: It is no mint of a token program.
    """
    if account is None:
        raise ChainMismatchError(f"the mint {address} does not exist on this cluster")
    if account["owner"] not in map(str, TOKEN_PROGRAMS.values()):
        raise ChainMismatchError(f"{address} belongs to {account['owner']}, to no token program")
    data = base64.b64decode(account["data"][0])
    if len(data) != MINT_BYTES and data[_TYPE_OFFSET : _TYPE_OFFSET + 1] != bytes([_IS_MINT]):
        raise ChainMismatchError(f"{address} is an account of a token, and no mint")
    try:
        mint = Mint.from_bytes(data[:MINT_BYTES])
    except ValueError as exc:
        raise ChainMismatchError(f"the mint {address} is not initialized") from exc
    return MintAccount(
        program=Pubkey.from_string(account["owner"]),
        decimals=mint.decimals,
        authority=mint.mint_authority,
        freeze_authority=mint.freeze_authority,
        supply=mint.supply,
        extensions=_extensions(data[FIRST_EXTENSION:]),
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    """Return type -> content of a list of (u16 type, u16 length, content); type 0 ends it."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        if kind == 0:
            break
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _refusal(kind: int, data: bytes, mint: MintAccount) -> str | None:
    if kind in _HARMLESS:
        return None
    if kind in _OFF_WHEN_EMPTY:
        return _OFF_WHEN_EMPTY[kind] if any(data) else None
    if kind == DEFAULT_ACCOUNT_STATE:
        # With a freeze authority the default can be changed to frozen at any time.
        open_for_ever = data[:1] == b"\x01" and mint.freeze_authority is None
        return None if open_for_ever else "DefaultAccountState: new accounts are, or become, frozen"
    return _REFUSED.get(kind, f"extension {kind}: unknown to this version, so nothing is promised")


def _metadata(data: bytes) -> Metadata:
    authority = Pubkey.from_bytes(data[:32])
    texts: list[str] = []
    at = 64
    for _ in range(3):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    name, symbol, uri = texts
    return Metadata(name, symbol, uri, None if authority == Pubkey.default() else authority)


def token_account_bytes(program: Pubkey) -> int:
    """Return the size of an associated token account; Token-2022 notes that its owner is fixed."""
    return 170 if program == TOKEN_2022 else 165
