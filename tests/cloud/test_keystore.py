import json
from pathlib import Path

import pytest
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import (
    Message,
    MessageV0,
    MessageV1,
    TransactionConfig,
    to_bytes_versioned,
)
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import (
    AdvanceNonceAccountParams,
    TransferParams,
    TransferWithSeedParams,
    advance_nonce_account,
    transfer,
    transfer_with_seed,
)

from gridtokenx_cloud.adapters.keystore import (
    LocalSigner,
    PolicySigner,
    SignerPolicy,
    load_key,
    write_keypair,
)
from gridtokenx_cloud.adapters.solana_rpc.lookup import (
    LOOKUP,
    Table,
    close_table,
    create_table,
    deactivate_table,
    extend_table,
    table_address,
)
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    COMPUTE_BUDGET,
    TOKEN,
    TOKEN_2022,
    MintContent,
    Token,
    create_account_instruction,
    mint_instructions,
)
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.errors import SigningKeyError

AUTHORITY = Keypair.from_seed(b"a" * 32)
PAYER, MINT, OTHER = (Keypair.from_seed(bytes([n]) * 32).pubkey() for n in (2, 3, 4))
THE_TOKEN = Token(MINT, TOKEN, 9, AUTHORITY.pubkey(), PAYER)
MARKERS = Markers(b"s" * 32, str(AUTHORITY.pubkey()), str(MINT))
DAY_MS = 86_400_000


def signer(cap: int = 1000, day: int = 1500, now_ms: list[int] | None = None) -> PolicySigner:
    at = now_ms or [0]
    return PolicySigner(
        LocalSigner(AUTHORITY),
        SignerPolicy(str(MINT), str(TOKEN), str(PAYER), cap, day),
        lambda: at[0],
    )


def mint(*amounts: int, token: Token = THE_TOKEN, batch_id: int = 1) -> list[Instruction]:
    content = MintContent(
        memo="gm1",
        marker=Pubkey.from_string(MARKERS.address(batch_id)),
        marker_seed=MARKERS.seed(batch_id),
        marker_lamports=890_880,
        payments=tuple((OTHER, amount) for amount in amounts),
    )
    return mint_instructions(token, content)


def reclaim(batch_id: int, to: Pubkey) -> Instruction:
    return transfer_with_seed(
        TransferWithSeedParams(
            from_pubkey=Pubkey.from_string(MARKERS.address(batch_id)),
            from_base=AUTHORITY.pubkey(),
            from_seed=MARKERS.seed(batch_id),
            from_owner=SYSTEM,
            to_pubkey=to,
            lamports=890_880,
        )
    )


def message(instructions: list[Instruction]) -> bytes:
    return to_bytes_versioned(Message.new_with_blockhash(instructions, PAYER, Hash.default()))


def test_a_key_file_is_that_of_the_solana_command_line(tmp_path: Path) -> None:
    path = tmp_path / "id.json"

    write_keypair(path, AUTHORITY)

    assert json.loads(path.read_text()) == list(bytes(AUTHORITY))
    assert load_key(path).expose() == bytes(AUTHORITY)
    with pytest.raises(SigningKeyError, match="can't be made"):
        write_keypair(path, AUTHORITY)


def test_a_key_that_others_can_read_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "id.json"
    write_keypair(path, AUTHORITY)
    path.chmod(0o640)

    with pytest.raises(SigningKeyError) as caught:
        load_key(path)

    assert str(path) in str(caught.value)
    assert "0640" in str(caught.value)
    assert f"chmod 600 {path}" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1, 2]", json.dumps([300] * 64), json.dumps([1] * 64), json.dumps(["x"] * 64)],
)
def test_a_damaged_key_file_is_one_clear_line_without_its_content(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "id.json"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(SigningKeyError, match="is no Solana key") as caught:
        load_key(path)

    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="cannot be read"):
        load_key(tmp_path / "missing.json")


async def test_a_mint_of_our_token_is_signed_and_the_key_never_shown() -> None:
    one = signer()
    body = message(mint(600, 400))

    signature = Signature.from_bytes(await one.sign(body))

    assert signature.verify(AUTHORITY.pubkey(), body)
    assert repr(one) == f"PolicySigner({AUTHORITY.pubkey()})"


