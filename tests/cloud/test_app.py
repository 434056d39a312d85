from collections.abc import Callable
from pathlib import Path

import pytest
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import write_keypair
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.upkeep import forget
from gridtokenx_cloud.app import AppState, build
from gridtokenx_cloud.errors import ConfigError, SchemaError, SigningKeyError
from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.settings import Settings, load_settings
from gridtokenx_cloud.wiring import own_origins
from gridtokenx_wire import base58
from tests.support.build_cloud import FakeClock

MINT = base58.encode_key(bytes([7]) * 32)
OTHER_MINT = base58.encode_key(bytes([8]) * 32)
Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Give settings of a process with every role, over a migrated store."""
    monkeypatch.chdir(tmp_path)
    for name in ("cloud", "authority", "payer"):
        write_keypair(tmp_path / name, Keypair())
    database = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    migrate(database)
    database.close()

    def configured(**changed: str) -> Settings:
        environ = {
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_DATABASE_URL": f"sqlite:///{tmp_path / 'cloud.db'}",
            "GTX_CLOUD_MQTT_URL": "mqtt://127.0.0.1:1",
            "GTX_CLOUD_CLOUD_KEY": f"file:{tmp_path / 'cloud'}",
            "GTX_CLOUD_SOLANA_RPC_URLS": "http://127.0.0.1:1",
            "BLOCKCHAIN_MINT_ADDRESS": MINT,
            "BLOCKCHAIN_GENESIS_HASH": MINT,
            "BLOCKCHAIN_MINT_AUTHORITY_KEY": f"file:{tmp_path / 'authority'}",
            "BLOCKCHAIN_FEE_PAYER_KEY": f"file:{tmp_path / 'payer'}",
            "BLOCKCHAIN_MARKER_SECRET": "m" * 32,
        }
        return load_settings(environ=environ | changed)

    return configured


def names(app: AppState) -> list[str]:
    app.database.close()
    return [role.name for role in app.roles]


def test_who_takes_work_in_ends_first_and_who_answers_ends_last(configure: Configure) -> None:
    app = build(configure(), FakeClock())

    assert names(app) == ["ingest", "settle", "events", "upkeep", "api", "metrics"]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("events", ["events", "upkeep", "metrics"]),
        ("settle", ["settle", "upkeep", "metrics"]),
        ("api,ingest", ["ingest", "upkeep", "api", "metrics"]),
    ],
)
def test_a_process_has_the_roles_it_was_given(
    configure: Configure, roles: str, expected: list[str]
) -> None:
    app = build(configure(GTX_CLOUD_ROLES=roles), FakeClock())

    assert names(app) == expected


def test_a_role_that_does_not_run_yet_says_what_is_missing(configure: Configure) -> None:
    app = build(configure(), FakeClock())

    troubles = {role.name: role.trouble() for role in app.roles}

    app.database.close()
    assert {name for name, trouble in troubles.items() if trouble} == {
        "ingest",
        "settle",
        "events",
    }


def test_a_store_keeps_to_the_token_it_was_started_with(configure: Configure) -> None:
    names(build(configure(), FakeClock()))

    with pytest.raises(ConfigError, match="this store was started with"):
        build(configure(BLOCKCHAIN_MINT_ADDRESS=OTHER_MINT), FakeClock())
    with pytest.raises(ConfigError, match="base_units_per_wh"):
        build(configure(TOKENIZATION_KWH_TO_TOKEN_RATIO="2"), FakeClock())


def test_a_store_without_schema_is_refused(configure: Configure, tmp_path: Path) -> None:
    settings = configure(GTX_CLOUD_DATABASE_URL=f"sqlite:///{tmp_path / 'new.db'}")

    with pytest.raises(SchemaError, match="gtx-cloud migrate"):
        build(settings, FakeClock())


def test_a_key_that_others_can_read_is_refused(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "cloud").chmod(0o640)

    with pytest.raises(SigningKeyError, match="chmod 600"):
        build(configure(), FakeClock())


@pytest.mark.parametrize(
    ("changed", "origins"),
    [
        ({}, ("http://127.0.0.1:8080", "http://localhost:8080")),
        ({"GTX_CLOUD_HTTP_BIND": "10.0.0.5:80"}, ("http://10.0.0.5:80",)),
        ({"WEBSOCKET_PUBLIC_URL": "wss://energy.example/ws"}, ("https://energy.example",)),
        ({"GTX_CLOUD_ALLOWED_ORIGINS": "https://a.example"}, ("https://a.example",)),
    ],
)
def test_our_own_origins_follow_from_where_the_page_is_served(
    configure: Configure, changed: dict[str, str], origins: tuple[str, ...]
) -> None:
    assert own_origins(configure(**changed)) == origins


class Feed:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def wake(self) -> None:
        self.heard.append("wake")

    def connections(self) -> list[dict[str, object]]:
        return []

    def close_connection(self, conn: str) -> bool:
        return False

    def publish_sample(self, user_id: str, event: MeterReadingReceived) -> None:
        self.heard.append(f"{user_id} {event.meter_id}")


def sample() -> MeterReadingReceived:
    return MeterReadingReceived(
        kind="sample",
        reading_id=None,
        user_id="ann",
        wallet_address="w",
        meter_id="HOUSE-17",
        status="accepted",
        kwh_amount="0.000",
        credit_wh=0,
        import_wh=None,
        export_wh=None,
        reading_timestamp=None,
    )


def test_a_commit_wakes_the_events_and_minting_only_for_a_credit() -> None:
    relay, feed, woken = Relay(), Feed(), []
    relay.feed = feed
    relay.wake_minting = lambda: woken.append("credit")

    relay.committed(False)
    relay.committed(True)
    relay.sampled(sample())

    assert feed.heard == ["wake", "wake", "ann HOUSE-17"]
    assert woken == ["credit"]


def test_where_nobody_listens_a_nudge_is_lost_in_peace() -> None:
    relay = Relay()

    relay.committed(True)
    relay.sampled(sample())

    assert relay.feed is None


def test_upkeep_forgets_old_samples_and_events_and_nothing_else(configure: Configure) -> None:
    app = build(configure(), FakeClock())
    fill(app.database)

    gone = forget(app.database, samples_before_ms=50, events_before_ms=70)

    read = app.database.connection
    kept = [tuple(row) for row in read.execute("SELECT seq FROM meter_samples")]
    numbers = [tuple(row) for row in read.execute("SELECT event_number FROM events")]
    app.database.close()
    assert gone == 50 + 70
    assert kept == [(seq,) for seq in range(50, 100)]
    assert numbers == [(number,) for number in range(71, 101)]


def fill(database: Database) -> None:
    """Write a sample and an event for each of the milliseconds 0 to 99."""
    with database.transaction() as tx:
        tx.execute("INSERT INTO users VALUES ('ann', 'w', 0)")
        tx.execute("INSERT INTO gateways VALUES ('g', 'g', 'active', 0)")
        tx.execute("INSERT INTO meters VALUES ('M', 'g', 'ann', 1, 1, 'first', 0)")
        tx.execute("INSERT INTO event_streams VALUES ('admin', 'e', 100)")
        for at_ms in range(100):
            tx.execute(
                "INSERT INTO meter_samples (meter_id, epoch, seq, submitted_at_ms, line)"
                " VALUES ('M', 'e', ?, ?, x'00')",
                (at_ms, at_ms),
            )
            tx.execute(
                "INSERT INTO events (stream, stream_offset, type, body, created_at_ms)"
                " VALUES ('admin', ?, 't', '{}', ?)",
                (at_ms + 1, at_ms),
            )
