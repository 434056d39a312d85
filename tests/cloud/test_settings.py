from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.settings import GROUPS, load_settings, non_default_values, require
from gridtokenx_cloud.settings.document import main as write_document
from gridtokenx_cloud.settings.document import page, template
from gridtokenx_cloud.settings.load import secret_values
from gridtokenx_cloud.settings.rules import retry_delays_s
from gridtokenx_wire import base58

ROOT = Path(__file__).parents[2]
ADDRESS = base58.encode_key(bytes([7]) * 32)

DEFAULTS: dict[str, dict[str, Any]] = {
    "tokenization": {
        "kwh_to_token_ratio": Decimal(1),
        "decimals": 9,
        "max_reading_kwh": Decimal(100),
        "reading_max_age_days": 7,
        "spike_action": "remark",
        "spike_percent": 280,
        "spike_rated_percent": 25,
        "stuck_action": "hold",
        "stuck_wh": 100,
        "chain_gap_action": "remark",
        "chain_gap_wait_secs": 86_400,
        "phase_sum_action": "remark",
        "auto_mint_enabled": True,
        "auto_mint_percentage": 100,
        "auto_trigger_on_submit": False,
        "polling_interval_secs": 60,
        "batch_size": 50,
        "max_transactions_per_batch": 20,
        "mint_threshold": Decimal(0),
        "max_retry_attempts": 3,
        "initial_retry_delay_secs": 300,
        "retry_backoff_multiplier": Decimal(2),
        "max_retry_delay_secs": 3600,
        "transaction_timeout_secs": 60,
    },
    "blockchain": {
        "mint_address": None,
        "genesis_hash": None,
        "token_program": "spl-token",
        "transaction_format": "auto",
        "mint_authority_key": None,
        "fee_payer_key": None,
        "key_password": None,
        "signer_timeout_secs": 10,
        "marker_secret": None,
        "max_batch_size": 60,
        "concurrent_batches": 5,
        "max_tokens_per_transaction": 10**13,
        "max_tokens_per_day": 10**15,
        "priority_fee_floor_micro_lamports": 1_000,
        "priority_fee_cap_micro_lamports": 1_000_000,
        "marker_retention_days": 30,
        "payer_low_transactions": 100,
        "rpc_timeout_secs": 10,
        "audit_interval_secs": 3600,
    },
    "websocket": {
        "bind": "127.0.0.1:8081",
        "public_url": None,
        "auth_required": True,
        "auth_timeout_secs": 5,
        "max_connections": 10_000,
        "max_connections_per_user": 5,
        "event_buffer_size": 1000,
        "rate_limit_events_per_minute": 60,
        "compression_enabled": False,
        "replay_hours": 24,
    },
    "cloud": {
        "environment": "production",
        "roles": ("ingest", "settle", "api", "events"),
        "database_url": "sqlite:////var/lib/gridtokenx/cloud.db",
        "database_pool_size": 10,
        "mqtt_url": None,
        "mqtt_username": None,
        "mqtt_password": None,
        "mqtt_ca_file": None,
        "mqtt_cert_file": None,
        "mqtt_key_file": None,
        "cloud_key": None,
        "solana_rpc_urls": (),
        "http_bind": "127.0.0.1:8080",
        "metrics_bind": "127.0.0.1:9090",
        "allowed_origins": (),
        "trusted_proxies": ("127.0.0.1/32", "::1/128"),
        "api_rate_limit": 1000,
        "session_ttl_secs": 3600,
        "ingest_lines_per_second": 1500,
        "ingest_lines_burst": 10000,
        "shutdown_timeout_secs": 30,
        "sample_retention_days": 30,
        "archive_dir": None,
        "archive_after_days": None,
        "log_level": "info",
        "log_format": "json",
    },
}

ENVIRONMENTS = {
    "development": (
        *(True, 10, True, 50, 10, 5),
        *("sqlite", 1000, 60, 1000, 10000, "debug", "text"),
    ),
    "staging": (
        *(True, 60, False, 50, 300, 5),
        *("postgresql", 1000, 60, 1000, 500, "info", "json"),
    ),
    "production": (
        *(False, 60, False, 200, 600, 3),
        *("postgresql", 50000, 120, 2000, 1000, "info", "json"),
    ),
}
"""What is minted and how; then the store, events, requests and logs."""