async def test_making_a_token_account_is_signed() -> None:
    body = message([create_account_instruction(THE_TOKEN, OTHER)])

    signature = Signature.from_bytes(await signer().sign(body))

    assert signature.verify(AUTHORITY.pubkey(), body)


def _with_data(instruction: Instruction, data: bytes) -> Instruction:
    return Instruction(instruction.program_id, data, instruction.accounts)


REFUSED: dict[str, list[Instruction]] = {
    "a transfer of SOL": [transfer(TransferParams(from_pubkey=PAYER, to_pubkey=OTHER, lamports=1))],
    "an unknown program": [Instruction(OTHER, b"", [])],
    "another mint": mint(1, token=Token(OTHER, TOKEN, 9, AUTHORITY.pubkey(), PAYER)),
    "another token program": mint(1, token=Token(MINT, TOKEN_2022, 9, AUTHORITY.pubkey(), PAYER)),
    "SetAuthority": [
        Instruction(
            TOKEN,
            bytes([6, 0, 1]) + bytes(OTHER),
            [AccountMeta(MINT, False, True), AccountMeta(AUTHORITY.pubkey(), True, False)],
        )
    ],
    "a mint without a marker": mint(1)[1:],
    "two markers": [*mint(1), mint(1, batch_id=2)[0]],
    "a marker alone": [mint(1)[0]],
    "an account of another mint": [
        create_account_instruction(Token(OTHER, TOKEN, 9, AUTHORITY.pubkey(), PAYER), OTHER)
    ],
    "a marker that locks much SOL": [
        _with_data(
            mint(1)[0],
            bytes(mint(1)[0].data)[:76] + (10**9).to_bytes(8, "little") + bytes(40),
        ),
        *mint(1)[1:],
    ],
    "more than the cap": mint(600, 401),
    "a durable nonce": [
        advance_nonce_account(
            AdvanceNonceAccountParams(nonce_pubkey=OTHER, authorized_pubkey=PAYER)
        ),
        *mint(1),
    ],
    "a mint that nobody checks the decimals of": [
        mint(1)[0],
        _with_data(mint(1)[1], bytes([7]) + (1).to_bytes(8, "little")),
    ],
    "mints inside of a batch instruction": [
        mint(1)[0],
        _with_data(mint(1)[1], bytes([255, 3, 10]) + bytes(mint(1)[1].data)),
    ],
    "a transfer of tokens": [_with_data(mint(1)[1], bytes([12]) + bytes(mint(1)[1].data)[1:])],
    "an approval": [_with_data(mint(1)[1], bytes([13]) + bytes(mint(1)[1].data)[1:])],
    "a mint with more accounts than it has": [
        mint(1)[0],
        Instruction(TOKEN, bytes(mint(1)[1].data), [*mint(1)[1].accounts, mint(1)[1].accounts[0]]),
    ],
    "an account of its own making": [
        _with_data(create_account_instruction(THE_TOKEN, OTHER), b"\x00")
    ],
    "an assignment of the payer to a program": [
        Instruction(
            SYSTEM, (1).to_bytes(4, "little") + bytes(OTHER), [AccountMeta(PAYER, True, True)]
        )
    ],
    "a marker that belongs to a program": [
        _with_data(mint(1)[0], bytes(mint(1)[0].data)[:92] + bytes(OTHER)),
        *mint(1)[1:],
    ],
    "a price that only makes the payer poor": [*mint(1), set_compute_unit_price(1_000_001)],
    "a heap frame": [*mint(1), Instruction(COMPUTE_BUDGET, b"\x01\x00\x00\x04\x00", [])],
    "a mint that empties its marker again": [*mint(1), reclaim(1, PAYER)],
    "a marker's lamports for a stranger": [reclaim(1, OTHER)],
    "a lookup table of a stranger": [deactivate_table(OTHER, MINT)],
    "a lookup table's rent for a stranger": [
        Instruction(
            LOOKUP,
            (4).to_bytes(4, "little"),
            [
                AccountMeta(MINT, False, True),
                AccountMeta(PAYER, True, False),
                AccountMeta(OTHER, False, True),
            ],
        )
    ],
    "a frozen lookup table": [
        Instruction(LOOKUP, (1).to_bytes(4, "little"), [AccountMeta(MINT, False, True)])
    ],
}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_signer_refuses(name: str) -> None:
    with pytest.raises(SigningKeyError, match="refuses"):
        await signer().sign(message(REFUSED[name]))


