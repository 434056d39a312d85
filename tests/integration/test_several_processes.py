"""One PostgreSQL, several `gtx-cloud run`: ingest in all of them, everything else in one."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gridtokenx_wire.record import SlotRecord
from tests.support.build_cloud import slot
from tests.support.cloud_process import (
    GTX_CLOUD,
    Installation,
    environment,
    gtx_cloud,
    installation,
    wait_until,
)
from tests.support.mosquitto import wait_for_port
from tests.support.ports import free_port
from tests.support.postgres import Server

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cloud-process")]
READINGS = 60


@contextmanager
def ingest_process(place: Installation) -> Iterator[None]:
    port = free_port()
    own = {"GTX_CLOUD_METRICS_BIND": f"127.0.0.1:{port}"}
    process = subprocess.Popen(
        [*GTX_CLOUD, "run", "--roles", "ingest"], env=environment(place.env | own)
    )
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        assert process.wait(90) == 0


def reading(place: Installation, seq: int) -> SlotRecord:
    return slot(seq, seq * 100, at=place.stamp(seq), token=place.mint)


def test_readings_that_reach_any_of_three_processes_are_minted_once_by_one(
    tmp_path: Path, postgres: Server
) -> None:
    with installation(tmp_path, postgres.new_database()) as place, ExitStack() as stack:
        stack.enter_context(place.running())
        for _ in range(2):
            stack.enter_context(ingest_process(place))
        publish = stack.enter_context(place.gateway())
        lines = [reading(place, seq) for seq in range(1, READINGS + 1)]
        for _ in range(2):
            for line in lines:
                publish(line)
        wait_until(
            lambda: place.durable_seqs() == set(range(1, READINGS + 1)), "all receipts are here"
        )
        wait_until(lambda: place.minted_wh() == (READINGS - 1) * 100, "everything is minted")
        elsewhere = {"GTX_CLOUD_METRICS_BIND": f"127.0.0.1:{free_port()}"}
        second = gtx_cloud(place.env | elsewhere, "run", "--roles", "settle")
        audit = gtx_cloud(place.env, "audit")
        backup = gtx_cloud(place.env, "backup", str(tmp_path / "cloud.dump"))
        counted = place.number("SELECT count(*) FROM meter_readings")

    assert counted == READINGS
    assert second.returncode != 0
    assert "another minter works on postgresql://" in second.stderr
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert backup.returncode == 0, backup.stderr
    assert (tmp_path / "cloud.dump").stat().st_mode & 0o777 == 0o600