BOUNDS = [
    ("TOKENIZATION_KWH_TO_TOKEN_RATIO", "0.001", "100", "0", "1000.001"),
    ("TOKENIZATION_DECIMALS", "3", "9", "-1", "10"),
    ("TOKENIZATION_MAX_READING_KWH", "0.001", "10000", "0", "1000000.001"),
    ("TOKENIZATION_READING_MAX_AGE_DAYS", "1", "365", "0", "366"),
    ("TOKENIZATION_SPIKE_PERCENT", "100", "10000", "99", "10001"),
    ("TOKENIZATION_SPIKE_RATED_PERCENT", "0", "100", "-1", "101"),
    ("TOKENIZATION_STUCK_WH", "1", "1000000", "0", "1000001"),
    ("TOKENIZATION_CHAIN_GAP_WAIT_SECS", "60", "2592000", "59", "2592001"),
    ("TOKENIZATION_AUTO_MINT_PERCENTAGE", "0", "100", "-1", "101"),
    ("TOKENIZATION_POLLING_INTERVAL_SECS", "10", "3600", "9", "3601"),
    ("TOKENIZATION_BATCH_SIZE", "1", "1000", "0", "1001"),
    ("TOKENIZATION_MAX_TRANSACTIONS_PER_BATCH", "1", "100", "0", "101"),
    ("TOKENIZATION_MINT_THRESHOLD", "0", "1000", "-0.001", "1000.001"),
    ("TOKENIZATION_MAX_RETRY_ATTEMPTS", "0", "10", "-1", "11"),
    ("TOKENIZATION_INITIAL_RETRY_DELAY_SECS", "1", "3600", "0", "86401"),
    ("TOKENIZATION_RETRY_BACKOFF_MULTIPLIER", "1", "10", "0.9", "10.1"),
    ("TOKENIZATION_MAX_RETRY_DELAY_SECS", "300", "28800", "0", "86401"),
    ("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", "10", "600", "9", "601"),
    ("BLOCKCHAIN_MAX_BATCH_SIZE", "1", "64", "0", "65"),
    ("BLOCKCHAIN_CONCURRENT_BATCHES", "1", "50", "0", "51"),
    ("BLOCKCHAIN_MAX_TOKENS_PER_DAY", str(10**13), str(2**64 - 1), "0", str(2**64)),
    ("BLOCKCHAIN_PRIORITY_FEE_FLOOR_MICRO_LAMPORTS", "0", "1000000", "-1", "1000000001"),
    ("BLOCKCHAIN_MARKER_RETENTION_DAYS", "1", "3650", "0", "3651"),
    ("BLOCKCHAIN_PAYER_LOW_TRANSACTIONS", "1", "1000000", "0", "1000001"),
    ("BLOCKCHAIN_RPC_TIMEOUT_SECS", "1", "60", "0", "61"),
    ("BLOCKCHAIN_AUDIT_INTERVAL_SECS", "60", "86400", "59", "86401"),
    ("WEBSOCKET_AUTH_TIMEOUT_SECS", "1", "60", "0", "61"),
    ("WEBSOCKET_MAX_CONNECTIONS", "1", "200000", "0", "200001"),
    ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "1", "100", "0", "101"),
    ("WEBSOCKET_EVENT_BUFFER_SIZE", "10", "100000", "9", "100001"),
    ("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "1", "100000", "0", "100001"),
    ("WEBSOCKET_REPLAY_HOURS", "1", "720", "0", "721"),
    ("GTX_CLOUD_DATABASE_POOL_SIZE", "1", "100", "0", "101"),
    ("GTX_CLOUD_API_RATE_LIMIT", "1", "1000000", "0", "1000001"),
    ("GTX_CLOUD_INGEST_LINES_PER_SECOND", "1", "100000", "0", "100001"),
    ("GTX_CLOUD_INGEST_LINES_BURST", "100", "1000000", "99", "1000001"),
    ("BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION", str(10**11), str(10**15), "0", str(2**64)),
    ("BLOCKCHAIN_PRIORITY_FEE_CAP_MICRO_LAMPORTS", "1000", "1000000000", "-1", "1000000001"),
    ("GTX_CLOUD_SESSION_TTL_SECS", "300", "86400", "299", "86401"),
    ("GTX_CLOUD_SHUTDOWN_TIMEOUT_SECS", "1", "300", "0", "301"),
    ("GTX_CLOUD_SAMPLE_RETENTION_DAYS", "1", "3650", "0", "3651"),
]


