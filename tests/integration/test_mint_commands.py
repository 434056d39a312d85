"""The commands about the token, and the service as it is started, over a real socket."""

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from spl.memo.constants import MEMO_PROGRAM_ID
from spl.token.constants import TOKEN_PROGRAM_ID
from spl.token.instructions import initialize_account
from spl.token.models import InitializeAccountParams

from gridtokenx_cloud.__main__ import run
from gridtokenx_cloud.adapters.keystore import write_keypair
from gridtokenx_cloud.adapters.solana_rpc.rpc import HttpRpc
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.errors import ChainMismatchError, ConfigError
from gridtokenx_cloud.mint_wiring import connected_minter
from gridtokenx_cloud.ports.mint import Landing
from gridtokenx_cloud.settings import load_settings
from gridtokenx_cloud.wallets import check_wallet
from gridtokenx_wire import base58
from gridtokenx_wire.encoding import encode_line
from gridtokenx_wire.record import FIRST_PREV, ClockQuality, SlotRecord, Stamp
from gridtokenx_wire.signing import signer
from tests.support.localnet import served_localnet, signed
from tests.support.mint_world import AUTHORITY, PAYER, add_credits
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

_NUMBER = itertools.count(1)
GATEWAY = Ed25519PrivateKey.from_private_bytes(b"g" * 32)


@pytest.fixture(scope="module")
def localnet() -> Iterator[str]:
    """A chain with a block every 10 ms."""
    with served_localnet(block_ms=10) as url:
        yield url


@pytest.fixture
def env_file(tmp_path: Path, localnet: str) -> Path:
    """Settings of a machine with its own keys and store."""
    write_keypair(tmp_path / "authority.json", AUTHORITY)
    write_keypair(tmp_path / "payer.json", PAYER)
    secret = tmp_path / "marker"
    secret.touch(mode=0o600)
    secret.write_text("0123456789abcdef0123456789abcdef")
    path = tmp_path / "cloud.env"
    path.write_text(
        "GTX_CLOUD_ENVIRONMENT=development\n"
        f"GTX_CLOUD_DATABASE_URL=sqlite:///{tmp_path}/cloud.db\n"
        f"GTX_CLOUD_SOLANA_RPC_URLS={localnet}\n"
        f"BLOCKCHAIN_MINT_AUTHORITY_KEY=file:{tmp_path}/authority.json\n"
        f"BLOCKCHAIN_FEE_PAYER_KEY=file:{tmp_path}/payer.json\n"
        f"BLOCKCHAIN_MARKER_SECRET=file:{secret}\n"
    )
    return path


def gtx(env_file: Path, *arguments: str) -> int:
    return run(["--env-file", str(env_file), *arguments])


