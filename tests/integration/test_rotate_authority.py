"""The rehearsal of a handover of the mint authority, over a real socket."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.errors import ChainMismatchError
from gridtokenx_cloud.mint_wiring import connected_minter
from gridtokenx_cloud.rotation import Rotation
from tests.support.localnet import served_localnet
from tests.support.mint_world import add_credits
from tests.support.place import NOON_MS, Place, hurry

pytestmark = pytest.mark.integration


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
