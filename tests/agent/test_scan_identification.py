"""Which meter is it: real frames, the meter that answers any address, and every simulated model."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.adapters.simulator import Faults, House, MeterSimulator, house_registers
from gridtokenx_agent.errors import MeterBusyError, MeterRefusedError, MeterTimeoutError
from gridtokenx_agent.identification import Sureness, judge, passes_gate, rank, same_registers
from gridtokenx_agent.ports import ReadFunction, WordsRead
from gridtokenx_agent.profiles import load_profile
from gridtokenx_agent.scanning import (
    ALL_UNITS,
    QUICK_UNITS,
    Found,
    Line,
    ask,
    identify,
    line_of,
    line_settings,
)
from tests.support.fake_bus import FakeBus, SteadyClock

WORD = st.integers(0, 0xFFFF)
PROFILES = {name: find_profile(name) for name in profile_paths()}

# volkszaehler/mbmd#63, #89: what a real SDM630 said; mbmd's probes of other models included. Its
# current, frequency and counter 0x0048 are not in there: they are what its other words imply.
SDM630_FRAMES = {
    (4, 0x0000): "4367 AF55",
    (4, 0x0006): "3E0A 3D71",
    (4, 0x000C): "41FA 177C",
    (4, 0x0034): "41FA 177C",
    (4, 0x0046): "4248 0000",
    (4, 0x0048): "45A2 26C7",
    (4, 0x016A): "45A2 26C7",
    (4, 0x0008): "4088 FA31",
    (3, 0x4A38): "0000 0000",
}
# esphome/issues#3912: a real SDM230.
SDM230_FRAMES = {
    (4, 0): "436C 7E6E",
    (4, 6): "3DFF A634",
    (4, 12): "41A7 18C3",
    (4, 18): "41B6 35EA",
    (4, 24): "C111 4E2F",
    (4, 30): "3F6A C3F9",
    (4, 36): "43A8 3FA5",
    (4, 70): "4248 0000",
    (4, 72): "45A2 26C7",
}


@dataclass
class LenientBus:
    """A meter that refuses nothing: what it does not know, it says is zero."""

    said: Mapping[tuple[int, int], str]
    gaps_ms: list[int] = field(default_factory=list)

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        image = {
            (kind, start + place): word
            for (kind, start), text in self.said.items()
            for place, word in enumerate(struct.unpack(">2H", bytes.fromhex(text)))
        }
        self.gaps_ms.append(min_gap_ms)
        words = tuple(image.get((function, address + place), 0) for place in range(count))
        return WordsRead(words=words, at=SteadyClock().now())

    async def close(self) -> None: ...


def simulated(name: str, faults: Faults | None = None) -> MeterSimulator:
    clock = SteadyClock()
    house = House(load_w=4000, solar_w=0)
    registers = house_registers(PROFILES[name], house, clock, clock.wall_ms)
    return MeterSimulator(PROFILES[name], registers, faults)


async def found_at(bus: FakeBus | LenientBus, line: Line | None = None) -> Found:
    return await identify(bus, 1, PROFILES, line)


async def test_an_sdm_that_answers_the_probe_of_a_janitza_is_no_janitza() -> None:
    found = await found_at(LenientBus(SDM630_FRAMES))

    named = [entry.profile for entry in found.fits]
    assert "janitza-umg96rm" not in named
    assert named
    assert named[0].startswith("eastron-")


def test_zero_volts_is_the_word_of_no_janitza() -> None:
    assert not passes_gate(PROFILES["janitza-umg96rm"], (0, 0))


@pytest.mark.parametrize(("kind", "scale"), [("float32", "1"), ("uint32", "0.1")])
def test_the_float_an_sdm_gives_for_another_model_is_no_voltage(kind: str, scale: str) -> None:
    profile = load_profile(
        f"""
        model = "MPM"
        manufacturer = "Other"
        grade = "datasheet"
        function = 4
        resolution_wh = 1
        [points]
        voltage_l1 = {{ address = 8, type = "{kind}", unit = "V", scale = "{scale}" }}
        import_energy = {{ address = 0x48, type = "float32", unit = "kWh", evidence = "SINGLE" }}
        """,
        "mpm",
    )

    judged = judge("mpm", profile, {"voltage_l1": (0x4088, 0xFA31), "import_energy": (0x45A2, 0)})

    assert judged.sureness is Sureness.NO
    assert judged.against[0].startswith("voltage_l1 ")


async def test_a_real_sdm230_is_found_with_all_that_agrees() -> None:
    found = await found_at(LenientBus(SDM230_FRAMES), Line(9600, "N", 1))

    best = found.fits[0]
    assert best.profile in ("eastron-sdm120", "eastron-sdm220", "eastron-sdm230")
    assert best.sureness is Sureness.LIKELY
    assert "voltage_l1 236.494" in " ".join(best.agrees).replace("236.49387", "236.494")
    assert same_registers(PROFILES[best.profile], PROFILES["eastron-sdm230"])


async def test_a_device_that_says_zero_to_everything_is_no_meter() -> None:
    found = await found_at(LenientBus({}))

    assert found.fits == ()


async def test_a_device_that_says_236_to_everything_is_no_meter() -> None:
    bus = FakeBus({1: simulated("orno-we-517", Faults(stuck=0x436C))})

    found = await found_at(bus)

    assert found.fits == ()
    assert found.misses
    assert found.misses[0].against


@pytest.mark.parametrize("name", PROFILES)
async def test_every_simulated_model_is_found_or_named_with_its_equals(name: str) -> None:
    bus = FakeBus({1: simulated(name)})

    found = await found_at(bus, line_of(PROFILES[name]))

    best = found.fits[0]
    equals = [
        entry.profile
        for entry in found.fits
        if (entry.sureness, entry.score) == (best.sureness, best.score)
    ]
    assert name in equals


@pytest.mark.parametrize("name", ["abb-b21", "abb-b23", "abb-b24", "carlo-gavazzi-em24-e1"])
async def test_a_model_register_makes_it_certain_and_excludes_all_others(name: str) -> None:
    found = await found_at(FakeBus({1: simulated(name)}))

    assert [(entry.profile, entry.sureness) for entry in found.fits] == [(name, Sureness.CERTAIN)]


async def test_a_sunspec_device_is_certain() -> None:
    found = await found_at(FakeBus({1: simulated("sunspec-201-204")}))

    assert found.fits[0].profile == "sunspec-201-204"
    assert found.fits[0].sureness is Sureness.CERTAIN


async def test_of_equal_models_the_one_delivered_with_this_line_comes_first() -> None:
    bus = FakeBus({1: simulated("eastron-sdm120")})

    found = await found_at(bus, Line(2400, "N", 1))

    assert found.fits[0].profile == "eastron-sdm120"
    assert {"eastron-sdm220", "eastron-sdm230"} <= {entry.profile for entry in found.fits}


async def test_the_longest_rest_of_any_candidate_is_kept() -> None:
    bus = LenientBus(SDM630_FRAMES)

    await identify(bus, 1, {name: PROFILES[name] for name in ("eastron-sdm72", "abb-b23")}, None)

    assert set(bus.gaps_ms) == {PROFILES["eastron-sdm72"].min_gap_ms}


async def test_nothing_is_asked_twice_in_one_identification() -> None:
    bus = FakeBus({1: simulated("eastron-sdm630")})

    await found_at(bus)

    assert len(bus.reads) == len(set(bus.reads))


async def test_a_scan_only_reads() -> None:
    bus = FakeBus({1: simulated("eastron-sdm630")})

    await found_at(bus)

    assert {function for _, function, _, _ in bus.reads} <= {3, 4}


class Answers:
    """A bus with one answer for all."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def read_words(self, *_: object) -> WordsRead:
        raise self.error

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (MeterRefusedError("exception 2", 2), None),
        (MeterBusyError("exception 6", 6), None),
        (MeterBusyError("exception 11", 0x0B), "nothing"),
        (MeterTimeoutError("silence"), "nothing"),
        (MeterTimeoutError("noise", "garbage"), "garbage"),
    ],
)
async def test_who_refuses_is_there_and_whom_the_gateway_misses_is_not(
    error: Exception, heard: str | None
) -> None:
    assert await ask(Answers(error), 1, PROFILES) == heard


