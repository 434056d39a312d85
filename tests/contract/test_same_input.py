"""Whatever comes in, both stores take the same of it and refuse the rest with the same words."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtokenx_cloud.ingest import Message
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, Cloud
from tests.support.postgres import Server
from tests.support.stores import migrated

pytestmark = pytest.mark.integration
WHAT_IS_STORED = (
    "SELECT seq, status, credit_wh, reason, line FROM meter_readings ORDER BY epoch, seq",
    "SELECT gateway_id, line, code, reason, times FROM rejections ORDER BY line_hash, gateway_id",
    "SELECT stream, epoch, first_seq, last_seq FROM seq_ranges ORDER BY 1, 2, 3",
    "SELECT stream, stream_offset, admin_offset, type FROM events ORDER BY event_number",
)


@pytest.fixture(scope="module")
def pair(
    postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cloud, Cloud]]:
    folder: Path = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        yield (
            stack.enter_context(build.cloud(folder)),
            stack.enter_context(build.cloud(migrated(postgres.new_database()))),
        )


def check(pair: tuple[Cloud, Cloud], *messages: Message) -> None:
    tallies = [cloud.take(*messages).tally for cloud in pair]

    assert tallies[0] == tallies[1]
    for sql in WHAT_IS_STORED:
        first, second = (cloud.rows(sql) for cloud in pair)
        assert first == second


def changed(old: bytes, new: bytes) -> bytes:
    """Return a good line with a piece of it exchanged."""
    line = GATEWAY.line(build.slot(96, 1_000))
    assert old in line
    return line.replace(old, new)


GOOD = GATEWAY.line(build.slot(97, 1_400))
ODD = {
    "nan": changed(b'"export_wh":1000', b'"export_wh":NaN'),
    "infinity": changed(b'"export_wh":1000', b'"export_wh":1e999'),
    "fraction": changed(b'"export_wh":1000', b'"export_wh":1.5'),
    "2^63": changed(b'"export_wh":1000', b'"export_wh":9223372036854775808'),
    "true": changed(b'"export_wh":1000', b'"export_wh":true'),
    "text": changed(b'"export_wh":1000', b'"export_wh":"12"'),
    "NUL in a text": changed(b"HOUSE-17", b"HOUSE\\u0000"),
    "lone surrogate": changed(b"HOUSE-17", b"HOUSE\\ud800"),
    "NUL": changed(b"HOUSE-17", b"HOUSE\x00"),
    "no UTF-8": changed(b"HOUSE-17", b"HOUSE\xff"),
    "twice": changed(b'"export_wh":1000', b'"export_wh":1000,"export_wh":1000'),
    "empty": b"",
    "long": b"[" * 100_000,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_line_is_the_same_to_both_and_its_neighbours_are_stored(
    pair: tuple[Cloud, Cloud], odd: bytes
) -> None:
    check(pair, Message(GATEWAY.sends(build.slot(96, 1_000)).topic, odd), GATEWAY.message(GOOD))


@pytest.mark.parametrize(
    "name", ["", "\0", "a\0b", "\ud800", "é", "'; DROP TABLE users", "$x", "+"]
)
def test_an_odd_topic_is_the_same_to_both(pair: tuple[Cloud, Cloud], name: str) -> None:
    for topic in (name, f"gridtokenx/v1/{name}/readings"):
        check(pair, Message(topic, GOOD), GATEWAY.message(GOOD))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=200), st.integers(0, len(GOOD) - 1), st.binary(max_size=3))
def test_any_bytes_are_the_same_to_both(
    pair: tuple[Cloud, Cloud], noise: bytes, at: int, piece: bytes
) -> None:
    bent = GOOD[:at] + piece + GOOD[at + 1 :]

    check(pair, *(Message(GATEWAY.message(GOOD).topic, payload) for payload in (noise, bent)))
