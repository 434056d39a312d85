"""What every command of `gtx-cloud` is given: the store, the clock, the settings, a table."""

import getpass
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import check_schema
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.ports.common import Clock

if TYPE_CHECKING:
    from gridtokenx_cloud.settings import Settings

Row = Mapping[str, object]


class CommandContext(Protocol):
    """Given to a command by `@click.pass_obj`."""

    @property
    def clock(self) -> Clock:
        """The machine's clock."""
        ...

    @property
    def actor(self) -> str:
        """Who runs the command, for the audit log: `cli:<login name>`."""
        ...

    @property
    def settings(self) -> "Settings":
        """The configuration, read and checked at the first use.

        What only a running service needs may be absent: take it by `settings.require`.

        Raises:
            ConfigError: With every fault at once.
        """
        ...

    def database(self) -> Database:
        """Return the store, opened and its schema checked; closed at the command's end.

        Raises:
            ConfigError: No such folder, or another kind of database.
            SchemaError: `gtx-cloud migrate` has to run first.
        """
        ...

    def emit(self, rows: Sequence[Row], as_json: bool) -> None:
        """Print *rows* as an aligned table, or as one JSON array."""
        ...


class Context:
    """`CommandContext` of a real process."""

    def __init__(self, env_file: Path | None, database_url: str | None) -> None:
        self.clock: Clock = SystemClock()
        self._env_file = env_file
        self._database_url = database_url
        self._settings: Settings | None = None
        self._database: Database | None = None

    @property
    def actor(self) -> str:
        """See `CommandContext.actor`."""
        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # a container's user id without a name
            return f"cli:{os.getuid()}"

    @property
    def settings(self) -> "Settings":
        """See `CommandContext.settings`."""
        if self._settings is None:
            # Pydantic would double the start of a command that was told where the store is.
            from gridtokenx_cloud.settings import load_settings

            self._settings = load_settings(env_file=self._env_file, complete=False)
        return self._settings

    def complete_settings(self, roles: str | None = None) -> "Settings":
        """Return the configuration with all that *roles* need, to run them.

        Raises:
            ConfigError: With every fault at once.
        """
        from gridtokenx_cloud.settings import load_settings

        return load_settings(env_file=self._env_file, roles=roles, database_url=self._database_url)

    @property
    def database_url(self) -> str:
        """Where the store is; an explicit option needs no other setting to be right."""
        return self._database_url or self.settings.cloud.database_url

    def database(self) -> Database:
        """See `CommandContext.database`."""
        if self._database is None:
            self._database = open_database(self.database_url)
            check_schema(self._database)
        return self._database

    def close(self) -> None:
        """Give back what was opened."""
        if self._database is not None:
            self._database.close()

    def emit(self, rows: Sequence[Row], as_json: bool) -> None:
        """See `CommandContext.emit`."""
        emit(rows, as_json, sys.stdout)


def emit(rows: Sequence[Row], as_json: bool, out: TextIO) -> None:
    """Write *rows* to *out*; the columns are the first row's keys, `none` where there is no row."""
    if as_json:
        out.write(json.dumps([dict(row) for row in rows], indent=2) + "\n")
    elif rows:
        names = list(rows[0])
        lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            out.write("  ".join(cells).rstrip() + "\n")
    else:
        out.write("none\n")


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
