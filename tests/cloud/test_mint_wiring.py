"""Two roles, two keys: what production insists on before anything is signed."""

from pathlib import Path

import pytest
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.mint_wiring import connected_minter
from gridtokenx_cloud.settings import load_settings


async def test_production_refuses_a_copy_of_the_minting_key_that_pays(tmp_path: Path) -> None:
    key, copy, secret = (tmp_path / name for name in ("key.json", "copy.json", "secret"))
    text = Keypair().to_json()
    for path in (key, copy):
        path.touch(mode=0o600)
        path.write_text(text)
    secret.touch(mode=0o600)
    secret.write_text("a marker secret of at least 32 bytes")
    settings = load_settings(
        environ={
            "GTX_CLOUD_ENVIRONMENT": "production",
            "GTX_CLOUD_SOLANA_RPC_URLS": "https://one.example,https://two.example",
            "BLOCKCHAIN_MINT_ADDRESS": str(Keypair().pubkey()),
            "BLOCKCHAIN_GENESIS_HASH": str(Keypair().pubkey()),
            "BLOCKCHAIN_MINT_AUTHORITY_KEY": f"file:{key}",
            "BLOCKCHAIN_FEE_PAYER_KEY": f"file:{copy}",
            "BLOCKCHAIN_MARKER_SECRET": f"file:{secret}",
        },
        roles="settle",
    )

    with pytest.raises(ConfigError, match="production needs two"):
        async with connected_minter(settings, SqliteDatabase(tmp_path / "c.db"), SystemClock()):
            pass