def faults(environ: dict[str, str], **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ=environ, **options)
    return list(raised.value.faults)


def codes(environ: dict[str, str]) -> list[str]:
    return [fault.partition(":")[0] for fault in faults({"GTX_CLOUD_ROLES": "events", **environ})]


def private_file(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return f"file:{path}"


@pytest.fixture(autouse=True)
def _no_env_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_default_is_what_the_documentation_promises() -> None:
    found = {
        name: {field: info.default for field, info in group.model_fields.items()}
        for name, group in GROUPS.items()
    }

    assert found == DEFAULTS


@pytest.mark.parametrize(("name", "low", "high", "below", "above"), BOUNDS)
def test_each_bound_holds_on_both_sides(
    name: str, low: str, high: str, below: str, above: str
) -> None:
    for good in (low, high):
        load_settings(environ={name: good}, roles="events")
    for bad in (below, above):
        [fault] = faults({name: bad}, roles="events")

        assert f"{name}={bad}" in fault


@pytest.mark.parametrize("text", ["1e3", "NaN", "inf", "-inf", "1_000", "0x10", "", " 5", "5.0"])
def test_a_whole_number_is_plain_digits_or_a_fault(text: str) -> None:
    assert codes({"TOKENIZATION_BATCH_SIZE": text}) == ["ValidationFailed"]


@pytest.mark.parametrize("text", ["1e1", "NaN", "Infinity", "1_0", "", ".5", "5.", "sNaN"])
def test_a_decimal_is_plain_digits_or_a_fault(text: str) -> None:
    assert codes({"TOKENIZATION_RETRY_BACKOFF_MULTIPLIER": text}) == ["ValidationFailed"]


def test_a_whole_number_beyond_a_float_stays_exact() -> None:
    settings = load_settings(
        environ={"BLOCKCHAIN_MAX_TOKENS_PER_DAY": str(2**64 - 1)}, roles="events"
    )

    assert settings.blockchain.max_tokens_per_day == 2**64 - 1


def test_the_highest_ratio_goes_with_a_higher_cap() -> None:
    environ = {"BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION": str(10**14)}

    settings = load_settings(
        environ={**environ, "TOKENIZATION_KWH_TO_TOKEN_RATIO": "1000"}, roles="events"
    )

    assert settings.tokenization.kwh_to_token_ratio == 1000


def test_one_run_names_every_fault_there_is(tmp_path: Path) -> None:
    found = faults(
        {
            "TOKENIZATION_BATCH_SIZ": "4",
            "TOKENIZATION_POLLING_INTERVAL_SECS": "5",
            "TOKENIZATION_KWH_TO_TOKEN_RATIO": "0.0000001",
            "TOKENIZATION_MAX_RETRY_ATTEMPTS": "10",
            "TOKENIZATION_INITIAL_RETRY_DELAY_SECS": "86400",
            "TOKENIZATION_MAX_RETRY_DELAY_SECS": "86400",
            "BLOCKCHAIN_MAX_TOKENS_PER_DAY": "1",
            "GTX_CLOUD_MQTT_PASSWORD": "hunter2",
            "GTX_CLOUD_HTTP_BIND": "8080",
        }
    )

    assert {fault.partition(":")[0] for fault in found} == {
        "MissingVariable",
        "UnknownVariable",
        "ValidationFailed",
        "IncompatibleValues",
        "InsufficientPollingInterval",
        "UnreasonablePrecision",
        "ExcessiveRetryTime",
        "PlainSecret",
    }
    assert all("hunter2" not in fault and "\n" not in fault for fault in found)


def test_a_misspelt_name_is_a_fault_that_suggests_the_right_one() -> None:
    [fault] = faults({"WEBSOCKET_BINDS": "x"}, roles="events")

    assert fault == "UnknownVariable: WEBSOCKET_BINDS is no setting; did you mean WEBSOCKET_BIND?"


def test_names_of_other_programs_are_none_of_our_business() -> None:
    settings = load_settings(environ={"PATH": "/bin", "GTX_AGENT_X": "1"}, roles="events")

    assert non_default_values(settings).keys() <= {"GTX_CLOUD_ROLES"}


@pytest.mark.parametrize(
    "environ",
    [
        {"TOKENIZATION_MAX_RETRY_DELAY_SECS": "299"},
        {"BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION": str(10**15 + 1)},
        {"BLOCKCHAIN_PRIORITY_FEE_FLOOR_MICRO_LAMPORTS": "1000001"},
        {"TOKENIZATION_MAX_READING_KWH": "10000.001"},
        {"GTX_CLOUD_MQTT_USERNAME": "cloud"},
        {"GTX_CLOUD_MQTT_CERT_FILE": "/etc/cert"},
        {"BLOCKCHAIN_MINT_AUTHORITY_KEY": "file:/k", "BLOCKCHAIN_FEE_PAYER_KEY": "file:/k"},
        {"GTX_CLOUD_MQTT_URL": "mqtt://broker"},
        {"WEBSOCKET_AUTH_REQUIRED": "false"},
    ],
)
def test_values_that_contradict_each_other_are_refused(environ: dict[str, str]) -> None:
    assert codes(environ) == ["IncompatibleValues"]


def test_what_production_refuses_is_right_elsewhere() -> None:
    settings = load_settings(
        environ={
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_MQTT_URL": "mqtt://broker",
            "GTX_CLOUD_MQTT_USERNAME": "cloud",
            "GTX_CLOUD_MQTT_PASSWORD": "hunter2",
        },
        roles="events",
    )

    assert settings.cloud.mqtt_url == "mqtt://broker"


@pytest.mark.parametrize("text", ["*", "https://a.example/", "a.example", "file:///x", "null"])
def test_an_origin_is_exact_or_a_fault(text: str) -> None:
    assert codes({"GTX_CLOUD_ALLOWED_ORIGINS": f"https://b.example,{text}"}) == ["ValidationFailed"]


def test_a_fault_does_not_hide_the_rules_about_other_values() -> None:
    found = codes({"TOKENIZATION_BATCH_SIZE": "0", "BLOCKCHAIN_MAX_TOKENS_PER_DAY": "1"})

    assert found == ["ValidationFailed", "IncompatibleValues"]


def test_a_faulty_value_is_not_judged_twice() -> None:
    assert codes({"TOKENIZATION_DECIMALS": "12"}) == ["ValidationFailed"]


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        ("events", set()),
        ("api", {"GTX_CLOUD_CLOUD_KEY", "BLOCKCHAIN_MINT_ADDRESS"}),
        ("ingest", {"GTX_CLOUD_MQTT_URL", "GTX_CLOUD_CLOUD_KEY", "BLOCKCHAIN_MINT_ADDRESS"}),
    ],
)
def test_a_role_needs_only_what_it_uses(roles: str, missing: set[str]) -> None:
    try:
        load_settings(environ={}, roles=roles)
        found = set()
    except ConfigError as exc:
        found = {fault.split()[1] for fault in exc.faults}

    assert found == missing


