"""An operator's wish for a pass of the minter, whichever process that is in."""

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit, only_writer
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.errors import FloodedError

PAUSE_MS = 60_000
_WANTED, _WANTED_AT, _DONE = "mint_pass_wanted", "mint_pass_wanted_at_ms", "mint_pass_done"
_SAVE = (
    "INSERT INTO facts (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


class SqlMintTrigger:
    """Passes are numbered from 1; a wish outlives both the API and the minter."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, actor: str, now_ms: int) -> int:
        """Ask for a pass and return its number.

        Raises:
            FloodedError: The one before was asked for less than a minute ago.
        """
        with self._database.transaction() as tx:
            only_writer(tx)
            number = int(_fact(tx, _WANTED)) + 1
            waited_ms = now_ms - int(_fact(tx, _WANTED_AT))
            if number > 1 and 0 <= waited_ms < PAUSE_MS:
                raise FloodedError("the operators' trigger", -((waited_ms - PAUSE_MS) // 1000))
            tx.execute(_SAVE, (_WANTED, str(number)))
            tx.execute(_SAVE, (_WANTED_AT, str(now_ms)))
            append_audit(
                tx,
                at_ms=now_ms,
                actor=actor,
                action="batch_triggered",
                subject=f"pass:{number}",
                detail={},
            )
        return number

    def state(self) -> tuple[int, int]:
        """Return the numbers of the newest pass that was asked for, and of the newest done."""
        with reading(self._database) as connection:
            return int(_fact(connection, _WANTED)), int(_fact(connection, _DONE))

    def done(self, number: int) -> None:
        """Note that the pass, and every one asked for before it, has been made."""
        with self._database.transaction() as tx:
            tx.execute(_SAVE, (_DONE, str(number)))


def _fact(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return "0" if row is None else str(row["value"])
