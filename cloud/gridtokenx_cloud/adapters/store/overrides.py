"""Settings changed while the program runs; every change with its audit entry."""

from collections.abc import Callable, Mapping

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit, only_writer
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.common import Clock

_SAVE_SQL = """
INSERT INTO settings_overrides (name, value, updated_at_ms, updated_by) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value,
    updated_at_ms = excluded.updated_at_ms, updated_by = excluded.updated_by
"""


class SqlOverrides:
    """Field names to texts, above what the environment says."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def values(self) -> dict[str, str]:
        """Return what is overridden."""
        with reading(self._database) as connection:
            rows = connection.execute("SELECT name, value FROM settings_overrides").fetchall()
        return {row["name"]: row["value"] for row in rows}

    def rows(self) -> list[dict[str, object]]:
        """Return what is overridden, when and by whom, by name."""
        with reading(self._database) as connection:
            rows = connection.execute(
                "SELECT name, value, updated_at_ms, updated_by FROM settings_overrides"
                " ORDER BY name"
            ).fetchall()
        return [
            {
                "name": row["name"],
                "value": row["value"],
                "updated_at": rfc3339(row["updated_at_ms"]),
                "updated_by": row["updated_by"],
            }
            for row in rows
        ]

    def change(
        self, values: Mapping[str, str | None], check: Callable[[Mapping[str, str]], object]
    ) -> None:
        """Set overrides, or take them back where the value is None; all or none.

        Args:
            values: Field -> text.
            check: Given all overrides as they would be; raises when they do not go together.
        """
        with self._database.transaction() as tx:
            # Two changes that each go together with what is there need not go together.
            only_writer(tx)
            rows = tx.execute("SELECT name, value FROM settings_overrides").fetchall()
            before = {row["name"]: row["value"] for row in rows}
            wanted = {**before, **values}
            check({name: text for name, text in wanted.items() if text is not None})
            now_ms = self._clock.now_ms()
            for name, text in sorted(values.items()):
                if text == before.get(name):
                    continue
                if text is None:
                    tx.execute("DELETE FROM settings_overrides WHERE name = ?", (name,))
                else:
                    tx.execute(_SAVE_SQL, (name, text, now_ms, self._actor))
                append_audit(
                    tx,
                    at_ms=now_ms,
                    actor=self._actor,
                    action="config_changed",
                    subject=name,
                    detail={"old": before.get(name), "new": text},
                )