def test_one_endpoint_is_too_few_for_minting_in_production() -> None:
    found = faults({"GTX_CLOUD_SOLANA_RPC_URLS": "https://one.example"}, roles="settle")

    assert any("add a second one of another provider" in fault for fault in found)


def test_a_value_may_stand_in_a_file(tmp_path: Path) -> None:
    reference = private_file(tmp_path / "secret", "s" * 32 + "\n")

    settings = load_settings(environ={"BLOCKCHAIN_MARKER_SECRET": reference}, roles="events")

    assert require(settings.blockchain.marker_secret, "").get_secret_value() == "s" * 32


def test_a_credential_comes_from_the_folder_systemd_names(tmp_path: Path) -> None:
    private_file(tmp_path / "cloud-key", "[1]")

    settings = load_settings(
        environ={
            "GTX_CLOUD_CLOUD_KEY": "credential:cloud-key",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
        },
        roles="events",
    )

    assert settings.cloud.cloud_key == tmp_path / "cloud-key"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file:", "names nothing"),
        ("file:/nowhere", "cannot be read"),
        ("credential:x", "only systemd hands over"),
        ("file:open", "run: chmod 600"),
        ("file:binary", "holds no text"),
        ("file:large", "large file"),
    ],
)
def test_a_reference_that_leads_nowhere_says_why(tmp_path: Path, text: str, says: str) -> None:
    private_file(tmp_path / "open", "s" * 32)
    (tmp_path / "open").chmod(0o640)
    private_file(tmp_path / "large", "s" * 100_000)
    private_file(tmp_path / "binary", "")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)

    [fault] = faults({"BLOCKCHAIN_MARKER_SECRET": text}, roles="events")

    assert says in fault
    assert fault.startswith("ValidationFailed: BLOCKCHAIN_MARKER_SECRET ")


