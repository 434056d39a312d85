"""Minting with signers that are slow, gone for a while, wrong or refuse: late, never twice."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import (
    LocalSigner,
    PolicySigner,
    SignerPolicy,
    open_signer,
)
from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.readback import read_transaction
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.key_journal import SqlKeyJournal
from gridtokenx_cloud.errors import SignerUnavailableError
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.ports.keys import KeySigner, RemoteKey
from gridtokenx_cloud.settle import MeterPollingService, MintingHaltedError
from tests.support.fake_vault import fake_vault
from tests.support.memory_tables import MemoryTables
from tests.support.mint_world import AUTHORITY, PAYER, Minter, World, minter, new_world, wallet


class RemoteSigner:
    """A key whose service does what the test says, once for each signature."""

    def __init__(self, pair: Keypair, before: Callable[[int], object] = lambda _n: None) -> None:
        self._key = LocalSigner(pair)
        self._before = before
        self.asked = 0
        self.address = self._key.address

    async def sign(self, message: bytes) -> bytes:
        self.asked += 1
        found = self._before(self.asked)
        if isinstance(found, asyncio.Event):
            await found.wait()
        return self._key.sign_now(message)


def gone(times: int) -> Callable[[int], None]:
    """Return a service that does not answer the first so many times."""

    def before(asked: int) -> None:
        if asked <= times:
            raise SignerUnavailableError("vault key mint did not sign: HTTP request failed")

    return before


def service(
    one: Minter, authority: KeySigner, payer: KeySigner, per_day: int = 10**15
) -> MeterPollingService:
    """Return the service with these keys in place of the world's."""
    world = one.world
    token = world.token
    policy = SignerPolicy(str(token.mint), str(token.program), payer.address, 10**13, per_day)
    journal = SqlKeyJournal(one.database, world.clock)
    signers = [
        PolicySigner(key, policy, world.clock.now_ms, on_refused=journal.refused(key.address))
        for key in (authority, payer)
    ]
    sender = Sender(world.failover, token, signers, world.clock, sleep=world.sleep)
    tables = LookupTables(sender, MemoryTables(), world.clock)
    form = TransactionFormat.LEGACY
    return MeterPollingService(
        one.store,
        SolanaMintChain(world.failover, sender, world.marks, form, tables, world.clock),
        world.history(),
        SolanaWallets(token),
        rules=lambda: one.rules,
        markers=world.marks,
        clock=world.clock,
        sleep=world.sleep,
    )


def record_sends(world: World, one: Minter) -> list[str]:
    """Return a list that fills with the signatures of mints that left without being on record."""
    unrecorded: list[str] = []
    call = world.rpc.call

    async def watched(method: str, *params: Any) -> Any:
        if method == "sendTransaction":
            raw = base64.b64decode(params[0])
            done = read_transaction(raw, world.token)
            known = one.database.connection.execute(
                "SELECT count(*) AS n FROM mint_attempts WHERE signature = ? AND raw = ?",
                (done.signature, raw),
            ).fetchone()["n"]
            if done.payments and not known:
                unrecorded.append(done.signature)
        return await call(method, *params)

    world.rpc.call = watched  # type: ignore[method-assign]
    return unrecorded


