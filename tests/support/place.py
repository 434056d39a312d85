"""An operator's folder with settings, keys and a store, and a token of their own on a localnet."""

import asyncio
import json
from contextlib import closing
from pathlib import Path

import pytest
from solders.keypair import Keypair

from gridtokenx_cloud.__main__ import run
from gridtokenx_cloud.adapters.keystore import load_key, write_keypair
from gridtokenx_cloud.adapters.keystore.files import write_new
from gridtokenx_cloud.adapters.keystore.opening import read_password
from gridtokenx_cloud.adapters.keystore.sealed import ScryptCost, seal
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.mint_wiring import connected_minter
from gridtokenx_cloud.settings import Settings, load_settings
from tests.support.mint_world import PAYER, add_credits

NOON_MS = 1_780_000_000_000


class Place:
    """The folder, the settings and the store of one operator."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = folder / "cloud.env"
        write_keypair(folder / "old.json", Keypair())
        write_keypair(folder / "payer.json", PAYER)
        secret = folder / "marker"
        secret.touch(mode=0o600)
        secret.write_text("0123456789abcdef0123456789abcdef")
        self.env.write_text(
            "GTX_CLOUD_ENVIRONMENT=development\n"
            f"GTX_CLOUD_DATABASE_URL=sqlite:///{folder}/cloud.db\n"
            f"GTX_CLOUD_SOLANA_RPC_URLS={url}\n"
            f"BLOCKCHAIN_MINT_AUTHORITY_KEY=file:{folder}/old.json\n"
            f"BLOCKCHAIN_FEE_PAYER_KEY=file:{folder}/payer.json\n"
            f"BLOCKCHAIN_MARKER_SECRET=file:{secret}\n"
        )

    def gtx(self, *arguments: str) -> int:
        return run(["--env-file", str(self.env), *arguments])

    def rotate(self, name: str, *more: str) -> int:
        new = f"file:{self.folder / name}"
        return self.gtx("mint-account", "rotate-authority", "--new", new, *more)

    def use(self, name: str, kind: str = "file") -> None:
        self.set("BLOCKCHAIN_MINT_AUTHORITY_KEY", f"{kind}:{self.folder / name}")

    def set(self, name: str, value: str) -> None:
        """Give one setting another value."""
        lines = self.env.read_text().splitlines()
        kept = [line for line in lines if not line.startswith(f"{name}=")]
        self.env.write_text("\n".join([*kept, f"{name}={value}"]) + "\n")

    def seal_new_key(self) -> None:
        """Seal the new key, and tell the settings where its password is."""
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text("correct horse battery")
        cheap = ScryptCost(2**14)
        sealed = seal(load_key(self.folder / "new.json"), read_password(password), cheap)
        write_new(self.folder / "new.sealed", sealed)
        (self.folder / "new.json").unlink()
        with self.env.open("a") as file:
            file.write(f"BLOCKCHAIN_KEY_PASSWORD=file:{password}\n")

    @property
    def settings(self) -> Settings:
        return load_settings(env_file=self.env, complete=False)

    def database(self) -> Database:
        return open_database(self.settings.cloud.database_url)

    def opened(self) -> closing[Database]:
        """Give the store for a while."""
        return closing(self.database())

    def credit(self, *credits_wh: int) -> None:
        """Store accepted readings."""
        with closing(self.database()) as database:
            add_credits(database, 1, credits_wh, NOON_MS)

    def mint(self, *credits_wh: int) -> None:
        """Mint credits as the service does."""
        self.credit(*credits_wh)
        with closing(self.database()) as database:
            asyncio.run(self._drain(database))

    async def _drain(self, database: Database) -> None:
        async with connected_minter(self.settings, database, SystemClock()) as minter:
            await minter.service.drain()

    def actions(self) -> list[str]:
        with closing(self.database()) as database:
            rows = database.connection.execute("SELECT action FROM audit_log ORDER BY entry")
            return [row["action"] for row in rows]

    def make_token(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Make the token, name it in the settings, make the store and a key that may follow."""
        assert self.gtx("mint-account", "create", "--airdrop", "--json") == 0
        said = json.loads(capsys.readouterr().out)
        with self.env.open("a") as file:
            file.write(f"BLOCKCHAIN_MINT_ADDRESS={said['mint_address']}\n")
            file.write(f"BLOCKCHAIN_GENESIS_HASH={said['genesis_hash']}\n")
        assert self.gtx("migrate") == 0
        write_keypair(self.folder / "new.json", Keypair())
        capsys.readouterr()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a chain whose blocks take 10 ms more often."""
    for name in ("adapters.solana_rpc.sending._POLL_S", "minting.POLL_S"):
        monkeypatch.setattr(f"gridtokenx_cloud.{name}", 0.2)
