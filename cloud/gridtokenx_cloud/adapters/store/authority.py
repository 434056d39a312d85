"""Which mint authority a store belongs to."""

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.ports.common import Clock


class SqlAuthority:
    """Each method is one commit or one read."""

    def __init__(self, database: Database, clock: Clock, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def unfinished(self) -> list[int]:
        """Return the batches whose end an authority still has to bring about, or that dispute."""
        rows = self._database.connection.execute(
            "SELECT batch_id FROM mint_batches"
            " WHERE state IN ('sealed', 'signed', 'in_flight', 'disputed') ORDER BY batch_id"
        )
        return [row["batch_id"] for row in rows]

    def begin(self, present: str, following: str) -> None:
        """Write down that the token is about to be handed over."""
        with self._database.transaction() as tx:
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action="authority_handover_begun",
                subject=f"key:{present}",
                detail={"next": following},
            )

    def hand_over(self, present: str, following: str, facts: dict[str, str]) -> bool:
        """Tie the store to the next authority; false = it is already."""
        with self._database.transaction() as tx:
            moved = tx.execute(
                "UPDATE facts SET value = ? WHERE name = 'mint_authority' AND value = ?",
                (following, present),
            ).rowcount
            if not moved:
                return False
            for name, value in facts.items():
                tx.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action="authority_handed_over",
                subject=f"key:{present}",
                detail={"next": following},
            )
        return True
