import threading

import pytest

from gridtokenx_cloud.errors import ChainMismatchError, RpcUnavailableError
from gridtokenx_cloud.supervisor import StopSignal, Supervisor, restart_pause_s

SOON_S = 60.0


class Scripted:
    """A role that meets each of *errors* in turn and then works until it is stopped."""

    def __init__(self, name: str, *errors: Exception | None) -> None:
        self.name = name
        self.errors = list(errors)
        self.working = threading.Event()

    def trouble(self) -> str | None:
        return None

    def run(self, stop: StopSignal) -> None:
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
            return
        self.working.set()
        stop.wait()


def supervise(*roles: Scripted) -> Supervisor:
    return Supervisor(roles, pause_s=lambda _failures: 0.0)


def test_a_role_that_fails_is_started_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    role = Scripted("settle", RpcUnavailableError("no node answers"), ZeroDivisionError(), None)
    supervisor = supervise(role)

    supervisor.start()
    assert role.working.wait(SOON_S)

    assert supervisor.restarts == {"settle": 3}
    assert [record.message for record in caplog.records] == [
        "role_failed",
        "role_crashed",
        "role_ended",
    ]
    assert supervisor.stop(SOON_S) == []


def test_an_error_only_a_human_can_cure_ends_the_program() -> None:
    supervisor = supervise(Scripted("settle", ChainMismatchError("wrong mint")), Scripted("api"))

    supervisor.start()

    with pytest.raises(ChainMismatchError, match="wrong mint"):
        supervisor.wait()
    assert supervisor.stop(SOON_S) == []


def test_roles_end_one_after_another_in_their_order() -> None:
    ended: list[str] = []

    class Noting(Scripted):
        def run(self, stop: StopSignal) -> None:
            self.working.set()
            stop.wait()
            ended.append(self.name)

    roles = [Noting("ingest"), Noting("settle"), Noting("api")]
    supervisor = supervise(*roles)
    supervisor.start()
    assert all(role.working.wait(SOON_S) for role in roles)
    supervisor.request_stop()
    supervisor.wait()

    late = supervisor.stop(SOON_S)

    assert late == []
    assert ended == ["ingest", "settle", "api"]


def test_a_role_that_does_not_end_is_named_and_holds_nobody_up() -> None:
    release = threading.Event()

    class Stuck(Scripted):
        def run(self, stop: StopSignal) -> None:
            release.wait()

    supervisor = supervise(Stuck("stuck"))
    supervisor.start()

    late = supervisor.stop(0.05)

    release.set()
    assert late == ["stuck"]


def test_a_pause_doubles_up_to_a_minute() -> None:
    pauses = [restart_pause_s(failures) for failures in (1, 2, 3, 6, 7, 99)]

    assert pauses == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]


def test_a_stop_ends_the_pause_before_a_restart() -> None:
    supervisor = Supervisor(
        [Scripted("settle", RpcUnavailableError("gone"))],
        pause_s=lambda _failures: 3600.0,
    )
    supervisor.start()

    late = supervisor.stop(SOON_S)

    assert late == []


def test_a_role_that_asks_to_be_told_of_the_end_too_late_is_told_at_once() -> None:
    told: list[str] = []
    stop = StopSignal()
    stop.set()

    stop.tell(lambda: told.append("now"))

    assert told == ["now"]