@pytest.fixture
def token(env_file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A new token, written into the settings."""
    create = ("mint-account", "create", "--number", str(next(_NUMBER)), "--airdrop", "--json")
    assert gtx(env_file, *create) == 0
    made = json.loads(capsys.readouterr().out)
    with env_file.open("a") as file:
        file.write(f"BLOCKCHAIN_MINT_ADDRESS={made['mint_address']}\n")
        file.write(f"BLOCKCHAIN_GENESIS_HASH={made['genesis_hash']}\n")
    assert gtx(env_file, "migrate") == 0
    capsys.readouterr()
    return str(made["mint_address"])


def signed_lines(token: str, count: int) -> list[bytes]:
    stamps = [
        Stamp(
            meter_id="HOUSE-1",
            epoch="00000000000000e1",
            seq=seq,
            boot_id="0" * 32,
            mono_ms=seq,
            wall_ms=1_780_000_000_000 + seq,
            clock=ClockQuality.SYNCHRONISED,
        )
        for seq in range(1, count + 1)
    ]
    return [
        encode_line(
            SlotRecord(
                stamp=stamp,
                interval_s=900,
                import_wh=0,
                export_wh=1000 + stamp.seq,
                token=token,
                prev=FIRST_PREV,
            ),
            signer(GATEWAY),
        )
        for stamp in stamps
    ]


def mint_lines(env_file: Path, lines: list[bytes]) -> list[int]:
    """Store credits with these lines and mint them as the service does."""
    settings = load_settings(env_file=env_file, complete=False)
    database = open_database(settings.cloud.database_url)
    try:
        ids = add_credits(database, 1, tuple(range(1, len(lines) + 1)), 1_780_000_000_000)
        with database.transaction() as tx:
            for reading_id, line in zip(ids, lines, strict=True):
                tx.execute(
                    "UPDATE meter_readings SET line = ? WHERE reading_id = ?", (line, reading_id)
                )

        async def drain() -> None:
            async with connected_minter(settings, database, SystemClock()) as minter:
                await minter.service.drain()

        asyncio.run(drain())
    finally:
        database.close()
    return ids


def test_a_reading_is_minted_audited_and_proven_to_a_stranger(
    env_file: Path, token: str, localnet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = mint_lines(env_file, signed_lines(token, 5))

    assert gtx(env_file, "audit", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["sums"]["supply_base_units"] == "15000000"

    assert gtx(env_file, "proof", str(ids[2])) == 0
    proof = tmp_path / "proof.json"
    proof.write_text(capsys.readouterr().out)
    gateway = base58.encode_key(GATEWAY.public_key().public_bytes_raw())
    stranger = ("verify-proof", str(proof), "--rpc-url", localnet, "--gateway")
    assert run([*stranger, gateway]) == 0
    assert "proven: meter HOUSE-1 read 1003 Wh" in capsys.readouterr().out
    assert run([*stranger, gateway, "--json"]) == 0
    proven = json.loads(capsys.readouterr().out)
    assert (proven["ok"], proven["meter_id"], proven["export_wh"]) == (True, "HOUSE-1", 1003)
    assert proven["transaction"] == json.loads(proof.read_text())["transaction"]
    assert run([*stranger, token]) == 1
    assert "not signed by" in capsys.readouterr().err

    proof.write_text(proof.read_text().replace('"index": 2', '"index": 3'))
    assert run([*stranger, gateway]) == 1
    assert "not under the root" in capsys.readouterr().err


async def made_token_account(url: str, mint: str) -> tuple[str, str]:
    """Make a token account at an address of its own key; return it and its owner."""
    account, owner, rpc = Keypair(), Keypair().pubkey(), HttpRpc(url, 30)
    rent = await rpc.call("getMinimumBalanceForRentExemption", 165)
    recent = await rpc.call("getLatestBlockhash", {"commitment": "finalized"})
    instructions = (
        create_account(
            CreateAccountParams(
                from_pubkey=PAYER.pubkey(),
                to_pubkey=account.pubkey(),
                lamports=rent,
                space=165,
                owner=TOKEN_PROGRAM_ID,
            )
        ),
        initialize_account(
            InitializeAccountParams(
                program_id=TOKEN_PROGRAM_ID,
                account=account.pubkey(),
                mint=Pubkey.from_string(mint),
                owner=owner,
            )
        ),
    )
    blockhash = Hash.from_string(recent["value"]["blockhash"])
    sent = signed(blockhash, *instructions, payer=PAYER, others=[account])
    raw = base64.b64encode(bytes(sent)).decode()
    await rpc.call("sendTransaction", raw, {"encoding": "base64"})
    finalized = {"commitment": "finalized", "encoding": "base64"}
    asked = ("getAccountInfo", str(account.pubkey()), finalized)
    while (await rpc.call(*asked))["value"] is None:  # noqa: ASYNC110 - a node tells nobody
        await asyncio.sleep(0.01)
    await rpc.close()
    return str(account.pubkey()), str(owner)


def wallets_of(env_file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert gtx(env_file, "user", "list", "--json") == 0
    return {row["user_id"]: row["wallet"] for row in json.loads(capsys.readouterr().out)}


def test_the_chain_says_which_wallet_is_a_persons_when_one_is_enrolled_or_changed(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh, funded = str(Keypair().pubkey()), str(PAYER.pubkey())

    done = gtx(env_file, "user", "add", "ann", "--wallet", fresh, "--json")
    (added,) = json.loads(capsys.readouterr().out)
    assert done == gtx(env_file, "user", "wallet", "ann", funded, "--json") == 0
    (changed,) = json.loads(capsys.readouterr().out)
    said = []
    for wallet in (str(TOKEN_PROGRAM_ID), str(MEMO_PROGRAM_ID)):
        assert gtx(env_file, "user", "add", "eve", "--wallet", wallet) == 1
        assert gtx(env_file, "user", "wallet", "ann", wallet) == 1
        said += capsys.readouterr().err.splitlines()

    assert added == {"user_id": "ann", "wallet": fresh, "on_chain": "new", "warning": None}
    assert (changed["on_chain"], changed["warning"]) == ("wallet", None)
    assert len(said) == 4
    assert all("is a program, not a person's; copy the address" in line for line in said)
    assert wallets_of(env_file, capsys) == {"ann": funded}


def test_a_token_account_is_no_wallet_and_names_its_owner(
    env_file: Path, token: str, localnet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    account, owner = asyncio.run(made_token_account(localnet, token))

    assert gtx(env_file, "user", "add", "ann", "--wallet", account) == 1

    assert f"is a token account of {owner}; give that wallet" in capsys.readouterr().err
    assert wallets_of(env_file, capsys) == {}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_owner_is_enrolled_with_a_warning_where_no_node_answers(
    env_file: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    text = env_file.read_text()
    url = f"GTX_CLOUD_SOLANA_RPC_URLS=http://127.0.0.1:{free_port()}"
    lines = [url if line.startswith("GTX_CLOUD_SOLANA") else line for line in text.splitlines()]
    env_file.write_text("\n".join(lines) + "\n")
    assert gtx(env_file, "migrate") == 0
    capsys.readouterr()
    wallet = str(Keypair().pubkey())

    code = gtx(env_file, "user", "add", "ann", "--wallet", wallet, *(["--json"] if as_json else []))

    shown = capsys.readouterr()
    assert code == 0
    assert wallets_of(env_file, capsys) == {"ann": wallet}
    warning = json.loads(shown.out)[0]["warning"] if as_json else shown.err
    assert "before anything is minted to it" in warning
    assert bool(shown.err) == (not as_json)


async def test_the_next_node_is_asked_where_one_is_silent_also_from_a_servers_thread(
    localnet: str,
) -> None:
    urls = f"http://127.0.0.1:{free_port()},{localnet}"
    settings = load_settings(environ={"GTX_CLOUD_SOLANA_RPC_URLS": urls}, complete=False)

    seen = await asyncio.to_thread(check_wallet, settings, "ann", str(Keypair().pubkey()))

    assert (seen.on_chain, seen.warning) == ("new", None)


def made_token(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    made: dict[str, object] = json.loads(capsys.readouterr().out)
    return made


def test_a_token_2022_with_its_name_in_the_mint_goes_all_the_way(
    env_file: Path, localnet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--name", "Grid token", "--symbol", "GTX", "--uri", "https://energy.example/gtx.json")
    create = ("mint-account", "create", "--program", "token-2022", *named, "--airdrop", "--json")
    assert gtx(env_file, *create, "--dry-run") == 0
    planned = made_token(capsys)
    assert gtx(env_file, *create) == 0
    made = made_token(capsys)
    with env_file.open("a") as file:
        file.write(f"BLOCKCHAIN_MINT_ADDRESS={made['mint_address']}\n")
        file.write(f"BLOCKCHAIN_GENESIS_HASH={made['genesis_hash']}\n")
        file.write("BLOCKCHAIN_TOKEN_PROGRAM=token-2022\n")
    assert gtx(env_file, *create) == 0
    again = made_token(capsys)
    assert gtx(env_file, "migrate") == 0

    ids = mint_lines(env_file, signed_lines(str(made["mint_address"]), 3))
    checked, audited = gtx(env_file, "check-chain"), gtx(env_file, "audit")
    capsys.readouterr()
    assert gtx(env_file, "proof", str(ids[0])) == 0
    (tmp_path / "proof.json").write_text(capsys.readouterr().out)
    gateway = base58.encode_key(GATEWAY.public_key().public_bytes_raw())
    stranger = ("verify-proof", str(tmp_path / "proof.json"), "--rpc-url", localnet)

    assert planned["mint_address"] == made["mint_address"] == again["mint_address"]
    assert (again["rent_lamports"], again["fee_lamports"]) == (0, 0)
    assert (checked, audited) == (0, 0)
    assert run([*stranger, "--gateway", gateway]) == 0


def test_a_name_that_no_classic_mint_carries_and_a_second_token_by_mistake_are_refused(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ("mint-account", "create")

    assert gtx(env_file, *create, "--name", "Grid token", "--symbol", "GTX") == 1
    assert "use --program token-2022" in capsys.readouterr().err
    assert gtx(env_file, *create, "--number", "999") == 2
    assert "remove the setting" in capsys.readouterr().err


def test_what_the_payer_lacks_is_said_before_anything_is_sent(
    env_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_keypair(tmp_path / "poor.json", Keypair())
    text = env_file.read_text().replace("/payer.json", "/poor.json")
    env_file.write_text(text)

    assert gtx(env_file, "mint-account", "create", "--number", "998") == 1

    said = capsys.readouterr().err
    assert "lamports (rent" in said
    assert "lacks" in said


def test_the_audit_fails_when_the_store_was_changed(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mint_lines(env_file, signed_lines(token, 2))
    database = open_database(load_settings(env_file=env_file, complete=False).cloud.database_url)
    with database.transaction() as tx:
        tx.execute("UPDATE mint_batches SET total_wh = total_wh + 1")
    database.close()

    assert gtx(env_file, "audit") == 1

    shown = capsys.readouterr().out
    assert "ReadingsDiffer" in shown
    assert "differences" in shown


def test_the_estimate_is_never_below_what_is_charged(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mint_lines(env_file, signed_lines(token, 2))
    database = open_database(load_settings(env_file=env_file, complete=False).cloud.database_url)
    [charged] = database.connection.execute("SELECT fee_lamports FROM mint_batches").fetchone()
    database.close()

    assert gtx(env_file, "estimate-fee", "--recipients", "1", "--json") == 0

    [row] = json.loads(capsys.readouterr().out)
    assert charged <= row["fee_lamports"] <= charged + 10


def test_a_store_that_lost_its_batches_is_rebuilt_and_audited(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mint_lines(env_file, signed_lines(token, 2))
    database = open_database(f"sqlite:///{env_file.parent / 'cloud.db'}")
    with database.transaction() as tx:
        # As an old backup would be: the store itself lets nobody unmint a reading.
        tx.execute("DROP TRIGGER meter_readings_moves")
        tx.execute(
            "UPDATE meter_readings SET minted = 0, mint_tx_signature = NULL, batch_id = NULL"
        )
        tx.execute("DELETE FROM mint_items")
        tx.execute("DELETE FROM mint_attempts")
        tx.execute("DELETE FROM mint_batches")
    database.close()
    capsys.readouterr()

    broken = gtx(env_file, "audit", "--json")
    dry, dry_text = gtx(env_file, "rebuild"), capsys.readouterr().out
    applied, shown = gtx(env_file, "rebuild", "--apply"), gtx(env_file, "batch", "show", "1")
    text = capsys.readouterr().out
    whole = gtx(env_file, "audit", "--json")
    undecided = gtx(env_file, "batch", "resolve", "1")

    assert (broken, dry, applied, shown, whole, undecided) == (1, 0, 0, 0, 0, 0)
    assert "run again with --apply" in dry_text
    assert "1 batches restored; 0 left" in text
    assert "state: final" in text
    assert gtx(env_file, "batch", "resolve", "1", "--release", "--yes") != 0


def test_a_cluster_is_checked_before_the_start(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    code = gtx(env_file, "check-chain")
    text = capsys.readouterr().out
    as_json = gtx(env_file, "check-chain", "--json")

    assert (code, as_json) == (0, 0)
    assert text.rstrip().endswith("go")
    assert json.loads(capsys.readouterr().out)["go"] is True


def test_the_retry_queue_is_shown_and_sent_on(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gtx(env_file, "retry", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert gtx(env_file, "retry", "requeue", "7") == 1
    assert "retry list" in capsys.readouterr().err


async def test_a_minter_refuses_another_chain_and_another_marker_secret(
    env_file: Path, token: str
) -> None:
    settings = load_settings(env_file=env_file, complete=False)
    database = open_database(settings.cloud.database_url)
    try:
        async with connected_minter(settings, database, SystemClock()):
            pass
        secret = env_file.with_name("marker")
        secret.write_text("another marker secret of 32 bytes")
        changed = load_settings(env_file=env_file, complete=False)
        with pytest.raises(ConfigError, match="marker_check"):
            async with connected_minter(changed, database, SystemClock()):
                pass
        other = str(Keypair.from_seed(b"z" * 32).pubkey())
        text = env_file.read_text().replace(token, other)
        env_file.write_text(text)
        with pytest.raises(ChainMismatchError, match="does not exist"):
            async with connected_minter(
                load_settings(env_file=env_file, complete=False), database, SystemClock()
            ):
                pass
    finally:
        database.close()


def test_a_second_minter_on_one_store_is_turned_away(tmp_path: Path) -> None:
    first, second = (SqliteDatabase(tmp_path / "cloud.db") for _ in range(2))

    with (
        first.only_minter(),
        pytest.raises(ConfigError, match="another minter"),
        second.only_minter(),
    ):
        pass
    with second.only_minter():
        pass


def disputed_batch(env_file: Path) -> int:
    """Seal a batch and let a human be needed for it; return its id."""
    settings = load_settings(env_file=env_file, complete=False)
    database = open_database(settings.cloud.database_url)

    async def seal() -> int:
        async with connected_minter(settings, database, SystemClock()) as minter:
            service = minter.service
            add_credits(database, 1, (500, 700), 1_780_000_000_000)
            [batch_id] = service._seal(service._validated(service.fetch_unminted_readings(5)), 1)
            service._store.dispute(batch_id, "a stranger at the marker", 1_780_000_000_000)
            return batch_id

    try:
        return asyncio.run(seal())
    finally:
        database.close()


@pytest.mark.parametrize(
    ("way", "says", "state", "free"),
    [("--retry", "is sealed again", "sealed", 0), ("--release", "2 credits go", "void", 2)],
)
def test_a_disputed_batch_is_shown_and_decided_by_what_the_chain_says(
    env_file: Path,
    token: str,
    capsys: pytest.CaptureFixture[str],
    way: str,
    says: str,
    state: str,
    free: int,
) -> None:
    batch_id = str(disputed_batch(env_file))
    assert gtx(env_file, "batch", "show", batch_id) == 0
    shown = capsys.readouterr().out

    assert gtx(env_file, "batch", "resolve", batch_id) == 0
    looked = capsys.readouterr().out
    assert gtx(env_file, "batch", "resolve", batch_id, way, "--yes") == 0
    decided = capsys.readouterr().out
    assert gtx(env_file, "batch", "show", batch_id, "--json") == 0
    after = json.loads(capsys.readouterr().out)
    again = gtx(env_file, "batch", "resolve", batch_id, way, "--yes")

    assert "dispute: a stranger at the marker" in shown
    assert "nothing was changed" in looked
    assert '"may_have_minted": false' in looked
    assert says in decided
    assert after["state"] == state
    assert again == 1
    database = open_database(load_settings(env_file=env_file, complete=False).cloud.database_url)
    (row,) = database.connection.execute("SELECT count(*) AS n FROM mint_queue")
    database.close()
    assert row["n"] == free


def test_what_the_chain_has_minted_is_never_released(
    env_file: Path, token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dispute(store: SqlMintStore, batch_id: int, _landing: Landing, now_ms: int) -> None:
        store.dispute(batch_id, "the store and the chain disagree", now_ms)

    monkeypatch.setattr(SqlMintStore, "mark_final", dispute)
    mint_lines(env_file, signed_lines(token, 2))
    capsys.readouterr()

    code = gtx(env_file, "batch", "resolve", "1", "--release", "--yes")

    said = capsys.readouterr()
    assert code == 1
    assert '"may_have_minted": true' in said.out
    assert "may have been minted" in said.err
