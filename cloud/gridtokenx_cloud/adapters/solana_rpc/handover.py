"""One mint authority hands a token over to the next: the instructions, both ways. No I/O.

Beside the handover the same transaction makes an account whose address follows from the next
authority, which signs too. So the next one shows that it can sign before anything depends on it,
and whoever knows the present authority finds its handover, and with it the former authority, from
the chain alone.
"""

from collections.abc import Mapping, Sequence

from solders.instruction import AccountMeta, Instruction
from solders.message import from_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountWithSeedParams, create_account_with_seed
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.solana_rpc.transactions import COMPUTE_BUDGET, AnyMessage, Token
from gridtokenx_cloud.errors import SigningKeyError
from gridtokenx_cloud.ports.keys import KeySigner

_SET_AUTHORITY, _MINT_TOKENS, _SOME = 6, 0, 1
_SEED_CHARACTERS = 32
_NO_TABLES: Mapping[str, Sequence[str]] = {}


def handover_seed(mint: Pubkey) -> str:
    """Return the seed of the account that a handover of *mint* makes."""
    return str(mint)[:_SEED_CHARACTERS]


def handover_account(mint: Pubkey, next_authority: Pubkey) -> Pubkey:
    """Return the account whose history begins with the handover to *next_authority*."""
    return Pubkey.create_with_seed(next_authority, handover_seed(mint), SYSTEM)


def handover_instructions(
    token: Token, next_authority: Pubkey, rent_lamports: int
) -> list[Instruction]:
    """Return the handover of a token by its present authority."""
    made = create_account_with_seed(
        CreateAccountWithSeedParams(
            from_pubkey=token.payer,
            to_pubkey=handover_account(token.mint, next_authority),
            base=next_authority,
            seed=handover_seed(token.mint),
            lamports=rent_lamports,
            space=0,
            owner=SYSTEM,
        )
    )
    accounts = [
        AccountMeta(token.mint, is_signer=False, is_writable=True),
        AccountMeta(token.authority, is_signer=True, is_writable=False),
    ]
    handed = bytes([_SET_AUTHORITY, _MINT_TOKENS, _SOME]) + bytes(next_authority)
    return [made, Instruction(token.program, handed, accounts)]


def former_authority(raw: bytes, token: Token, next_authority: Pubkey) -> Pubkey | None:
    """Return who handed a token over to *next_authority* in a landed transaction; None = nobody."""
    message = VersionedTransaction.from_bytes(raw).message
    keys = message.account_keys
    handed = bytes([_SET_AUTHORITY, _MINT_TOKENS, _SOME]) + bytes(next_authority)
    for compiled in message.instructions:
        accounts = bytes(compiled.accounts)
        if bytes(compiled.data) != handed or len(accounts) != 2 or max(accounts) >= len(keys):
            continue
        # That program asks for the authority's signature; a stranger's may look the same.
        if keys[compiled.program_id_index] == token.program and keys[accounts[0]] == token.mint:
            return keys[accounts[1]]
    return None


class HandoverSigner:
    """Signs one handover and nothing else; for the payer and both authorities.

    Args:
        key: Signs.
        allowed: The instructions; limit and price of the transaction may stand beside them.
    """

    def __init__(self, key: KeySigner, allowed: Sequence[Instruction]) -> None:
        self._key = key
        self._allowed = list(allowed)

    def __repr__(self) -> str:
        return f"HandoverSigner({self.address})"

    @property
    def address(self) -> str:
        """Base58 public key."""
        return self._key.address

    async def sign(self, message: bytes, tables: Mapping[str, Sequence[str]] = _NO_TABLES) -> bytes:
        """See `sending.Signer.sign`."""
        del tables
        wanted = [(one.program_id, bytes(one.data), _named(one)) for one in self._allowed]
        if _meant(from_bytes_versioned(message)) != wanted:
            raise SigningKeyError(f"the signer {self.address} refuses all but the one handover")
        return await self._key.sign(message)


def _named(instruction: Instruction) -> list[Pubkey]:
    return [account.pubkey for account in instruction.accounts]


def _meant(message: AnyMessage) -> list[tuple[Pubkey, bytes, list[Pubkey]]]:
    keys = message.account_keys
    return [
        (keys[one.program_id_index], bytes(one.data), [keys[n] for n in bytes(one.accounts)])
        for one in message.instructions
        if keys[one.program_id_index] != COMPUTE_BUDGET
    ]
