"""How busy a bus may be, and what is said when it would be too busy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.profiles import Load, bus_busy_percent, busy_fault
from gridtokenx_agent.reader import bus_loads

SDM630 = find_profile("eastron-sdm630")


def test_one_read_costs_its_characters_its_rest_and_the_meters_thought() -> None:
    """8 + 5 + 8 characters of 11 bits at 9600 baud, 100 ms of rest, 20 ms of latency: 144 ms."""
    load = Load(profile=SDM630, points=("import_energy", "export_energy"), period_s=1)

    assert bus_busy_percent([load], 9600) == 15


def test_over_tcp_only_latency_counts() -> None:
    load = Load(profile=SDM630, points=("import_energy", "export_energy"), period_s=1)

    assert bus_busy_percent([load], None) == 2


def test_a_bus_without_meters_is_idle() -> None:
    assert bus_busy_percent([], 9600) == 0


def test_eight_meters_every_second_are_too_much_for_9600_baud() -> None:
    loads = [load for _ in range(8) for load in bus_loads(SDM630, 900, 1)]

    fault = busy_fault(bus_busy_percent(loads, 9600), 8, 9600)

    assert fault is not None
    assert fault.startswith("8 meters at 9600 baud would keep it ")
    assert "70 % is the limit" in fault


def test_ten_meters_every_quarter_hour_are_no_work() -> None:
    loads = [load for _ in range(10) for load in bus_loads(SDM630, 900, 10)]

    assert busy_fault(bus_busy_percent(loads, 9600), 10, 9600) is None


@pytest.mark.parametrize(("percent", "refused"), [(70, False), (71, True)])
def test_seventy_percent_is_the_limit(percent: int, refused: bool) -> None:
    assert (busy_fault(percent, 1, None) is not None) == refused


@given(
    name=st.sampled_from(sorted(profile_paths())),
    sample_s=st.integers(0, 60),
    baudrate=st.sampled_from([1200, 2400, 9600, 19200, 115200]),
    more=st.integers(1, 20),
)
def test_more_meters_never_make_a_bus_less_busy_and_a_faster_line_never_more(
    name: str, sample_s: int, baudrate: int, more: int
) -> None:
    loads = list(bus_loads(find_profile(name), 900, sample_s))

    one = bus_busy_percent(loads, baudrate)

    assert bus_busy_percent(loads * more, baudrate) >= one
    assert bus_busy_percent(loads, 2 * baudrate) <= one
    assert bus_busy_percent(loads, None) <= one
