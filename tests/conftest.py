"""Fixtures of every test: stores of both kinds."""

import signal
from collections.abc import Callable, Iterator

import pytest

from gridtokenx_cloud.adapters.store.database import Database, open_database
from tests.support.postgres import NOT_INSTALLED, Server, find_postgres, running_postgres
from tests.support.stores import migrated

# A shell starts what runs in its background with Ctrl-C ignored, and the programs under test would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow first, and measure coverage only where it tells something.

    That is not where the cloud runs elsewhere, nor in the fault worlds, which go through the same
    lines a thousand times, each time slower.
    """
    for item in items:
        folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        marks = any(item.get_closest_marker(mark) for mark in _UNMEASURED_MARKS)
        if folder in _UNMEASURED_FOLDERS or marks:
            item.add_marker("no_cover")
    # Whole programs first: the many quick tests then fill what the workers have left.
    items.sort(key=lambda item: not any(item.get_closest_marker(mark) for mark in _SLOW_MARKS))


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
