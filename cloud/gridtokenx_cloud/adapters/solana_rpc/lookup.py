"""The instructions of the address lookup table program, and tables as bytes. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from solders.address_lookup_table_account import ID as _PROGRAM
from solders.address_lookup_table_account import (
    AddressLookupTable,
    AddressLookupTableAccount,
    derive_lookup_table_address,
)
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

LOOKUP = _PROGRAM
CREATE, EXTEND, DEACTIVATE, CLOSE = 0, 2, 3, 4
EXTENSIONS_PER_TRANSACTION = 20
"""Addresses that one legacy transaction adds, beside the creation of their table."""
CREATABLE_SLOTS = 512
"""The program knows the hashes of so many slots; a table of an older one is never made."""
AUTHORITY_OFFSET = 22
"""Where the table's authority stands in its account."""

_NEVER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table as the finalized chain has it.

    Attributes:
        deactivated_at_slot: None while it is active.
    """

    address: Pubkey
    addresses: tuple[Pubkey, ...]
    deactivated_at_slot: int | None

    @property
    def account(self) -> AddressLookupTableAccount:
        """For compiling messages."""
        return AddressLookupTableAccount(self.address, list(self.addresses))


def read_table(address: Pubkey, data: bytes) -> Table:
    """Return a table of the bytes of its account."""
    table = AddressLookupTable.deserialize(data)
    slot = table.meta.deactivation_slot
    return Table(address, tuple(table.addresses), None if slot == _NEVER else slot)


def table_address(authority: Pubkey, slot: int) -> Pubkey:
    """Return the address of the one table that *authority* may make of a slot."""
    return derive_lookup_table_address(authority, slot)[0]


def create_table(authority: Pubkey, slot: int) -> Instruction:
    """Return the creation of a table; the authority pays for it."""
    address, bump = derive_lookup_table_address(authority, slot)
    data = CREATE.to_bytes(4, "little") + slot.to_bytes(8, "little") + bytes([bump])
    return Instruction(LOOKUP, data, [_writable(address), *_paying(authority)])


def extend_table(authority: Pubkey, table: Pubkey, added: Sequence[Pubkey]) -> Instruction:
    """Return an addition to a table; the authority pays the rent."""
    data = EXTEND.to_bytes(4, "little") + len(added).to_bytes(8, "little")
    data += b"".join(bytes(address) for address in added)
    return Instruction(LOOKUP, data, [_writable(table), *_paying(authority)])


def deactivate_table(authority: Pubkey, table: Pubkey) -> Instruction:
    """Return the end of a table's use; it can be closed 513 slots later."""
    signer = AccountMeta(authority, is_signer=True, is_writable=False)
    return Instruction(LOOKUP, DEACTIVATE.to_bytes(4, "little"), [_writable(table), signer])


def close_table(authority: Pubkey, table: Pubkey) -> Instruction:
    """Return the closing of a table; its rent goes back to the authority."""
    signer = AccountMeta(authority, is_signer=True, is_writable=False)
    accounts = [_writable(table), signer, _writable(authority)]
    return Instruction(LOOKUP, CLOSE.to_bytes(4, "little"), accounts)


def _writable(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=True)


def _paying(authority: Pubkey) -> list[AccountMeta]:
    return [
        AccountMeta(authority, is_signer=True, is_writable=False),
        AccountMeta(authority, is_signer=True, is_writable=True),
        AccountMeta(SYSTEM, is_signer=False, is_writable=False),
    ]
