"""A thief mints with our key: what an operator types until all is well, over a real socket."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from spl.token.constants import TOKEN_PROGRAM_ID
from spl.token.instructions import (
    create_idempotent_associated_token_account,
    get_associated_token_address,
    mint_to_checked,
)
from spl.token.models import MintToCheckedParams

from gridtokenx_cloud.adapters.solana_rpc.rpc import HttpRpc, RpcRefusedError
from tests.support.localnet import served_localnet, signed
from tests.support.mint_world import PAYER
from tests.support.place import Place, hurry

pytestmark = pytest.mark.integration

THIEF = Keypair().pubkey()
_FINALIZED = {"commitment": "finalized"}


@pytest.fixture(scope="module")
def localnet() -> Iterator[str]:
    """A chain with a block every 10 ms."""
    with served_localnet(block_ms=10) as url:
        yield url


@pytest.fixture
def place(
    tmp_path: Path,
    localnet: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """An operator with a token of their own."""
    hurry(monkeypatch)
    made = Place(tmp_path, localnet)
    made.make_token(capsys)
    return made


async def steal(place: Place, amount: int) -> str:
    """Mint to the thief with the operator's first key; return the signature once it is final."""
    key = Keypair.from_json((place.folder / "old.json").read_text())
    mint = Pubkey.from_string(str(place.settings.blockchain.mint_address))
    rpc = HttpRpc(place.settings.cloud.solana_rpc_urls[0], 30)
    try:
        recent = (await rpc.call("getLatestBlockhash", _FINALIZED))["value"]
        theft = mint_to_checked(
            MintToCheckedParams(
                program_id=TOKEN_PROGRAM_ID,
                mint=mint,
                dest=get_associated_token_address(THIEF, mint),
                mint_authority=key.pubkey(),
                amount=amount,
                decimals=9,
            )
        )
        sent = signed(
            Hash.from_string(recent["blockhash"]),
            create_idempotent_associated_token_account(PAYER.pubkey(), THIEF, mint),
            theft,
            payer=PAYER,
            others=[key],
        )
        raw = base64.b64encode(bytes(sent)).decode()
        signature = str(await rpc.call("sendTransaction", raw, {"encoding": "base64"}))
        asked = ("getTransaction", signature, {**_FINALIZED, "encoding": "base64"})
        while await rpc.call(*asked) is None:  # noqa: ASYNC110 - a node tells nobody
            await asyncio.sleep(0.01)
    finally:
        await rpc.close()
    return signature


def test_a_thief_is_locked_out_and_every_stolen_mint_is_declared_before_minting_goes_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mint(100)
    stolen = [asyncio.run(steal(place, 7)), asyncio.run(steal(place, 8))]
    capsys.readouterr()

    alarmed = place.gtx("audit")
    named = capsys.readouterr().out
    patient = place.rotate("new.json", "--apply")
    why = capsys.readouterr().err
    dry = place.rotate("new.json", "--stolen")
    done = place.rotate("new.json", "--stolen", "--apply")
    with pytest.raises(RpcRefusedError):
        asyncio.run(steal(place, 9))
    place.use("new.json")
    capsys.readouterr()
    looked = place.gtx("batch", "foreign", stolen[0], "--reason", "case 4711")
    shown = capsys.readouterr().out
    still = place.gtx("audit")
    declared = [
        place.gtx("batch", "foreign", one, "--reason", "case 4711", "--yes") for one in stolen
    ]
    place.mint(50)
    capsys.readouterr()
    audited = place.gtx("audit", "--json")
    sums = json.loads(capsys.readouterr().out)["sums"]

    assert alarmed == patient == still == 1
    assert "UnknownMint" in named
    assert all(one in named for one in stolen)
    assert "store and chain differ" in why
    assert (dry, done, looked, *declared, audited) == (0, 0, 0, 0, 0, 0)
    assert "nothing was changed; run again with --yes" in shown
    assert '"7"' in shown
    assert sums["foreign_base_units"] == "15"
    assert sums["supply_base_units"] == str(150 * 10**6 + 15)
    acts = place.actions()
    assert acts.count("authority_handed_over") == 1
    assert acts.count("foreign_mint_acknowledged") == 2


def test_our_own_mints_and_what_is_no_mint_are_not_declared_foreign(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mint(100)
    with place.opened() as database:
        ((ours,),) = database.connection.execute("SELECT signature FROM mint_batches").fetchall()
    capsys.readouterr()

    codes = [
        place.gtx("batch", "foreign", signature, "--reason", "a mistake", "--yes")
        for signature in (ours, "1" * 64, "SIGNATURE")
    ]

    said = capsys.readouterr().err.splitlines()
    assert codes == [1, 1, 1]
    assert f"{ours} is on record already" in said[0]
    assert "is no finalized mint by the token's authority" in said[1]
    assert "is no transaction's signature; copy it from `gtx-cloud audit`" in said[2]
    assert place.gtx("audit") == 0
