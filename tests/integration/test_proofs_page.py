"""`docs/proofs.md` is run as it stands, by bash, against a chain; its outputs are the real ones."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.localnet import Localnet
from gridtokenx_cloud.adapters.localnet.server import serve
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.proof import make_proof, proof_to_json
from gridtokenx_wire import base58
from gridtokenx_wire.encoding import encode_line
from gridtokenx_wire.record import FIRST_PREV, ClockQuality, SlotRecord, Stamp
from gridtokenx_wire.signing import signer
from tests.support.mint_world import CONVERSION, add_credits, minter, new_world

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "proofs.md").read_text(encoding="utf-8")
BY_HAND = PAGE.partition("## Check it by hand")[2].partition("## What a proof")[0]
GATEWAY = Ed25519PrivateKey.from_private_bytes(b"g" * 32)
PUBLIC = base58.encode_key(GATEWAY.public_key().public_bytes_raw())
START_MS = 1_780_000_200_000
OWNERS = (1, 1, 2, 1, 2)


def line(number: int, token: str) -> bytes:
    """Return the line of one quarter of an hour of one meter."""
    stamp = Stamp(
        meter_id=f"HOUSE-{OWNERS[number]}",
        epoch="00000000000000e1",
        seq=number + 1,
        boot_id="0" * 32,
        mono_ms=number,
        wall_ms=START_MS + 900_000 * number,
        clock=ClockQuality.SYNCHRONISED,
    )
    record = SlotRecord(
        stamp=stamp,
        interval_s=900,
        import_wh=0,
        export_wh=1_000 + 100 * number,
        token=token,
        prev=FIRST_PREV,
    )
    return encode_line(record, signer(GATEWAY))


async def minted(path: Path, form: TransactionFormat) -> tuple[Localnet, str]:
    """Mint five lines of two owners; return the chain and the proof of the second."""
    world = await new_world()
    rules = MintRules(conversion=CONVERSION, form=form)
    with minter(world, path, rules) as m:
        ids: list[int] = []
        for number, owner in enumerate(OWNERS):
            [reading] = add_credits(m.database, owner, (100,), START_MS + 900_000 * number)
            ids.append(reading)
            with m.database.transaction() as tx:
                tx.execute(
                    "UPDATE meter_readings SET line = ?, seq = ? WHERE reading_id = ?",
                    (line(number, str(world.token.mint)), number + 1, reading),
                )
        await m.service.drain()
        await world.sleep(20)
        source = SqlAuditStore(m.database).proof_source(ids[1])
    return world.chain, proof_to_json(make_proof(source)).replace('"gateway-1"', f'"{PUBLIC}"')


def steps() -> list[tuple[str, str]]:
    """Return what is typed and what is then shown, step by step."""
    blocks = re.findall(r"```(sh|text)\n(.*?)```", BY_HAND, re.DOTALL)
    found: list[tuple[str, str]] = []
    typed = ""
    for kind, text in blocks:
        typed += text if kind == "sh" else ""
        if kind == "text":
            found.append((typed, text))
            typed = ""
    return found


async def by_hand(folder: Path, chain: Localnet, proof: str) -> list[str]:
    """Run every step in one shell; return what each one printed."""
    (folder / "proof.json").write_text(proof)
    script = "".join(f"{typed}\necho '---'\n" for typed, _ in steps())
    async with await serve(chain) as server:
        bash = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script.replace("http://127.0.0.1:8899", server.url),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await bash.communicate()
    assert err == b""
    return out.decode().split("---\n")[:-1]


@pytest.mark.parametrize("form", [TransactionFormat.LEGACY, TransactionFormat.V1])
async def test_every_step_of_the_page_prints_what_the_page_says(
    tmp_path: Path, form: TransactionFormat
) -> None:
    chain, proof = await minted(tmp_path / "cloud.db", form)

    shown = await by_hand(tmp_path, chain, proof)

    assert shown == [text for _, text in steps()]
    assert len(shown) == 6


async def test_a_changed_line_fails_at_the_signature_and_at_the_root(tmp_path: Path) -> None:
    chain, proof = await minted(tmp_path / "cloud.db", TransactionFormat.LEGACY)
    changed = json.loads(proof)
    changed["line"] = changed["line"].replace('"export_wh":1100', '"export_wh":9100')

    signature, _, root, memo, *_ = await by_hand(tmp_path, chain, json.dumps(changed, indent=2))

    assert "Failure" in signature
    assert root.split()[1] not in memo
