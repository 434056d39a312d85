"""Home Assistant finds the meters, and is told what they say."""

import asyncio
import json
from dataclasses import replace

from gridtokenx_agent.adapters.home_assistant import HomeAssistant
from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.home import (
    AVAILABILITY,
    HomeMeter,
    announcements,
    energy_topic,
    live_topic,
    values_of,
)
from gridtokenx_agent.ports import NewRow
from gridtokenx_wire.encoding import encode_line
from gridtokenx_wire.record import LiveValues, SampleRecord, SlotRecord
from tests.support import build
from tests.support.raw_broker import RawBroker

GATEWAY = build.SIGNER.gateway_id
METER = HomeMeter(meter_id="HOUSE.17", interval_s=900, sample_s=10)
LIVE = LiveValues(active_power_w=-1500, voltage_mv=230_100)


def slot() -> SlotRecord:
    record = build.record("slot", "HOUSE.17", 1)
    assert isinstance(record, SlotRecord)
    return record._replace(live=LIVE)


def test_energy_is_announced_as_a_counter_that_only_grows() -> None:
    told = {topic: json.loads(text) for topic, text in announcements("ha", GATEWAY, [METER], "v")}

    energy = told[f"ha/sensor/gtx_{GATEWAY[:8]}/HOUSE_17_import_wh/config"]
    power = told[f"ha/sensor/gtx_{GATEWAY[:8]}/HOUSE_17_active_power_w/config"]
    assert (energy["state_class"], energy["device_class"]) == ("total_increasing", "energy")
    assert (energy["unit_of_measurement"], energy["expire_after"]) == ("Wh", 2700)
    assert energy["state_topic"] == energy_topic("HOUSE.17")
    assert (power["state_topic"], power["expire_after"]) == (live_topic("HOUSE.17"), 30)
    assert len({value["unique_id"] for value in told.values()}) == len(told)


def test_a_sample_never_shows_a_counter_as_gone() -> None:
    sample = SampleRecord(stamp=slot().stamp, live=LIVE)

    assert values_of(slot()) == (
        energy_topic("HOUSE.17"),
        {"import_wh": 1, "export_wh": 1, "active_power_w": -1500, "voltage_mv": 230_100},
    )
    assert values_of(sample) == (
        live_topic("HOUSE.17"),
        {"active_power_w": -1500, "voltage_mv": 230_100},
    )
    assert values_of(build.record("event", "HOUSE.17", 1)) is None
    assert values_of(replace(sample, live=LiveValues())) is None


async def test_meters_are_announced_at_each_connection_and_values_follow() -> None:
    async with RawBroker(levels=frozenset({4})).serving() as broker:
        address = MqttAddress(url=f"mqtt://127.0.0.1:{broker.port}", client_id=GATEWAY)
        told = list(announcements("ha", GATEWAY, [METER], "v"))
        home = HomeAssistant(address, lambda: told)
        row = NewRow(
            epoch=build.EPOCH,
            seq=1,
            kind="slot",
            wall_ms=1,
            line=encode_line(slot(), build.SIGNER.sign),
        )
        home.show(build.state("HOUSE.17", 1), [row])

        task = asyncio.create_task(home.run())
        async with asyncio.timeout(60):
            while (AVAILABILITY, b"online") not in broker.other:  # noqa: ASYNC110 - the broker sets no event
                await asyncio.sleep(0.01)
            home.show(build.state("HOUSE.17", 1), [row])
            while broker.other[-1][0] != energy_topic("HOUSE.17"):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        shown = json.loads(broker.other[-1][1])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert broker.other[: len(told)] == told
    assert shown["import_wh"] == 1
    assert [topic for topic, _ in broker.other].count(energy_topic("HOUSE.17")) == 1
    assert broker.other[-1] == (AVAILABILITY, b"offline")
