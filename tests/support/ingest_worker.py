"""A whole ingest process for the kill tests: store, broker, and a chosen place to die.

Arguments: database URL, broker URL, user, password, where to die (`none` or `before-ack`).
"""

import os
import signal
import sys
import time

from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import IngestService
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.signing import signer
from tests.support.build_cloud import CLOUD_KEY, NOON_MS, TOKEN, FakeClock

_AGE_DAYS = 40
"""So long after noon it is here, whatever the date is: after the last slot that a test sends."""


def _die(credited: bool) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _live(credited: bool) -> None:
    pass


def main(database_url: str, broker_url: str, user: str, password: str, dies: str) -> None:
    service = IngestService(
        SqlIngestStore(open_database(database_url)),
        verify,
        signer(CLOUD_KEY),
        lambda: ReadingRules(reading_max_age_days=2 * _AGE_DAYS),
        TOKEN,
        FakeClock(NOON_MS + _AGE_DAYS * 86_400_000),
        on_commit=_die if dies == "before-ack" else _live,
    )
    ingest = MqttIngest(broker_url, user, password, None, service, first_delay_s=0.1)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    ingest.start()
    while not stopped:
        time.sleep(0.05)
    ingest.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
