"""The parts of the Modbus bus that need no bus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.modbus.answers import MbapRequest, WrongAnswerError
from gridtokenx_agent.adapters.modbus.endpoint import BusEndpoint, parse_bus_url
from gridtokenx_agent.adapters.modbus.quiet import QuietRule
from gridtokenx_agent.adapters.modbus.timing import UnitTiming
from gridtokenx_agent.errors import ConfigError

REQUEST = MbapRequest(bytes.fromhex("0007 0000 0006 01 03 0064 0002"))
ANSWER = bytes.fromhex("0007 0000 0007 01 03 04 4366199A")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("tcp://meter.lan", BusEndpoint(kind="tcp", host="meter.lan", port=502)),
        ("tcp://[fe80::1]:1502", BusEndpoint(kind="tcp", host="fe80::1", port=1502)),
        (
            "rtu+tcp://10.0.0.9:4196?baudrate=19200",
            BusEndpoint(kind="rtu+tcp", host="10.0.0.9", port=4196, baudrate=19200),
        ),
        ("rtu:///dev/ttyUSB0", BusEndpoint(kind="rtu", host="/dev/ttyUSB0")),
        (
            "rtu:///dev/serial/by-id/usb-FTDI?baudrate=2400&parity=E&stopbits=2",
            BusEndpoint(
                kind="rtu",
                host="/dev/serial/by-id/usb-FTDI",
                baudrate=2400,
                parity="E",
                stopbits=2,
            ),
        ),
    ],
)
def test_a_bus_is_found_by_its_url(url: str, endpoint: BusEndpoint) -> None:
    assert parse_bus_url(url) == endpoint


@pytest.mark.parametrize(
    ("url", "faults"),
    [
        ("http://meter", ["must begin with tcp://, rtu+tcp:// or rtu://"]),
        ("tcp://", ["name the host"]),
        ("tcp://meter:99999", ["the port must be a number up to 65535"]),
        ("tcp://meter:502/unit/1", ["only host and port belong here"]),
        ("tcp://meter?baudrate=9600", ["unknown setting 'baudrate'; there is none"]),
        ("rtu+tcp://meter", ["name the port of the serial server"]),
        ("rtu://dev/ttyUSB0", ["absolute path"]),
        (
            "rtu:///dev/ttyUSB0?baudrate=fast&parity=X&stopbits=3&speed=1",
            ["unknown setting 'speed'", "baudrate 'fast'", "parity 'X'", "stopbits '3'"],
        ),
    ],
)
def test_every_fault_of_a_bus_url_is_named(url: str, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bus_url(url)

    assert len(caught.value.faults) == len(faults)
    for fault in faults:
        assert any(fault in found for found in caught.value.faults)


def test_a_frame_ends_after_three_and_a_half_characters() -> None:
    slow = parse_bus_url("rtu:///dev/ttyUSB0?baudrate=9600")
    fast = parse_bus_url("rtu:///dev/ttyUSB0?baudrate=115200")

    assert slow.gap_s == pytest.approx(0.00401, abs=1e-5)
    assert fast.gap_s == 0.00175


def test_the_wire_itself_takes_time() -> None:
    serial = parse_bus_url("rtu:///dev/ttyUSB0?baudrate=9600")

    assert serial.wire_s(173) == pytest.approx(0.198, abs=1e-3)
    assert parse_bus_url("tcp://meter").wire_s(173) == 0


def test_an_unknown_meter_is_given_half_a_second() -> None:
    assert UnitTiming().timeout_s == 0.5


@pytest.mark.parametrize(
    ("latency_s", "timeout_s"), [(0.001, 0.2), (0.1, 0.4), (0.3, 1.2), (1.5, 2.0), (-0.01, 0.2)]
)
def test_the_timeout_is_four_latencies_within_bounds(latency_s: float, timeout_s: float) -> None:
    timing = UnitTiming()

    for _ in range(20):
        timing.answered(latency_s)

    assert timing.timeout_s == pytest.approx(timeout_s)


def test_a_meter_that_became_slow_is_waited_for_longer() -> None:
    timing = UnitTiming()
    timing.answered(0.01)

    timeouts = []
    for _ in range(5):
        timing.missed()
        timeouts.append(timing.timeout_s)

    assert timeouts == [0.4, 0.8, 1.6, 1.6, 1.6]


@pytest.mark.parametrize("latency_s", [0.01, 0.1, 0.15, 0.3, 0.5])
def test_a_dead_meter_is_listened_for_two_seconds_and_not_longer(latency_s: float) -> None:
    timing = UnitTiming()
    timing.answered(latency_s)

    for _ in range(9):
        timing.missed()

    listens_s = timing.timeout_s + 2 * timing.usual_s
    assert listens_s == pytest.approx(max(2.0, 3 * timing.usual_s))


def test_one_slow_answer_is_forgotten_in_the_end() -> None:
    timing = UnitTiming()
    timing.answered(0.4)

    for _ in range(16):
        timing.answered(0.01)

    assert timing.timeout_s == 0.2


def test_after_a_miss_the_bus_is_quiet_for_twice_the_timeout() -> None:
    quiet = QuietRule()

    quiet.missed(1, sent_s=10.0, now_s=10.5, timeout_s=0.5, owed=False)

    assert quiet.until_s(1) == 11.5
    assert quiet.until_s(2) == 11.5


def test_a_meter_that_owes_an_answer_is_left_alone_for_longer() -> None:
    quiet = QuietRule()

    quiet.missed(1, sent_s=10.0, now_s=10.5, timeout_s=0.5, owed=True)

    assert quiet.until_s(1) == 13.0
    assert quiet.until_s(2) == 11.5


def test_the_late_answer_ends_the_quiet() -> None:
    quiet = QuietRule()
    quiet.missed(1, sent_s=10.0, now_s=10.5, timeout_s=0.5, owed=True)

    quiet.paid(1)

    assert quiet.until_s(1) == 0


@pytest.mark.parametrize(
    "before",
    [
        b"",
        bytes.fromhex("0006 0000 0007 01 03 04 00000000"),
        bytes.fromhex("0000 0000 0007 01 03 04 00000000"),
        b"\xde\xad\xbe\xef",
        b"\x00",
    ],
    ids=["nothing", "late answer", "answer without a number", "four bytes of noise", "one zero"],
)
def test_only_the_answer_with_our_number_counts(before: bytes) -> None:
    """pymodbus#538, EasyModbusTCP#56, tmodbus#88: the transaction id was ignored."""
    assert REQUEST.find_answer(before) is None
    assert REQUEST.find_answer(before + ANSWER[:-1]) is None
    assert REQUEST.find_answer(before + ANSWER) == ANSWER


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("0007 0000 0005 01 03 02 4366", "2 data bytes came, 4 were asked"),
        ("0007 0000 000B 01 03 08 FFFFFFFFFFFFFFFF", "8 data bytes came, 4 were asked"),
        ("0007 0000 0007 01 04 04 4366199A", "function 4 answered a request for 3"),
        ("0007 0000 0006 01 03 03 436619", "3 data bytes came, 4 were asked"),
        ("0007 0000 0007 FF 03 04 4366199A", "unit 255 answered for unit 1"),
        ("0007 0000 0007 01 03 08 4366199A", "4 data bytes came, 4 were asked"),
        ("0007 0000 0003 01 84 02", "function 132 answered a request for 3"),
    ],
)
def test_a_wrong_answer_with_our_number_is_refused_at_once(answer: str, reason: str) -> None:
    with pytest.raises(WrongAnswerError, match=reason):
        REQUEST.find_answer(bytes.fromhex(answer))


def test_an_exception_with_our_number_is_an_answer() -> None:
    refusal = bytes.fromhex("0007 0000 0003 01 83 02")

    assert REQUEST.find_answer(refusal) == refusal


def test_real_answers_of_a_restarting_inverter_are_found() -> None:
    request = MbapRequest(bytes.fromhex("9F38 0000 0006 03 03 7731 0004"))
    answer = bytes.fromhex("9F38 0000 000B 03 03 08 FFFFFFFFFFFFFFFF")

    assert request.find_answer(answer) == answer


@given(noise=st.binary(max_size=300))
def test_noise_never_crashes_the_search(noise: bytes) -> None:
    try:
        found = REQUEST.find_answer(noise)
    except WrongAnswerError:
        return

    assert found is None or found in noise
