"""Puts together what operators do through the HTTP API."""

from collections.abc import Callable

from gridtokenx_cloud.adapters.mosquitto import new_password, password_line
from gridtokenx_cloud.adapters.store.access import SqliteAccess
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.enrolment import SqliteEnrolment
from gridtokenx_cloud.adapters.store.held import SqliteHeldReadings
from gridtokenx_cloud.adapters.store.mint_retry import SqliteRetryQueue
from gridtokenx_cloud.adapters.store.overrides import SqliteOverrides
from gridtokenx_cloud.adapters.store.records import SqliteApiTokens, SqliteRecords
from gridtokenx_cloud.adapters.store.registry import SqliteRegistry
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ports.admin import Administration, Desk
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.registry import open_claim
from gridtokenx_cloud.settings import Settings
from gridtokenx_cloud.settings.live import LiveTokenization, overridden, texts_of
from gridtokenx_cloud.verify import ReadingRules


def administration(
    settings: Settings,
    database: Database,
    clock: Clock,
    live: LiveTokenization,
    rules: Callable[[], ReadingRules],
) -> Administration:
    """Return what the admin routes work with."""

    def desk_of(actor: str) -> Desk:
        return Desk(
            registry=SqliteRegistry(database, clock, actor=actor),
            moves=SqliteEnrolment(database, clock, actor=actor),
            held=SqliteHeldReadings(database, clock, actor=actor),
            retries=SqliteRetryQueue(database, clock, actor=actor),
            overrides=SqliteOverrides(database, clock, actor=actor),
            tokens=SqliteApiTokens(SqliteAccess(database, clock), actor=actor),
            records=SqliteRecords(database, clock),
        )

    return Administration(
        desk_of=desk_of,
        config=lambda: texts_of(live.current()),
        check_config=lambda texts: overridden(settings, texts),
        config_changed=live.forget,
        rules=rules,
        password_line=password_line,
        new_password=new_password,
        open_claim=lambda text: open_claim(text, verify),
    )