def test_a_key_in_plain_text_is_refused_everywhere_and_not_shown() -> None:
    [fault] = faults(
        {"GTX_CLOUD_ENVIRONMENT": "development", "GTX_CLOUD_CLOUD_KEY": "[12,34]"}, roles="events"
    )

    assert fault.startswith("PlainSecret: GTX_CLOUD_CLOUD_KEY=***")


def test_the_environment_stands_above_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TOKENIZATION_BATCH_SIZE=7\nTOKENIZATION_DECIMALS=6\nOTHER=1\n")

    settings = load_settings(environ={"TOKENIZATION_DECIMALS": "8"}, roles="events")

    assert settings.tokenization.batch_size == 7
    assert settings.tokenization.decimals == 8
    assert settings.sources["TOKENIZATION_BATCH_SIZE"] == ".env"


def test_an_option_stands_above_the_environment() -> None:
    settings = load_settings(
        environ={"GTX_CLOUD_DATABASE_URL": "sqlite:///a.db"},
        roles="events",
        database_url="sqlite:///b.db",
    )

    assert settings.cloud.database_url == "sqlite:///b.db"
    assert settings.sources["GTX_CLOUD_DATABASE_URL"] == "--database-url"


def test_a_dollar_sign_in_an_env_file_is_a_dollar_sign(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "BLOCKCHAIN_MARKER_SECRET=${HOME}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
    )

    settings = load_settings(environ={"GTX_CLOUD_ENVIRONMENT": "staging"}, roles="events")

    secret = require(settings.blockchain.marker_secret, "").get_secret_value()
    assert secret.startswith("${HOME}")


def test_an_env_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    assert "does not exist" in faults({}, env_file=tmp_path / "no.env")[0]


def test_shown_values_hold_no_secret_and_no_provider_key(tmp_path: Path) -> None:
    settings = load_settings(
        environ={
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_MQTT_USERNAME": "cloud",
            "GTX_CLOUD_MQTT_PASSWORD": "hunter2",
            "GTX_CLOUD_SOLANA_RPC_URLS": "https://rpc.example/v2/SECRETKEY?api-key=SECRETKEY",
        },
        roles="events",
    )

    shown = non_default_values(settings)

    assert "hunter2" not in f"{shown} {settings}"
    assert shown["GTX_CLOUD_MQTT_PASSWORD"] == "*** (environment)"
    assert shown["GTX_CLOUD_SOLANA_RPC_URLS"] == "https://rpc.example (environment)"


