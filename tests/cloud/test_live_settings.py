"""Settings that change while the program runs: seen by every process, never half, never wrong."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.__main__ import run as run_command
from gridtokenx_cloud.errors import ConfigError, StoreBusyError
from gridtokenx_cloud.mint_wiring import rules_of
from gridtokenx_cloud.settings import Settings, TokenizationConfig, load_settings
from gridtokenx_cloud.settings.live import LIVE_FIELDS, LiveTokenization, overridden, texts_of
from gridtokenx_cloud.verify import ReadingRules

CHANGED = {
    "max_reading_kwh": "50",
    "reading_max_age_days": "30",
    "spike_action": "hold",
    "spike_percent": "300",
    "spike_rated_percent": "40",
    "stuck_action": "remark",
    "stuck_wh": "250",
    "chain_gap_action": "hold",
    "chain_gap_wait_secs": "7200",
    "phase_sum_action": "hold",
    "auto_mint_enabled": "false",
    "auto_mint_percentage": "20",
    "auto_trigger_on_submit": "true",
    "polling_interval_secs": "10",
    "batch_size": "99",
    "max_transactions_per_batch": "3",
    "mint_threshold": "0.5",
    "max_retry_attempts": "2",
    "initial_retry_delay_secs": "60",
    "retry_backoff_multiplier": "1.5",
    "max_retry_delay_secs": "600",
    "transaction_timeout_secs": "90",
}


class Store:
    """Overrides as a test sets them, and a clock it moves."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.now_ms = 0
        self.busy = False

    def read(self) -> dict[str, str]:
        if self.busy:
            raise StoreBusyError("not now")
        return dict(self.texts)

    def live(self, settings: Settings) -> LiveTokenization:
        return LiveTokenization(settings, self.read, lambda: self.now_ms)


@pytest.fixture
def settings() -> Settings:
    return load_settings(environ={"TOKENIZATION_BATCH_SIZE": "70"}, complete=False)


def test_every_live_field_can_be_changed_and_the_others_cannot(settings: Settings) -> None:
    group = overridden(settings, CHANGED)

    assert set(CHANGED) == set(LIVE_FIELDS)
    assert set(TokenizationConfig.model_fields) - set(LIVE_FIELDS) == TokenizationConfig.FIXED
    assert texts_of(group) == CHANGED
    before, after = rules_of(settings), rules_of(settings, group)
    assert (before.batch_size, after.batch_size, after.mint_threshold_wh) == (70, 99, 500)
    assert before.auto_mint_enabled
    assert not after.auto_mint_enabled


def test_each_setting_of_a_reading_rule_reaches_the_rule(settings: Settings) -> None:
    assert settings.tokenization.reading_rules == ReadingRules()
    assert overridden(settings, CHANGED).reading_rules == ReadingRules(
        max_reading_wh=50_000,
        reading_max_age_days=30,
        spike_holds=True,
        spike_percent=300,
        spike_rated_percent=40,
        stuck_holds=False,
        stuck_wh=250,
        chain_gap_holds=True,
        chain_gap_wait_s=7_200,
        phase_sum_holds=True,
    )


def test_a_change_is_seen_within_a_second_and_goes_back_to_the_environments_value(
    settings: Settings,
) -> None:
    store = Store()
    live = store.live(settings)

    store.texts = {"batch_size": "99"}
    at_once = live.current().batch_size
    store.now_ms = 1_000
    changed = live.current().batch_size
    store.texts = {}
    live.forget()

    assert (at_once, changed, live.current().batch_size) == (70, 99, 70)


def test_a_clock_that_is_set_back_does_not_freeze_the_settings(settings: Settings) -> None:
    store = Store()
    store.now_ms = 1_000_000
    live = store.live(settings)

    store.texts, store.now_ms = {"batch_size": "99"}, 5

    assert live.current().batch_size == 99


def test_the_last_good_settings_stand_while_the_store_is_away_or_wrong(settings: Settings) -> None:
    store = Store(batch_size="99")
    live = store.live(settings)

    store.busy, store.now_ms = True, 1_000
    away = live.current().batch_size
    store.busy, store.now_ms = False, 2_000
    store.texts = {"batch_size": "0"}

    assert (away, live.current().batch_size) == (99, 99)


def test_a_start_with_overrides_that_no_longer_fit_names_the_way_out(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="gtx-cloud config unset"):
        Store(max_reading_kwh="900000").live(settings)


def test_the_commands_set_list_and_take_back(tmp_path: Path) -> None:
    base = ["--database-url", f"sqlite:///{tmp_path / 'cloud.db'}"]

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, [*base, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run("migrate")
    run("config", "set", "batch_size=80", "auto_mint_enabled=false")
    listed = run("config", "list")
    run("config", "unset", "batch_size")

    rows = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
    assert (rows["batch_size"], rows["auto_mint_enabled"]) == ("80", "false")
    assert run_command([*base, "config", "set", "batch_size=0"]) == 2
    assert run_command([*base, "config", "set", "decimals=6"]) == 2
    assert run_command([*base, "config", "set", "batch_size"]) == 2
    left = {line.split()[0]: line.split()[1] for line in run("config", "list").splitlines()}
    assert (left["batch_size"], left["auto_mint_enabled"]) == ("50", "false")


def test_the_delays_of_the_defaults_are_those_of_the_documentation() -> None:
    config = TokenizationConfig()

    delays = [config.retry_delay(attempt) for attempt in (-1, 0, 1, 2, 3, 4, 5, 6)]

    assert delays == [0, 0, 300, 600, 1_200, 2_400, 3_600, 3_600]
