"""A counter about which sources differ: the agent reads the meter, and records no slot."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gridtokenx_agent.__main__ import main
from gridtokenx_agent.acquire import BusLoop, plan_meter
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import House, MeterSimulator, house_registers
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.record import SampleRecord, SlotRecord
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.memory_buffer import MemoryBuffer

EM24 = find_profile("carlo-gavazzi-em24")
Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("mints", "slots"), [(False, 0), (True, 3)])
async def test_its_slots_become_samples_until_someone_accepts_it(mints: bool, slots: int) -> None:
    clock = SteadyClock()
    simulator = MeterSimulator(EM24, house_registers(EM24, House(), clock, clock.wall_ms))
    bus, buffer = FakeBus({1: simulator}, clock), MemoryBuffer()
    meter = plan_meter(
        "M1",
        MeterReader(bus, 1, EM24, None),
        Recorder(build.recorder_parts(buffer), "M1", "carlo-gavazzi-em24", None),
        Limits(),
        interval_s=60,
        sample_s=0,
        at=clock.now(),
        mints=mints,
    )
    loop = BusLoop("bus", bus, (meter,), clock, lambda name, now_ms: None)

    await meter.recorder.open(clock.now())
    end_ms = clock.mono_ms + 181_000
    while clock.mono_ms < end_ms:
        await loop.step()

    taken = [record for record in buffer.records if isinstance(record, SlotRecord)]
    shown = [record for record in buffer.records if isinstance(record, SampleRecord)]
    assert len(taken) >= slots
    assert (len(taken) == 0) == (not mints)
    assert (len(shown) == 0) == mints
    assert all(record.live.active_power_w == -3800 for record in shown)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["gtx-agent", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return call


def config_for(cli: Cli, folder: Path, profile: str, more: str = "", url: str = "tcp://h:1") -> str:
    path = folder / "agent.toml"
    values = {
        "config": str(path),
        "key-file": str(folder / "gateway.key"),
        "buffer": str(folder / "buffer.db"),
        "mqtt-url": "mqtt://127.0.0.1:1883",
        "cloud-key": build.CLOUD_KEY_TEXT,
        "token": build.TOKEN,
        "bus-url": url,
        "meter-id": "HOUSE-17",
        "profile": profile,
        "device-id": "1",
    }
    cli("init", *(part for name, value in values.items() for part in (f"--{name}", value)))
    path.write_text(path.read_text() + more)
    return str(path)


def test_check_config_says_what_is_not_proven(cli: Cli, tmp_path: Path) -> None:
    path = config_for(cli, tmp_path, "carlo-gavazzi-em24")

    code, out, err = cli("check-config", "--config", path)
    found = json.loads(cli("check-config", "--config", path, "--json")[1])

    assert code == 0
    assert "is right" in out
    assert err.startswith("warning: HOUSE-17: profile carlo-gavazzi-em24: import_energy disputed")
    assert "no slots are recorded" in err
    assert len(found["warnings"]) == 1


def test_check_config_says_that_it_was_accepted(cli: Cli, tmp_path: Path) -> None:
    path = config_for(cli, tmp_path, "carlo-gavazzi-em24", "\naccept_disputed = true\n")

    _, _, err = cli("check-config", "--config", path)

    assert "accepted by accept_disputed" in err


def test_check_config_refuses_a_bus_that_is_too_busy(cli: Cli, tmp_path: Path) -> None:
    more = "".join(
        f'\n[[bus.meter]]\nmeter_id = "H{unit}"\nprofile = "eastron-sdm630"\n'
        f"device_id = {unit}\nsample_s = 1\n"
        for unit in range(2, 10)
    )
    path = config_for(cli, tmp_path, "eastron-sdm630", more, "rtu:///dev/ttyUSB0?baudrate=9600")

    code, _, err = cli("check-config", "--config", path)

    assert code == 2
    assert "bus rtu:///dev/ttyUSB0?baudrate=9600: 9 meters at 9600 baud would keep it" in err
    assert err.count("\n") == 1


def test_the_page_about_meters_is_what_the_profiles_say(cli: Cli) -> None:
    page = Path(__file__).parents[2] / "docs" / "meters.md"

    code, out, _ = cli("profiles", "--markdown")

    assert code == 0
    assert page.read_text(encoding="utf-8") == out, "run gtx-agent profiles --markdown"


def test_profiles_checks_the_files_it_is_given(cli: Cli, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.toml", tmp_path / "wrong.toml"
    blueprint = Path(__file__).parents[2] / "firmware-config" / "meters" / "_blueprint.toml"
    right.write_text(blueprint.read_text())
    wrong.write_text(blueprint.read_text().replace('unit = "kWh"', 'unit = "kW"'))

    code, out, _ = cli("profiles", str(right), str(wrong), "--json")

    found = json.loads(out)["profiles"]
    assert code == 1
    assert found[0]["error"] is None
    assert "points.import_energy.unit: 'kW' is not one of Wh, kWh, MWh" in found[1]["error"]


@pytest.mark.parametrize(
    ("words", "value", "flag"),
    [
        (("--type", "int32", "--order", "CDAB", "--scale", "0.1", "CFC7", "FFFF"), "-1234.5", None),
        (("--type", "uint32", "FFFF", "FFFF"), None, "not_available"),
        (("--type", "uint32", "--sentinel", "00000000", "FFFF", "FFFF"), "4294967295", None),
        (("--type", "uint16", "--bits", "4:8", "1234"), "35", None),
        (("--type", "string_low", "0042", "0059", "0031"), "BY1", None),
        (("--type", "bcd64", "0000", "0001", "2345", "6789"), "123456789", None),
    ],
)
def test_decode_shows_what_words_mean(
    cli: Cli, words: tuple[str, ...], value: str | None, flag: str | None
) -> None:
    _, out, _ = cli("decode", *words, "--json")

    assert json.loads(out) == {"value": value, "flag": flag}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--type", "uint16", "--bits", "12:8", "1234"), "reach beyond the 16 bits"),
        (("--type", "float32", "--bits", "0:8", "1234", "0000"), "belong to an unsigned type"),
        (("--type", "uint16", "--bits", "all", "1234"), "integer"),
        (("--type", "uint16", "--sentinel", "FF", "1234"), "has 4 hex digits"),
        (("--type", "uint16", "--scale", "0", "1234"), "other than 0"),
        (("--type", "uint16", "--scale", "1e99", "1234"), "at most 12 digits"),
        (("--type", "uint16", "--scale", "nan", "1234"), "number"),
    ],
)
def test_decode_says_what_is_wrong_with_a_question(
    cli: Cli, words: tuple[str, ...], reason: str
) -> None:
    code, _, err = cli("decode", *words)

    assert code == 2
    assert reason in err
