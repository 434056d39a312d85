"""The chain on disk: one SQLite transaction per block, written before anyone can see the block."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey

from gridtokenx_cloud.errors import ConfigError

KEPT_BLOCKS = 512

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    height INTEGER PRIMARY KEY, slot INTEGER NOT NULL, hash BLOB NOT NULL, unix_s INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS account (address BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tx (
    seq INTEGER PRIMARY KEY, signature TEXT NOT NULL UNIQUE, message_hash BLOB NOT NULL UNIQUE,
    height INTEGER NOT NULL, slot INTEGER NOT NULL, unix_s INTEGER NOT NULL,
    version INTEGER, raw BLOB NOT NULL, meta TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tx_address (
    address BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (address, seq)
) WITHOUT ROWID;
"""
_TX = "SELECT signature, message_hash, height, slot, unix_s, version, raw, meta FROM tx "


@dataclass(frozen=True, slots=True)
class Block:
    """A block; *height* counts blocks, *slot* also counts those that a fork lost."""

    height: int
    slot: int
    hash: Hash
    unix_s: int


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction in a block, successful or not."""

    signature: str
    message_hash: bytes
    height: int
    slot: int
    unix_s: int
    version: int | None
    raw: bytes
    meta: dict[str, Any]
    """As `getTransaction` shows it."""

    @property
    def err(self) -> Any:
        """The error as JSON-RPC shows it, None when it succeeded."""
        return self.meta["err"]


class ChainStore:
    """Accounts, recent blocks and the whole history; in memory without a path."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._db = _open(path)
        except sqlite3.Error as exc:
            fault = f"state file {path} cannot be used ({exc}): stop its localnet or name another"
            raise ConfigError((fault,)) from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def snapshot(self, path: Path) -> None:
        """Write everything, as it is at this moment, to a file that does not exist yet."""
        self._db.execute("VACUUM INTO ?", (str(path),))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def meta(self, name: str) -> bytes | None:
        """Return a constant of this chain."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def found(
        self, block: Block, constants: Mapping[str, bytes], accounts: Mapping[Pubkey, Account]
    ) -> None:
        """Write the first block of a new chain."""
        with self._transaction():
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", constants.items())
            self._put_accounts(accounts)
            self._put_block(block)

    def append(
        self, block: Block, accounts: Mapping[Pubkey, Account | None], landed: Sequence[Landed]
    ) -> None:
        """Write a block with the accounts it changed (None = gone) and its transactions."""
        with self._transaction():
            self._put_block(block)
            self._put_accounts(accounts)
            for transaction in landed:
                self._put_transaction(transaction)
            self._db.execute("DELETE FROM block WHERE height <= ?", (block.height - KEPT_BLOCKS,))

    def drop(self, tip: Block, next_slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """Forget every block after *tip* and put the accounts back."""
        with self._transaction():
            self._db.execute("DELETE FROM block WHERE height > ?", (tip.height,))
            self._db.execute(
                "DELETE FROM tx_address WHERE seq IN (SELECT seq FROM tx WHERE height > ?)",
                (tip.height,),
            )
            self._db.execute("DELETE FROM tx WHERE height > ?", (tip.height,))
            self._db.execute("REPLACE INTO meta VALUES ('next_slot', ?)", (b"%d" % next_slot,))
            self._put_accounts(accounts)

    def _put_block(self, block: Block) -> None:
        row = (block.height, block.slot, bytes(block.hash), block.unix_s)
        self._db.execute("INSERT INTO block VALUES (?, ?, ?, ?)", row)

    def _put_accounts(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        rows = [(bytes(k), None if a is None else bytes(a)) for k, a in accounts.items()]
        self._db.executemany("REPLACE INTO account VALUES (?, ?)", rows)

    def _put_transaction(self, landed: Landed) -> None:
        cursor = self._db.execute(
            "INSERT INTO tx (signature, message_hash, height, slot, unix_s, version, raw, meta) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                landed.signature,
                landed.message_hash,
                landed.height,
                landed.slot,
                landed.unix_s,
                landed.version,
                landed.raw,
                json.dumps(landed.meta),
            ),
        )
        addresses = {bytes(Pubkey.from_string(key)) for key in landed.meta["accounts"]}
        rows = [(address, cursor.lastrowid) for address in addresses]
        self._db.executemany("INSERT INTO tx_address VALUES (?, ?)", rows)

    def blocks(self) -> list[Block]:
        """Return the kept blocks, oldest first."""
        rows = self._db.execute("SELECT height, slot, hash, unix_s FROM block ORDER BY height")
        return [Block(height, slot, Hash(raw), unix_s) for height, slot, raw, unix_s in rows]

    def accounts(self) -> dict[Pubkey, Account | None]:
        """Return every account that the chain ever changed; None where it is gone."""
        rows = self._db.execute("SELECT address, body FROM account")
        return {Pubkey(k): None if body is None else Account.from_bytes(body) for k, body in rows}

    def by_signature(self, signature: str) -> Landed | None:
        """Return the landed transaction with this first signature."""
        row = self._db.execute(_TX + "WHERE signature = ?", (signature,)).fetchone()
        return None if row is None else _landed(row)

    def by_message(self, message_hash: bytes) -> Landed | None:
        """Return the landed transaction with this message, whatever its signature."""
        row = self._db.execute(_TX + "WHERE message_hash = ?", (message_hash,)).fetchone()
        return None if row is None else _landed(row)

    def by_address(
        self, address: Pubkey, max_slot: int, before: str | None, until: str | None, limit: int
    ) -> list[Landed]:
        """Return transactions that name *address*, newest first, both bounds excluded."""
        bound = "(SELECT seq FROM tx WHERE signature = ?)"
        rows = self._db.execute(
            _TX + "WHERE seq IN (SELECT seq FROM tx_address WHERE address = ?) AND slot <= ? "  # noqa: S608 - constants
            f"AND (? IS NULL OR seq < {bound}) AND seq > coalesce({bound}, 0) "
            "ORDER BY seq DESC LIMIT ?",
            (bytes(address), max_slot, before, before, until, limit),
        )
        return [_landed(row) for row in rows]


def _open(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None)
    try:
        # A second localnet on the same file must fail at once, not take turns.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        # Enough to survive the death of the process; a power cut may cost the last blocks.
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _landed(row: tuple[Any, ...]) -> Landed:
    signature, message_hash, height, slot, unix_s, version, raw, meta = row
    return Landed(signature, message_hash, height, slot, unix_s, version, raw, json.loads(meta))
