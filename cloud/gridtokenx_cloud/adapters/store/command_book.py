"""Who asked which gateway for what, and how it ended: two entries of the audit log."""

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from gridtokenx_cloud.ports.common import Clock


class SqlCommandBook:
    """Written before a command leaves, so that none is ever sent unseen."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def issue(self, gateway_id: str, nonce: str, command: str, argument_sha256: str) -> None:
        """Write down that a command is about to be sent.

        Raises:
            NotFoundError: No such gateway.
            ValidationError: The gateway is revoked.
        """
        detail = {"command": command, "nonce": nonce, "argument_sha256": argument_sha256}
        with self._database.transaction() as tx:
            row = tx.execute(
                "SELECT status FROM gateways WHERE gateway_id = ?", (gateway_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError(
                    f"Gateway {gateway_id} is not enrolled; `gtx-cloud gateway list` shows all."
                )
            if row["status"] != "active":
                raise ValidationError(
                    "GatewayRevoked",
                    f"Gateway {gateway_id} is {row['status']}; it is sent nothing.",
                )
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action="command_sent",
                subject=gateway_id,
                detail=detail,
            )

    def close(self, gateway_id: str, nonce: str, outcome: str, detail: str) -> None:
        """Write down what the gateway answered, or that it did not."""
        with self._database.transaction() as tx:
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action="command_answered",
                subject=gateway_id,
                detail={"nonce": nonce, "outcome": outcome, "detail": detail},
            )
