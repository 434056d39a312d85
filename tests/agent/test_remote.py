"""Commands: only the cloud's, only once, only in time; always answered and written down."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.command_log import SqliteCommandLog
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.errors import BufferFullError, MeterTimeoutError
from gridtokenx_agent.ports import CloudTime
from gridtokenx_agent.remote import Answer, Remote, RemoteParts, refusal
from gridtokenx_wire.command import (
    Command,
    CommandName,
    Outcome,
    Reply,
    decode_reply,
    encode_command,
)
from gridtokenx_wire.record import ClockQuality
from gridtokenx_wire.signing import verify_ed25519
from tests.support import build
from tests.support.fake_bus import SteadyClock

GATEWAY = build.SIGNER.gateway_id


def command(
    name: CommandName = CommandName.READ_NOW,
    *,
    nonce: int = 1,
    issued_ms: int = build.NOON_MS,
    valid_ms: int = 60_000,
    gateway_id: str = GATEWAY,
    argument: str = "",
) -> Command:
    return Command(
        gateway_id=gateway_id,
        nonce=f"{nonce:032x}",
        issued_ms=issued_ms,
        expires_ms=issued_ms + valid_ms,
        command=name,
        argument=argument,
    )


def signed(value: Command, key: Ed25519PrivateKey = build.CLOUD) -> bytes:
    return encode_command(value, key.sign)


class Gateway:
    """A gateway with one command that counts how often it ran."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "buffer.db"
        open_buffer(self.path, GATEWAY, 16, 900, 0).close()
        self.clock = SteadyClock(wall_ms=build.NOON_MS + 1000)
        self.replies: list[bytes] = []
        self.notes: list[tuple[str, str]] = []
        self.ran: list[str] = []
        self.log = SqliteCommandLog(self.path)
        self.remote = self.boot()

    def boot(self, action: Callable[[str, int], Awaitable[Answer]] | None = None) -> Remote:
        async def run(argument: str, _left_ms: int) -> Answer:
            self.ran.append(argument)
            return Answer(outcome="done", detail="ran", result={"n": len(self.ran)})

        async def note(name: str, detail: str) -> None:
            self.notes.append((name, detail))

        self.remote = Remote(
            RemoteParts(
                log=self.log,
                clock=self.clock,
                signer=build.SIGNER,
                cloud_key=build.CLOUD_KEY,
                reply=self.replies.append,
                note=note,
                actions={CommandName.READ_NOW: action or run},
            )
        )
        return self.remote

    def said(self) -> list[Reply]:
        return [decode_reply(payload, GATEWAY, verify_ed25519) for payload in self.replies]

    def outcomes(self) -> list[Outcome]:
        return [reply.outcome for reply in self.said()]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


async def test_a_command_runs_is_answered_and_written_down(gateway: Gateway) -> None:
    await gateway.remote.handle(signed(command(argument="now")))

    (reply,) = gateway.said()
    assert gateway.ran == ["now"]
    assert (reply.outcome, reply.detail, reply.result) == ("done", "ran", {"n": 1})
    assert gateway.notes == [("CommandDone", "read-now 00000000: ran")]


async def test_a_command_that_comes_twice_runs_once_and_gets_the_same_reply(
    gateway: Gateway,
) -> None:
    for _ in range(3):
        await gateway.remote.handle(signed(command()))

    assert len(gateway.ran) == 1
    assert len(set(gateway.replies)) == 1
    assert len(gateway.replies) == 3
    assert len(gateway.notes) == 1


async def test_a_command_that_ran_does_not_run_again_after_a_restart(gateway: Gateway) -> None:
    await gateway.remote.handle(signed(command()))

    await gateway.boot().handle(signed(command()))

    assert len(gateway.ran) == 1


@pytest.mark.parametrize(
    "payload",
    [
        signed(command(), Ed25519PrivateKey.from_private_bytes(b"f" * 32)),
        signed(command(gateway_id=build.CLOUD_KEY_TEXT)),
        signed(command())[:-3] + b'A"}',
        b"\xff no command",
        b"",
    ],
    ids=["forged", "another gateway's", "changed", "noise", "empty"],
)
async def test_what_is_not_the_clouds_does_nothing_and_gets_no_reply(
    gateway: Gateway, payload: bytes
) -> None:
    await gateway.remote.handle(payload)

    assert (gateway.ran, gateway.replies, gateway.notes) == ([], [], [])
    assert gateway.remote.counts.forged == 1


async def test_an_expired_command_is_refused_with_both_times(gateway: Gateway) -> None:
    gateway.clock.advance(60_000)

    await gateway.remote.handle(signed(command()))

    (reply,) = gateway.said()
    assert (gateway.ran, reply.outcome) == ([], "refused")
    assert str(build.NOON_MS + 60_000) in reply.detail
    assert gateway.notes == []


async def test_a_command_from_the_future_is_refused(gateway: Gateway) -> None:
    await gateway.remote.handle(signed(command(issued_ms=build.NOON_MS + 3_600_000)))

    assert (gateway.ran, gateway.outcomes()) == ([], ["refused"])


async def test_without_a_true_clock_only_later_commands_than_the_last_are_taken(
    gateway: Gateway,
) -> None:
    gateway.clock.quality = ClockQuality.UNSYNCHRONISED
    gateway.clock.wall_ms = 0

    await gateway.remote.handle(signed(command(nonce=1, issued_ms=build.NOON_MS)))
    await gateway.remote.handle(signed(command(nonce=2, issued_ms=build.NOON_MS - 1)))
    await gateway.remote.handle(signed(command(nonce=3, issued_ms=build.NOON_MS + 1)))

    assert len(gateway.ran) == 2
    assert gateway.outcomes() == ["done", "refused", "done"]


