"""One process of the cloud: wired once, kept running, and ended in order."""

import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.archive_wiring import archiver
from gridtokenx_cloud.errors import CloudError
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.roles.upkeep import UpkeepRole
from gridtokenx_cloud.settings import Settings, non_default_values
from gridtokenx_cloud.supervisor import Role, Supervisor
from gridtokenx_cloud.wiring import (
    Parts,
    api_role,
    bind_facts,
    events_role,
    ingest_role,
    ingest_service,
    make_parts,
    metrics_role,
    open_store,
    settle_role,
    store_check,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppState:
    """A wired process that does not run yet.

    Attributes:
        roles: In the order in which they end: first who takes work in, last who answers.
        draining: Set once the process is to end; `/readyz` is red from then on.
        restarts: How often each role was started again.
    """

    settings: Settings
    database: Database
    roles: tuple[Role, ...]
    draining: threading.Event
    restarts: Counter[str]


def build(settings: Settings, clock: Clock) -> AppState:
    """Wire the roles of this process; nothing runs and no port is open yet.

    Raises:
        ConfigError: A file or a fact of the store does not fit the configuration.
        SchemaError: `gtx-cloud migrate` has to run first.
        SigningKeyError: A key file cannot be used.
    """
    database = open_store(settings)
    try:
        parts = make_parts(settings, clock, database)
        bind_facts(parts)
        draining, restarts = threading.Event(), Counter[str]()
        return AppState(settings, database, _roles(parts, draining, restarts), draining, restarts)
    except CloudError:
        database.close()
        raise


def _roles(parts: Parts, draining: threading.Event, restarts: Counter[str]) -> tuple[Role, ...]:
    settings = parts.settings
    wanted = settings.cloud.roles
    service = ingest_service(parts) if {"ingest", "api"} & set(wanted) else None
    roles: list[Role] = []
    if service is not None and "ingest" in wanted:
        roles.append(ingest_role(parts, service))
    if "settle" in wanted:
        roles.append(settle_role(parts))
    if "events" in wanted:
        roles.append(events_role(parts))
    roles.append(
        UpkeepRole(
            parts.database,
            parts.clock,
            settings.cloud.sample_retention_days,
            settings.websocket.replay_hours,
            archiver(settings.cloud, parts.database, parts.clock),
        )
    )
    if service is not None and "api" in wanted:
        checks: dict[str, Callable[[], str | None]] = {
            "process": lambda: "the process is ending" if draining.is_set() else None,
            "store": lambda: store_check(parts.database),
            **{role.name: role.trouble for role in roles},
        }
        roles.append(api_role(parts, service, checks))
    roles.append(metrics_role(parts, tuple(roles), restarts, service))
    return tuple(roles)


def serve(app: AppState) -> bool:
    """Run until SIGTERM or SIGINT, then end in order; return whether every role ended in time.

    Being killed at any line is as safe: what was not committed was not acknowledged, and what is
    in flight is taken up from the store at the next start.

    Raises:
        PermanentError: A role met what only a human can change.
    """
    supervisor = Supervisor(app.roles, restarts=app.restarts)
    _on_signals(supervisor)
    _log.info("config_loaded", extra=dict(non_default_values(app.settings)))
    _log.info("started", extra={"roles": ",".join(role.name for role in app.roles)})
    supervisor.start()
    try:
        supervisor.wait()
    finally:
        app.draining.set()
        _log.info("stopping", extra={"restarts": supervisor.restarts.total()})
        late = supervisor.stop(app.settings.cloud.shutdown_timeout_secs)
        if late:
            _log.error("roles_still_running", extra={"roles": ",".join(late)})
        else:
            app.database.close()
            _log.info("stopped")
    return not late


def _on_signals(supervisor: Supervisor) -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        # The second one does what it always does: an operator's way out of a slow end.
        signal.signal(number, signal.SIG_DFL)
        supervisor.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