async def test_a_device_that_falls_silent_is_found_without_a_profile() -> None:
    found = await identify(Answers(MeterTimeoutError("silence")), 1, PROFILES, None)

    assert (found.fits, found.misses, found.fingerprint) == ((), (), "")


async def test_one_known_model_is_asked_for_its_own_register() -> None:
    bus = FakeBus({})

    await ask(bus, 7, {"abb-b23": PROFILES["abb-b23"]})

    assert bus.reads == [(7, 3, 0x8960, 2)]


def test_what_most_meters_are_delivered_with_is_tried_first_and_everything_common_after() -> None:
    lines = line_settings(PROFILES.values())

    assert lines[0] == Line(9600, "N", 1)
    assert len(lines) == len(set(lines)) >= 16
    assert {Line(baud, "O", 1) for baud in (2400, 9600, 19200, 38400)} <= set(lines)


def test_the_line_of_one_given_profile_leads() -> None:
    assert line_settings([PROFILES["eastron-sdm120"]])[0] == Line(2400, "N", 1)


def test_the_quick_units_are_the_first_ten_and_all_are_247() -> None:
    assert (QUICK_UNITS[0], QUICK_UNITS[-1], ALL_UNITS[-1]) == (1, 10, 247)


def words_of(**said: str) -> dict[str, tuple[int, ...]]:
    return {name: struct.unpack(">2H", bytes.fromhex(text)) for name, text in said.items()}