async def test_a_receipt_tells_a_gateway_without_a_clock_that_a_command_is_old(
    gateway: Gateway,
) -> None:
    gateway.clock.quality = ClockQuality.UNSYNCHRONISED
    buffer = open_buffer(gateway.path, GATEWAY, 16, 900, 0)
    await buffer.settle(build.receipt("M1", (1, 1)), ())
    buffer.close()

    await gateway.remote.handle(signed(command(issued_ms=build.NOON_MS - 60_000)))

    assert (gateway.ran, gateway.outcomes()) == ([], ["refused"])


async def test_a_forgotten_nonce_is_refused_for_its_age(gateway: Gateway) -> None:
    gateway.clock.quality = ClockQuality.UNSYNCHRONISED
    old = signed(command(nonce=1, issued_ms=build.NOON_MS))
    await gateway.remote.handle(old)
    await gateway.remote.handle(signed(command(nonce=2, issued_ms=build.NOON_MS + 60_001)))
    forgotten = await gateway.log.seen(f"{1:032x}")

    await gateway.remote.handle(old)

    assert forgotten is None
    assert gateway.outcomes() == ["done", "done", "refused"]


async def test_what_has_no_action_is_answered_as_not_available(gateway: Gateway) -> None:
    await gateway.remote.handle(signed(command(CommandName.SCAN)))

    (reply,) = gateway.said()
    assert (reply.outcome, reply.detail) == ("refused", "scan is not available at this gateway")


@pytest.mark.parametrize("error", [MeterTimeoutError("meter 1 is silent"), ValueError("a defect")])
async def test_a_command_that_fails_is_answered_and_the_next_one_runs(
    gateway: Gateway, error: Exception
) -> None:
    async def fail(_argument: str, _left_ms: int) -> Answer:
        raise error

    gateway.boot(fail)
    await gateway.remote.handle(signed(command(nonce=1)))
    await gateway.boot().handle(signed(command(nonce=2)))

    assert gateway.outcomes() == ["failed", "done"]
    assert str(error) in gateway.said()[0].detail


async def test_a_command_cut_short_by_the_end_of_the_agent_is_answered_at_the_next_start(
    gateway: Gateway,
) -> None:
    hanging = asyncio.Event()

    async def hang(_argument: str, _left_ms: int) -> Answer:
        hanging.set()
        await asyncio.sleep(3600)
        raise AssertionError

    gateway.boot(hang)
    task = asyncio.create_task(gateway.remote.handle(signed(command())))
    await hanging.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    again = asyncio.create_task(gateway.boot().run())
    while not gateway.notes:  # noqa: ASYNC110 - a list sets no event
        await asyncio.sleep(0.01)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)

    (reply,) = gateway.said()
    assert (gateway.ran, reply.outcome) == ([], "failed")
    assert "ended while it ran" in reply.detail
    assert gateway.notes[0][0] == "CommandFailed"


async def test_a_command_that_cannot_be_written_down_does_not_run(gateway: Gateway) -> None:
    gateway.path.unlink()

    await gateway.remote.handle(signed(command()))

    assert (gateway.ran, gateway.outcomes()) == ([], ["refused"])


async def test_a_result_too_long_for_a_reply_is_left_out_and_said(gateway: Gateway) -> None:
    async def talk(_argument: str, _left_ms: int) -> Answer:
        return Answer(outcome="done", detail="much", result={"text": "x" * 200_000})

    gateway.boot(talk)
    await gateway.remote.handle(signed(command()))

    (reply,) = gateway.said()
    assert (reply.outcome, reply.result) == ("done", {})
    assert "left out" in reply.detail


async def test_too_many_commands_at_once_are_dropped(gateway: Gateway) -> None:
    for number in range(100):
        gateway.remote.inbox(signed(command(nonce=number)))

    task = asyncio.create_task(gateway.remote.run())
    while len(gateway.replies) < 8:  # noqa: ASYNC110 - a list sets no event
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert len(gateway.ran) == 8


async def test_a_command_log_in_a_missing_buffer_says_so(tmp_path: Path) -> None:
    with pytest.raises(BufferFullError, match="command log"):
        await SqliteCommandLog(tmp_path / "none.db").unfinished()


@given(
    issued_ms=st.integers(0, 2**52),
    valid_ms=st.integers(1, 3_600_000),
    wall_ms=st.integers(0, 2**52),
    at_least_ms=st.integers(0, 2**52),
    clock=st.sampled_from(ClockQuality),
)
def test_no_command_is_taken_after_the_cloud_itself_signed_for_a_later_time(
    issued_ms: int, valid_ms: int, wall_ms: int, at_least_ms: int, clock: ClockQuality
) -> None:
    value = command(issued_ms=issued_ms, valid_ms=valid_ms)
    now = build.instant(wall_ms=wall_ms, clock=clock)

    why_not = refusal(value, now, CloudTime(last_command_ms=0, at_least_ms=at_least_ms))

    if at_least_ms >= value.expires_ms:
        assert why_not is not None
    if clock is not ClockQuality.UNSYNCHRONISED and wall_ms >= value.expires_ms:
        assert why_not is not None