@pytest.mark.parametrize("role", ["authority", "payer"])
async def test_a_service_that_is_gone_for_a_while_only_makes_it_later(
    tmp_path: Path, role: str
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        one.credit(1, 500, 700)
        unrecorded = record_sends(world, one)
        flaky = gone(5)
        authority = RemoteSigner(AUTHORITY, flaky if role == "authority" else lambda _n: None)
        payer = RemoteSigner(PAYER, flaky if role == "payer" else lambda _n: None)

        left = await service(one, authority, payer).drain()
        report = await one.audit()

    assert (left.unminted, left.live_batches) == (0, 0)
    assert world.balance(wallet(1).pubkey()) == 1200 * 10**6
    assert report.ok
    assert unrecorded == []
    assert {"authority": authority, "payer": payer}[role].asked > 5


async def test_a_slow_signature_holds_up_its_own_batch_only(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        await _with_accounts(one, 2)
        ids = [one.credit(1, 500)[0], one.credit(2, 700)[0]]
        released = asyncio.Event()
        authority = RemoteSigner(AUTHORITY, lambda n: released if n == 1 else None)
        minting = service(one, authority, RemoteSigner(PAYER))
        minting.on_final = released.set

        first, second = (
            minting.process_batch([reading])
            for reading in minting.fetch_unminted_readings(10)
            if reading.reading_id in ids
        )
        await asyncio.gather(first, second)
        report = await one.audit()

    # The second one became final while the first one's signature was still waited for.
    assert report.ok
    assert world.supply() == (500 + 700 + 2) * 10**6


async def test_a_minting_key_in_a_vault_that_is_sealed_for_a_while_mints_each_credit_once(
    tmp_path: Path,
) -> None:
    world = await new_world()
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("hvs.token")
    async with fake_vault(AUTHORITY, "hvs.token") as vault:
        source = RemoteKey(
            "vault", str(AUTHORITY.pubkey()), "mint", url=vault.url, token_file=token
        )
        authority = open_signer(source, lambda: SecretStr(""), 30.0)
        with minter(world, tmp_path / "cloud.db") as one:
            one.credit(1, 500, 700)
            unrecorded = record_sends(world, one)
            vault.status = 503

            def unseal(method: str) -> None:
                vault.status = 200 if len(vault.paths) >= 3 else vault.status

            world.rpc.tap = unseal
            await service(one, authority, RemoteSigner(PAYER)).drain()
            report = await one.audit()

    assert report.ok
    assert world.supply() == 1200 * 10**6
    assert len(vault.paths) == 4
    assert unrecorded == []


async def _with_accounts(one: Minter, owners: int) -> None:
    for owner in range(1, owners + 1):
        one.credit(owner, 1)
    await one.service.drain()


async def test_a_service_that_signs_with_another_key_stops_the_minting(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        one.credit(1, 500)
        unrecorded = record_sends(world, one)
        wrong = RemoteSigner(Keypair.from_seed(b"x" * 32))
        wrong.address = str(AUTHORITY.pubkey())

        with pytest.raises(MintingHaltedError, match="does not verify"):
            await service(one, wrong, RemoteSigner(PAYER)).drain()

    assert world.supply() == 0
    assert unrecorded == []


async def test_what_a_signer_refuses_is_in_the_audit_log_once(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        one.credit(1, 500)
        capped = service(one, RemoteSigner(AUTHORITY), RemoteSigner(PAYER), per_day=10**8)

        with pytest.raises(MintingHaltedError, match="per day"):
            await capped.drain()
        rows = one.database.connection.execute(
            "SELECT subject, detail FROM audit_log WHERE action = 'signer_refused'"
        ).fetchall()
        signed = SqlKeyJournal(one.database, world.clock).signed_since(0)

    assert [row["subject"] for row in rows] == [f"key:{PAYER.pubkey()}"]
    assert "cap of 100000000 per day" in rows[0]["detail"]
    assert signed == {}


async def test_each_refusal_is_counted_and_each_reason_written_once_until_it_changes(
    tmp_path: Path,
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        journal = SqlKeyJournal(one.database, world.clock)
        refuse = journal.refused("ADDRESS")

        for reason in ("a", "a", "b", "a"):
            refuse(reason)
        rows = one.database.connection.execute(
            "SELECT detail FROM audit_log WHERE action = 'signer_refused' ORDER BY entry"
        ).fetchall()
        [figure] = journal.figures()

    assert [json.loads(row["detail"])["reason"] for row in rows] == ["a", "b", "a"]
    assert (figure.name, figure.value, figure.kind) == ("signer_refusals_total", 4, "counter")


async def test_the_daily_cap_is_read_from_what_was_signed(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as one:
        one.credit(1, 500)
        await one.service.drain()
        journal = SqlKeyJournal(one.database, world.clock)
        [marker] = one.database.connection.execute("SELECT marker FROM mint_batches").fetchone()

        since, later = journal.signed_since(0), journal.signed_since(world.clock.now_ms() + 1)

    assert since == {marker: 500 * 10**6}
    assert later == {}