def test_settings_never_change() -> None:
    settings = load_settings(environ={}, roles="events")

    with pytest.raises(ValueError, match="frozen"):
        settings.tokenization.batch_size = 9  # type: ignore[misc]


def test_retries_wait_longer_each_time_up_to_the_maximum() -> None:
    settings = load_settings(environ={"TOKENIZATION_MAX_RETRY_ATTEMPTS": "6"}, roles="events")

    assert retry_delays_s(settings.tokenization) == [300, 600, 1200, 2400, 3600, 3600]


@pytest.mark.parametrize("name", ["development", "staging", "production"])
def test_each_environment_file_is_right_but_for_what_only_its_place_knows(
    tmp_path: Path, name: str
) -> None:
    text = (ROOT / "deploy" / "env" / f"{name}.env").read_text()
    for folder in ("/etc/gridtokenx", "var/development"):
        text = text.replace(f"file:{folder}/", f"file:{tmp_path}/")
    (tmp_path / "its.env").write_text(text)
    private_file(tmp_path / "mqtt-password", "word")
    private_file(tmp_path / "marker-secret", "m" * 32)
    private_file(tmp_path / "solana-rpc-urls", "https://a.example,https://b.example")
    private_file(tmp_path / "database-url", "postgresql://gtx:word@db.example/gtx")
    place = {"CREDENTIALS_DIRECTORY": str(tmp_path), "BLOCKCHAIN_MINT_ADDRESS": ADDRESS}
    if name == "development":
        place["BLOCKCHAIN_GENESIS_HASH"] = ADDRESS

    settings = load_settings(tmp_path / "its.env", environ=place)

    assert settings.cloud.environment == name
    assert ENVIRONMENTS[name] == (
        settings.tokenization.auto_mint_enabled,
        settings.tokenization.polling_interval_secs,
        settings.tokenization.auto_trigger_on_submit,
        settings.tokenization.batch_size,
        settings.tokenization.initial_retry_delay_secs,
        settings.blockchain.concurrent_batches,
        settings.cloud.database_url.partition(":")[0],
        settings.websocket.max_connections,
        settings.websocket.rate_limit_events_per_minute,
        settings.websocket.event_buffer_size,
        settings.cloud.api_rate_limit,
        settings.cloud.log_level,
        settings.cloud.log_format,
    )


def test_the_template_and_the_page_are_made_from_the_classes() -> None:
    assert (ROOT / "deploy" / "env" / "template.env").read_text() == template()
    assert (ROOT / "docs" / "configuration.md").read_text() == page()


def test_the_template_with_everything_uncommented_sets_each_default(tmp_path: Path) -> None:
    lines = [line.removeprefix("#") for line in template().splitlines()]
    given = [line for line in lines if "=" in line and not line.endswith("=") and " " not in line]
    (tmp_path / "all.env").write_text("\n".join(given))

    settings = load_settings(tmp_path / "all.env", environ={}, complete=False)

    assert len(settings.sources) == len(given)
    for name, group in DEFAULTS.items():
        assert getattr(settings, name).model_dump() == group


def test_an_archive_has_its_age_and_its_place() -> None:
    alone = {"GTX_CLOUD_ARCHIVE_AFTER_DAYS": "400"}
    both = {**alone, "GTX_CLOUD_ARCHIVE_DIR": "/var/lib/gridtokenx/archive"}

    settings = load_settings(environ=both, complete=False)

    assert settings.cloud.archive_after_days == 400
    assert codes(alone) == ["IncompatibleValues"]
    assert codes({**both, "GTX_CLOUD_ARCHIVE_AFTER_DAYS": "30"}) == ["ValidationFailed"]


def test_a_store_on_a_server_is_taken_and_its_password_is_never_shown(tmp_path: Path) -> None:
    url = "postgresql://gtx:word@db.example/gtx"
    (tmp_path / "url").write_text(url)
    environ = {"GTX_CLOUD_DATABASE_URL": f"file:{tmp_path / 'url'}"}

    settings = load_settings(environ=environ, complete=False)

    assert settings.cloud.database_url == url
    shown = non_default_values(settings)["GTX_CLOUD_DATABASE_URL"]
    assert shown.startswith("postgresql://gtx:***@db.example/gtx (")
    assert "word" in secret_values(settings)


