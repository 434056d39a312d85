"""Durable nonces: the rules that the runtime outside the System Program enforces."""

import hashlib

from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM

from gridtokenx_cloud.adapters.localnet.packet import Incoming, ReadAccount

# Layout of an initialised nonce account: version u32, state u32, authority, nonce, fee u64.
_LENGTH = 80
_NONCE = slice(40, 72)


def nonce_account(incoming: Incoming, read_account: ReadAccount) -> Pubkey | None:
    """Return the nonce account this transaction may use instead of a recent blockhash."""
    if not incoming.tx.uses_durable_nonce():
        return None
    message = incoming.tx.message
    address = message.account_keys[message.instructions[0].accounts[0]]
    account = read_account(address)
    if account is None or account.owner != SYSTEM_PROGRAM or len(account.data) != _LENGTH:
        return None
    return address if account.data[_NONCE] == bytes(message.recent_blockhash) else None


def advanced(account: Account, blockhash: Hash) -> Account:
    """Return the nonce account as any transaction that used it leaves it, even a failed one."""
    if len(account.data) != _LENGTH:
        return account
    value = hashlib.sha256(b"DURABLE_NONCE" + bytes(blockhash)).digest()
    data = account.data[: _NONCE.start] + value + account.data[_NONCE.stop :]
    return Account(account.lamports, data, account.owner, account.executable, account.rent_epoch)
