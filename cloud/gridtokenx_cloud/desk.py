"""Puts together what operators do through the HTTP API."""

from collections.abc import Callable

from gridtokenx_cloud.adapters.mosquitto import new_password, password_line
from gridtokenx_cloud.adapters.store.access import SqlAccess
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.enrolment import SqlEnrolment
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.mint_retry import SqlRetryQueue
from gridtokenx_cloud.adapters.store.mint_trigger import SqlMintTrigger
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.adapters.store.records import SqlApiTokens, SqlRecords
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ports.admin import Administration, Desk, LiveConnections
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.registry import open_claim
from gridtokenx_cloud.settings import Settings, TokenizationConfig
from gridtokenx_cloud.settings.live import LiveTokenization, overridden, texts_of
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_cloud.waiting import Pace
from gridtokenx_cloud.wallets import check_wallet


def administration(
    settings: Settings,
    database: Database,
    clock: Clock,
    live: LiveTokenization,
    rules: Callable[[], ReadingRules],
    pass_wanted: Callable[[], None] = lambda: None,
    live_connections: Callable[[], LiveConnections | None] = lambda: None,
) -> Administration:
    """Return what the admin routes work with."""

    def desk_of(actor: str) -> Desk:
        return Desk(
            registry=SqlRegistry(database, clock, actor=actor),
            moves=SqlEnrolment(database, clock, actor=actor),
            held=SqlHeldReadings(database, clock, actor=actor),
            retries=SqlRetryQueue(database, clock, actor=actor),
            overrides=SqlOverrides(database, clock, actor=actor),
            trigger=SqlMintTrigger(database),
            tokens=SqlApiTokens(SqlAccess(database, clock), actor=actor),
            records=SqlRecords(database, clock),
        )

    return Administration(
        desk_of=desk_of,
        config=lambda: texts_of(live.current()),
        check_config=lambda texts: overridden(settings, texts),
        config_changed=live.forget,
        live=live_connections,
        pass_wanted=pass_wanted,
        pace=lambda: _pace(live.current()),
        rules=rules,
        password_line=password_line,
        new_password=new_password,
        open_claim=lambda text: open_claim(text, verify),
        check_wallet=lambda user_id, wallet: check_wallet(settings, user_id, wallet),
    )


def _pace(group: TokenizationConfig) -> Pace:
    return Pace(
        auto_mint=group.auto_mint_enabled,
        owner_percent=group.auto_mint_percentage,
        threshold_wh=int(group.mint_threshold * 1000),
    )
