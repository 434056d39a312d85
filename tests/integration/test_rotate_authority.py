"""The rehearsal of a handover of the mint authority, over a real socket."""

import asyncio
import json
from collections.abc import Iterator
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
from gridtokenx_cloud.errors import ChainMismatchError
from gridtokenx_cloud.mint_wiring import connected_minter
from gridtokenx_cloud.rotation import Rotation
from gridtokenx_cloud.settings import Settings, load_settings
from tests.support.localnet import served_localnet
from tests.support.mint_world import PAYER, add_credits

pytestmark = pytest.mark.integration

NOON_MS = 1_780_000_000_000


@pytest.fixture(scope="module")
def localnet() -> Iterator[str]:
    """A chain with a block every 10 ms."""
    with served_localnet(block_ms=10) as url:
        yield url


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
        text = self.env.read_text()
        lines = [line for line in text.splitlines() if "AUTHORITY_KEY" not in line]
        lines.append(f"BLOCKCHAIN_MINT_AUTHORITY_KEY={kind}:{self.folder / name}")
        self.env.write_text("\n".join(lines) + "\n")

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


@pytest.fixture
def place(
    tmp_path: Path,
    localnet: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """An operator with a token of their own."""
    for name in ("adapters.solana_rpc.sending._POLL_S", "minting.POLL_S"):
        monkeypatch.setattr(f"gridtokenx_cloud.{name}", 0.2)
    made = Place(tmp_path, localnet)
    assert made.gtx("mint-account", "create", "--airdrop", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    with made.env.open("a") as file:
        file.write(f"BLOCKCHAIN_MINT_ADDRESS={said['mint_address']}\n")
        file.write(f"BLOCKCHAIN_GENESIS_HASH={said['genesis_hash']}\n")
    assert made.gtx("migrate") == 0
    write_keypair(tmp_path / "new.json", Keypair())
    capsys.readouterr()
    return made


async def leave_in_flight(place: Place, credit_wh: int) -> None:
    """Seal, sign and send a batch, and stop before anybody has seen it land."""
    database = place.database()
    add_credits(database, 1, (credit_wh,), NOON_MS)

    async def stopped_here(*_: object) -> None:
        raise InterruptedError

    async with connected_minter(place.settings, database, SystemClock()) as minter:
        minter.service._minter._follow = stopped_here  # type: ignore[method-assign,assignment]
        readings = minter.service.fetch_unminted_readings(10)
        with pytest.raises(InterruptedError):
            await minter.service.process_batch(readings)
    database.close()


def test_the_token_gets_a_new_authority_and_both_sides_agree_on_everything(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mint(100, 200)
    asyncio.run(leave_in_flight(place, 300))
    place.seal_new_key()
    command = ("mint-account", "rotate-authority", "--new", f"enc:{place.folder}/new.sealed")

    dry = place.gtx(*command)
    said = capsys.readouterr().out
    done = place.gtx(*command, "--apply")
    told = capsys.readouterr().out
    with pytest.raises(ChainMismatchError, match="mint authority: configured"):
        place.mint(1)
    place.use("new.sealed", "enc")
    place.mint(400)
    capsys.readouterr()
    audited = place.gtx("audit", "--json")
    report = json.loads(capsys.readouterr().out)

    assert (dry, done, audited) == (0, 0, 0)
    assert "first these batches are brought to their end: 2" in said
    assert "nothing was changed" in said
    assert "can mint no more" in told
    assert report["ok"]
    assert report["sums"]["supply_base_units"] == str((100 + 200 + 300 + 1 + 400) * 10**6)
    acts = place.actions()
    assert acts.count("authority_handover_begun") == acts.count("authority_handed_over") == 1
    # Its own markers only: those of the new authority stand.
    assert acts.count("marker_reclaimed") == 2


def test_nothing_is_handed_over_beside_a_running_minter(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(place.database()) as database, database.only_minter():
        code = place.rotate("new.json", "--apply")

    assert code == 2
    assert "another minter" in capsys.readouterr().err
    assert "authority_handover_begun" not in place.actions()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("_hand_over", marks=pytest.mark.long),
        "_bind",
        pytest.param("_take_rents_back", marks=pytest.mark.long),
    ],
)
def test_a_handover_that_was_stopped_goes_on_where_it_was(
    place: Place, step: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mint(100)

    def stopped_here(*_: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Rotation, step, stopped_here)
        with pytest.raises(InterruptedError):
            place.rotate("new.json", "--apply")
    again = place.rotate("new.json", "--apply")
    place.use("new.json")
    place.mint(50)
    audited = place.gtx("audit")

    assert (again, audited) == (0, 0)
    acts = place.actions()
    assert acts.count("authority_handed_over") == acts.count("marker_reclaimed") == 1


def test_a_store_of_before_the_handover_is_rebuilt_before_it_is_taken_along(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mint(100)
    place.credit(200)
    assert place.gtx("backup", str(place.folder / "backup.db")) == 0
    place.mint()
    assert place.rotate("new.json", "--apply") == 0
    for left in place.folder.glob("cloud.db*"):
        left.unlink()
    (place.folder / "backup.db").rename(place.folder / "cloud.db")
    capsys.readouterr()

    early = place.rotate("new.json", "--apply")
    said = capsys.readouterr().err
    steps = [
        place.gtx("rebuild", "--apply"),
        place.rotate("new.json", "--apply"),
    ]
    place.use("new.json")
    place.mint(400)
    capsys.readouterr()
    audited = place.gtx("audit", "--json")
    sums = json.loads(capsys.readouterr().out)["sums"]

    assert early == 1
    assert "store and chain differ" in said
    assert "UnknownMint" in said
    assert [*steps, audited] == [0, 0, 0]
    assert sums["supply_base_units"] == str((100 + 200 + 400) * 10**6)


def test_only_a_key_that_can_sign_and_has_no_past_becomes_the_authority(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mint(100)
    assert place.rotate("new.json", "--apply") == 0
    place.use("new.json")
    capsys.readouterr()

    codes = [place.rotate(name, "--apply") for name in ("payer.json", "old.json", "none.json")]
    said = capsys.readouterr().err.splitlines()

    assert codes == [2, 2, 1]
    assert "serves already" in said[0]
    assert "was used on this chain before" in said[1]
    assert "cannot be read" in said[2]