def test_a_store_s_password_stands_in_no_environment_of_production() -> None:
    environ = {"GTX_CLOUD_DATABASE_URL": "postgresql://gtx:word@db.example/gtx"}

    with pytest.raises(ConfigError, match=r"PlainSecret: GTX_CLOUD_DATABASE_URL=\*\*\*"):
        load_settings(environ=environ, complete=False)


@pytest.mark.parametrize("url", ["postgresql://db", "postgresql:///", "mysql://db/gtx", "gtx"])
def test_another_store_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no sqlite:///PATH"):
        load_settings(environ={"GTX_CLOUD_DATABASE_URL": url}, complete=False)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("GTX_CLOUD_ROLES", "foo", "a comma list of ingest, settle, api, events"),
        ("GTX_CLOUD_ROLES", "", "give at least 1"),
        ("GTX_CLOUD_HTTP_BIND", ":8080", "no address such as"),
        ("GTX_CLOUD_HTTP_BIND", "host:70000", "no address such as"),
        ("BLOCKCHAIN_MINT_ADDRESS", "short", "no base58 text of 32 bytes"),
        ("TOKENIZATION_MAX_READING_KWH", "0.0001", "a fraction of a Wh"),
        ("TOKENIZATION_MINT_THRESHOLD", "1.0005", "a fraction of a Wh"),
        ("GTX_CLOUD_MQTT_URL", "http://broker", "no mqtt://HOST or mqtts://HOST URL"),
        ("GTX_CLOUD_MQTT_URL", "mqtts://[broken", "no mqtt://HOST or mqtts://HOST URL"),
        ("GTX_CLOUD_TRUSTED_PROXIES", "10.0.0.1/8", "no network such as"),
        ("GTX_CLOUD_TRUSTED_PROXIES", "proxy.example", "no network such as"),
        ("WEBSOCKET_AUTH_REQUIRED", "perhaps", "true or false"),
        ("TOKENIZATION_SPIKE_ACTION", "drop", "hold or remark"),
        ("GTX_CLOUD_LOG_LEVEL", "loud", "debug, info, warning or error"),
    ],
)
def test_a_value_that_is_none_says_what_would_be_one(name: str, text: str, says: str) -> None:
    [found] = faults(
        {"GTX_CLOUD_ENVIRONMENT": "development", name: text}
        | ({} if name == "GTX_CLOUD_ROLES" else {"GTX_CLOUD_ROLES": "events"})
    )

    assert found.startswith(f"ValidationFailed: {name}={text} ")
    assert says in found


def test_a_large_file_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * 100_000)

    [found] = faults({"GTX_CLOUD_LOG_LEVEL": f"file:{tmp_path / 'large'}"}, roles="events")

    assert "which is no setting but a large file" in found


def test_what_a_command_needs_is_asked_for_by_name() -> None:
    assert require("value", "NAME") == "value"
    for nothing in (None, ()):
        with pytest.raises(ConfigError, match="NAME is not set, and this needs it"):
            require(nothing, "NAME")


def test_every_secret_is_known_to_the_log_s_filter() -> None:
    settings = load_settings(
        environ={
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_MQTT_USERNAME": "cloud",
            "GTX_CLOUD_MQTT_PASSWORD": "hunter2",
            "BLOCKCHAIN_MARKER_SECRET": "m" * 32,
            "GTX_CLOUD_SOLANA_RPC_URLS": "https://rpc.example/v2/KEY1?api-key=KEY2",
        },
        complete=False,
    )

    found = secret_values(settings)

    assert {"hunter2", "m" * 32, "v2/KEY1", "api-key=KEY2"} <= set(found)


@pytest.mark.parametrize(("document", "made"), [("template", template), ("page", page)])
def test_both_documents_are_written_by_one_command(
    document: str, made: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["document", document])

    write_document()

    assert capsys.readouterr().out == made()
