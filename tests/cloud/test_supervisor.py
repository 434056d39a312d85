import threading

import pytest

from gridtokenx_cloud.errors import ChainMismatchError, RpcUnavailableError
from gridtokenx_cloud.supervisor import RoleTask, Supervisor, restart_pause_s

SOON_S = 10.0


class Scripted:
    """A role that meets each of *errors* in turn and then works until it is stopped."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.working = threading.Event()

    def run(self, stop: threading.Event) -> None:
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
            return
        self.working.set()
        stop.wait()


def supervise(*roles: tuple[str, Scripted]) -> Supervisor:
    return Supervisor(
        [RoleTask(name, role.run) for name, role in roles], pause_s=lambda _failures: 0.0
    )


def test_a_role_that_fails_is_started_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    role = Scripted(RpcUnavailableError("no node answers"), ZeroDivisionError(), None)
    supervisor = supervise(("settle", role))

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
    healthy = Scripted()
    supervisor = supervise(("settle", Scripted(ChainMismatchError("wrong mint"))), ("api", healthy))

    supervisor.start()

    with pytest.raises(ChainMismatchError, match="wrong mint"):
        supervisor.wait()
    assert supervisor.stop(SOON_S) == []


def test_roles_end_one_after_another_in_their_order() -> None:
    ended: list[str] = []

    def role(name: str) -> RoleTask:
        def run(stop: threading.Event) -> None:
            stop.wait()
            ended.append(name)

        return RoleTask(name, run)

    supervisor = Supervisor([role("ingest"), role("settle"), role("api")])
    supervisor.start()
    supervisor.request_stop()
    supervisor.wait()

    late = supervisor.stop(SOON_S)

    assert late == []
    assert ended == ["ingest", "settle", "api"]


def test_a_role_that_does_not_end_is_named_and_holds_nobody_up() -> None:
    release = threading.Event()

    def stuck(_stop: threading.Event) -> None:
        release.wait()

    supervisor = Supervisor([RoleTask("stuck", stuck)])
    supervisor.start()

    late = supervisor.stop(0.05)

    release.set()
    assert late == ["stuck"]


def test_a_pause_doubles_up_to_a_minute() -> None:
    pauses = [restart_pause_s(failures) for failures in (1, 2, 3, 6, 7, 99)]

    assert pauses == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]


def test_a_stop_ends_the_pause_before_a_restart() -> None:
    supervisor = Supervisor(
        [RoleTask("settle", Scripted(RpcUnavailableError("gone")).run)],
        pause_s=lambda _failures: 3600.0,
    )
    supervisor.start()

    late = supervisor.stop(SOON_S)

    assert late == []
