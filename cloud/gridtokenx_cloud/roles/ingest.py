"""The role that takes signed lines from the broker."""

from collections.abc import Callable, Iterator

from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.metrics import Figure
from gridtokenx_cloud.supervisor import StopSignal

_LOOK_S = 1.0


class IngestRole:
    """Keeps one MQTT worker running.

    Args:
        make_worker: Returns a new worker, not started.
        stop_timeout_s: Time for the commit under way and its receipts.
    """

    name = "ingest"

    def __init__(self, make_worker: Callable[[], MqttIngest], stop_timeout_s: float) -> None:
        self._make_worker = make_worker
        self._stop_timeout_s = stop_timeout_s
        self._worker: MqttIngest | None = None

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        worker = self._worker = self._make_worker()
        worker.start()
        try:
            while not stop.wait(_LOOK_S):
                if not worker.alive:
                    raise RuntimeError("a thread of the MQTT worker has ended")
        finally:
            worker.stop(self._stop_timeout_s)

    def figures(self) -> Iterator[Figure]:
        """Yield what the worker did with floods, and what it could not tell, since it started."""
        if (worker := self._worker) is not None:
            for what, number in (
                ("put_off", worker.counters.put_off),
                ("shed", worker.counters.shed),
            ):
                meaning = "Messages of gateways above their rate"
                yield Figure("ingest_flood_messages_total", meaning, number, {"outcome": what})
            yield Figure(
                "ingest_receipts_refused_total",
                "Receipts the broker did not take: its ACL keeps the cloud off their topics",
                worker.counters.receipts_refused,
            )

    def trouble(self) -> str | None:
        """See `Role.trouble`."""
        worker = self._worker
        return None if worker is not None and worker.connected else "the broker is not connected"
