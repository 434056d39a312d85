import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.rtu_framing import RtuRequest, crc16, rtu_frame


def request(unit: int = 1, function: int = 3, address: int = 100, count: int = 2) -> RtuRequest:
    pdu = bytes((function,)) + address.to_bytes(2) + count.to_bytes(2)
    return RtuRequest(rtu_frame(unit, pdu))


def answer(unit: int = 1, function: int = 3, data: bytes = b"\x43\x66\x19\x9a") -> bytes:
    return rtu_frame(unit, bytes((function, len(data))) + data)


@pytest.mark.parametrize(
    ("body", "frame"),
    [
        ("01 04 00 00 00 02", "01 04 00 00 00 02 71 CB"),
        ("01 04 04 43 67 AF 55", "01 04 04 43 67 AF 55 E2 10"),
        ("01 04 04 45 A2 26 C7", "01 04 04 45 A2 26 C7 14 98"),
        ("01 04 04 41 FA 17 7C", "01 04 04 41 FA 17 7C C1 98"),
        ("01 03 4A 38 00 02", "01 03 4A 38 00 02 53 DE"),
    ],
)
def test_the_check_sum_is_that_of_real_traffic(body: str, frame: str) -> None:
    data = bytes.fromhex(body)

    assert data + crc16(data) == bytes.fromhex(frame)
    assert rtu_frame(data[0], data[1:]) == bytes.fromhex(frame)


@pytest.mark.parametrize(
    "before",
    [
        b"",
        request().frame,
        request().frame[1:],
        b"\x00",
        b"\xff\xff",
        b"\x01\x03\x10",
        b"\x01\x03\x04",
        answer(unit=2),
        answer(unit=2, data=b"\x00\x01"),
        answer(function=4),
        answer(data=b"\x00\x01"),
        answer(data=bytes(12)),
        answer()[:-1] + b"\x00",
    ],
    ids=[
        "nothing",
        "echo",
        "echo with its first byte missing",
        "one zero",
        "two ones",
        "half a header",
        "a whole header",
        "late frame of unit 2",
        "short late frame of unit 2",
        "other function",
        "too few registers",
        "too many registers",
        "wrong check sum",
    ],
)
def test_the_true_answer_is_found_behind_anything(before: bytes) -> None:
    true = answer(data=b"\x12\x34\x56\x78")

    assert request().find_answer(before) is None
    assert request().find_answer(before + true) == true
    assert request().find_answer(before + true + b"\x00\xff") == true


def test_an_answer_in_pieces_is_waited_for() -> None:
    true = answer()

    found = [request().find_answer(true[:length]) for length in range(len(true) + 1)]

    assert found == [None] * len(true) + [true]


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 0x0B, 127])
def test_an_exception_of_the_right_unit_is_an_answer(code: int) -> None:
    refusal = rtu_frame(1, bytes((0x83, code)))

    assert request().find_answer(refusal) == refusal


@pytest.mark.parametrize("foreign", [rtu_frame(2, b"\x83\x02"), rtu_frame(1, b"\x84\x02")])
def test_an_exception_of_another_unit_or_function_is_none(foreign: bytes) -> None:
    assert request().find_answer(foreign) is None


def test_an_answer_with_an_odd_number_of_bytes_is_none() -> None:
    assert request().find_answer(answer(data=b"\x01\x02\x03")) is None


@given(noise=st.binary(max_size=300))
def test_noise_is_never_taken_for_an_answer_unless_it_is_one(noise: bytes) -> None:
    found = request().find_answer(noise)

    assert found is None or (found in noise and crc16(found[:-2]) == found[-2:])


@given(noise=st.binary(max_size=60), data=st.binary(min_size=4, max_size=4))
def test_noise_before_an_answer_never_hides_it(noise: bytes, data: bytes) -> None:
    true = answer(data=data)

    found = request().find_answer(noise + true)

    assert found is not None
    assert crc16(found[:-2]) == found[-2:]
