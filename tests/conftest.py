"""Fixtures of every test: stores of both kinds. And how time and chance are in all of them."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from gridtokenx_cloud.adapters.store.database import Database, open_database
from tests.support.patient_time import PatientPolicy
from tests.support.postgres import NOT_INSTALLED, Server, find_postgres, running_postgres
from tests.support.stores import migrated

# A shell starts what runs in its background with Ctrl-C ignored, and the programs under test would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

asyncio.set_event_loop_policy(PatientPolicy())

# How long an example takes says how busy the machine is. And the examples are the same in each run,
# so that one that fails does so for a change, not by chance; others are looked for with
# `--hypothesis-profile search`.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


_LOGGERS = ("gridtokenx_agent", "gridtokenx_cloud", "pymodbus")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what a command does to the logging of its whole process, which is ours."""
    root = logging.getLogger()
    handlers, loggers = root.handlers[:], [root, *map(logging.getLogger, _LOGGERS)]
    levels = [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Give a PostgreSQL server of this test run."""
    if find_postgres() is None:
        pytest.skip(NOT_INSTALLED)
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session", params=BOTH)
def new_store_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Give a maker of empty stores, in turn SQLite's and PostgreSQL's."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('store') / 'cloud.db'}"
    server: Server = request.getfixturevalue("postgres")
    return server.new_database


@pytest.fixture(scope="session")
def new_store(
    request: pytest.FixtureRequest, new_store_url: Callable[[], str]
) -> Callable[[], Database]:
    """Give a maker of stores with our schema; whoever takes one closes it."""
    if new_store_url().startswith("sqlite"):
        return lambda: migrated(new_store_url())
    server: Server = request.getfixturevalue("postgres")
    template = server.new_database()
    migrated(template).close()
    name = template.rpartition("/")[2]
    return lambda: open_database(server.new_database(template=name))


_UNMEASURED_FOLDERS = {"agent", "demo"}
_UNMEASURED_MARKS = ("chaos", "e2e")
_SLOW_MARKS = ("e2e", "chaos", "integration")
_SLOW_TIMEOUT_S = 600


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow first, give them time, and measure coverage only where it tells something.

    That is not where the cloud runs elsewhere, nor in the fault worlds, which go through the same
    lines a thousand times, each time slower.
    """
    for item in items:
        folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        marks = any(item.get_closest_marker(mark) for mark in _UNMEASURED_MARKS)
        if folder in _UNMEASURED_FOLDERS or marks:
            item.add_marker("no_cover")
        if _is_slow(item) and item.get_closest_marker("timeout") is None:
            # So long as no machine takes that is only busy, and it does stand still some day.
            item.add_marker(pytest.mark.timeout(_SLOW_TIMEOUT_S))
    # Whole programs first: the many quick tests then fill what the workers have left.
    items.sort(key=lambda item: not _is_slow(item))


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in _SLOW_MARKS)


MOST_SECOND_TRIES = 3


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when more needed their second try than chance explains."""
    if len(_second_tries(session.config)) > MOST_SECOND_TRIES:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why the first try of a test failed: what hides there is a defect all the same."""
    tries = _second_tries(terminalreporter.config)
    if tries:
        terminalreporter.section(f"failed at the first try (at most {MOST_SECOND_TRIES})")
    for report in tries:
        terminalreporter.write_line(f"{report.nodeid}\n{report.longreprtext}")


def _second_tries(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("rerun", []) if reporter is not None else []