async def test_a_priority_fee_in_the_widest_format_is_capped_too() -> None:
    def fee(lamports: int) -> bytes:
        config = TransactionConfig(priority_fee=lamports, compute_unit_limit=9_000)
        return to_bytes_versioned(MessageV1.try_compile(PAYER, mint(1), Hash.default(), config))

    await signer().sign(fee(1_400_000))
    with pytest.raises(SigningKeyError, match="refuses a priority fee of 1400001 lamports"):
        await signer().sign(fee(1_400_001))


async def test_a_refusal_is_told_with_its_reason_and_nothing_is_signed() -> None:
    told: list[str] = []
    policy = SignerPolicy(str(MINT), str(TOKEN), str(PAYER), 1000, 1500)
    one = PolicySigner(LocalSigner(AUTHORITY), policy, lambda: 0, on_refused=told.append)

    with pytest.raises(SigningKeyError):
        await one.sign(message(REFUSED["SetAuthority"]))

    assert told == [f"the signer refuses instruction 0 of program {TOKEN}"]


async def test_what_was_signed_today_before_a_restart_counts_and_a_batch_only_once() -> None:
    policy = SignerPolicy(str(MINT), str(TOKEN), str(PAYER), 1000, 1500)
    before = {MARKERS.address(1): 1000}
    one = PolicySigner(LocalSigner(AUTHORITY), policy, lambda: 0, before)

    await one.sign(message(mint(1000, batch_id=1)))
    await one.sign(message(mint(500, batch_id=2)))
    with pytest.raises(SigningKeyError, match="per day"):
        await one.sign(message(mint(1, batch_id=3)))


ALLOWED: dict[str, list[Instruction]] = {
    "the rent of an old marker": [reclaim(1, PAYER), reclaim(2, PAYER)],
    "a new lookup table": [
        create_table(PAYER, 7),
        extend_table(PAYER, table_address(PAYER, 7), [OTHER]),
    ],
    "the end of a lookup table": [deactivate_table(PAYER, OTHER), close_table(PAYER, OTHER)],
}


@pytest.mark.parametrize("name", ALLOWED)
async def test_the_signer_signs(name: str) -> None:
    body = message(ALLOWED[name])

    assert Signature.from_bytes(await signer().sign(body)).verify(AUTHORITY.pubkey(), body)


async def test_a_mint_through_a_lookup_table_is_weighed_by_what_the_table_holds() -> None:
    table = Table(OTHER, (MINT, PAYER), None)
    content = mint(5)
    paid = Instruction(
        TOKEN,
        bytes(content[1].data),
        [AccountMeta(MINT, False, True), AccountMeta(OTHER, False, True), content[1].accounts[2]],
    )
    body = to_bytes_versioned(
        MessageV0.try_compile(
            PAYER, [content[0], paid, content[2]], [table.account], Hash.default()
        )
    )

    await signer().sign(body, {str(OTHER): [str(MINT), str(PAYER)]})

    wrong: list[dict[str, list[str]]] = [
        {},
        {str(OTHER): []},
        {str(OTHER): [str(OTHER), str(PAYER)]},
    ]
    for seen in wrong:
        with pytest.raises(SigningKeyError, match=r"can.t be seen|refuses"):
            await signer().sign(body, seen)


async def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(SigningKeyError, match="no transaction message"):
        await signer().sign(b"\x01\x02")


async def test_the_daily_cap_counts_a_batch_once_and_starts_anew_at_midnight_utc() -> None:
    now_ms = [DAY_MS - 1]
    one = signer(now_ms=now_ms)
    await one.sign(message(mint(1000)))
    await one.sign(message(mint(1000)))

    with pytest.raises(SigningKeyError, match="per day"):
        await one.sign(message(mint(501, batch_id=2)))
    await one.sign(message(mint(500, batch_id=3)))
    now_ms[0] += 1
    await one.sign(message(mint(1000, batch_id=4)))