def test_a_power_far_beyond_voltage_times_current_speaks_against_a_profile() -> None:
    profile = PROFILES["eastron-sdm120"]
    said = words_of(
        voltage_l1="4366 199A",
        current_l1="3F80 0000",
        frequency="4248 0000",
        active_power="469C 4000",
    )

    judged = judge("eastron-sdm120", profile, said)

    assert judged.sureness is Sureness.NO
    assert "active_power 20000 W" in judged.against[0]


def test_without_load_a_meter_is_possible_but_not_likely() -> None:
    profile = PROFILES["eastron-sdm120"]
    said = words_of(voltage_l1="4366 199A", current_l1="0000 0000", frequency="4248 0000")

    assert judge("eastron-sdm120", profile, said).sureness is Sureness.POSSIBLE


def test_a_frequency_ten_times_too_high_is_a_known_fault_not_another_meter() -> None:
    profile = PROFILES["eastron-sdm630"]
    said = words_of(voltage_l1="4366 199A", frequency="43FA 0000", import_energy="45A2 26C7")

    judged = judge("eastron-sdm630", profile, said)

    assert judged.sureness is Sureness.POSSIBLE
    assert any("ten times" in entry for entry in judged.missing)


def test_energy_alone_is_never_more_than_a_guess() -> None:
    profile = PROFILES["eastron-sdm72"]
    said = words_of(import_energy="45A2 26C7", active_power="4448 0000")

    assert judge("eastron-sdm72", profile, said).sureness is Sureness.GUESS


def test_rank_leaves_out_what_cannot_be() -> None:
    good = judge(
        "eastron-sdm120",
        PROFILES["eastron-sdm120"],
        words_of(voltage_l1="4366 199A", frequency="4248 0000"),
    )
    bad = judge("janitza-umg96rm", PROFILES["janitza-umg96rm"], {"voltage_l1": (0, 0)})

    assert rank([bad, good], {}) == (good,)


@given(st.sampled_from(sorted(PROFILES)), st.data())
def test_no_words_break_a_judgement(name: str, data: st.DataObject) -> None:
    profile = PROFILES[name]
    points = [*profile.points, "identity", "model_register"]
    words = {
        point: data.draw(st.none() | st.lists(WORD, min_size=spec.count, max_size=spec.count))
        for point in points
        if (spec := profile.spec(point)) is not None
    }

    judged = judge(name, profile, words)

    assert judged.sureness in Sureness
    assert not (judged.against and judged.sureness)
