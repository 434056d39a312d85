"""Another configuration while the agent runs: per bus, and back if it does not do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.config_file import staged
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import MeterSimulator
from gridtokenx_agent.checking import read_settings
from gridtokenx_agent.configuring import Configuration
from gridtokenx_agent.errors import ConfigError, MeterTimeoutError
from gridtokenx_agent.fleet import Fleet, FleetParts
from gridtokenx_agent.ports import Instant, MeterBus, ReadFunction, WordsRead
from gridtokenx_agent.settings import AgentSettings
from gridtokenx_agent.tasks import Supervisor
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.memory_buffer import MemoryBuffer

PROFILE = "eastron-sdm630"


class YieldingClock(SteadyClock):
    """Sleeping gives the other tasks a turn, and costs a thousandth of the time."""

    def now(self) -> Instant:
        return super().now()

    async def sleep_until(self, mono_ms: int) -> None:
        await asyncio.sleep(0.001)
        self.advance(min(max(0, mono_ms - self.mono_ms), 1000))


class Services:
    def __init__(self) -> None:
        self.connected = True
        self.reachable = {"mqtt://good:1883", "mqtt://other:1883"}
        self.switched: list[str] = []

    async def switch(self, settings: AgentSettings) -> None:
        if settings.mqtt.password_file is not None:
            raise ConfigError(("mqtt.password_file cannot be read",))
        self.switched.append(settings.mqtt.url)
        self.connected = settings.mqtt.url in self.reachable


class Site:
    """Two buses with a meter each; a URL that ends in `dead` has none."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.toml"
        self.clock = YieldingClock()
        self.buffer = MemoryBuffer()
        self.opened: list[str] = []
        self.services = Services()
        self.path.write_text(self.text())
        self.before = self.path.read_bytes()

    def text(
        self,
        first: str = "tcp://one:502",
        second: str = "tcp://two:502",
        broker: str = "mqtt://good:1883",
        interval_s: int = 60,
        more: str = "",
    ) -> str:
        bus = "".join(
            f'[[bus]]\nurl = "{url}"\n[[bus.meter]]\nmeter_id = "{name}"\n'
            f'profile = "{PROFILE}"\ndevice_id = 1\ninterval_s = {interval_s}\n'
            for url, name in ((first, "M1"), (second, "M2"))
        )
        return (
            f'[gateway]\nkey_file = "/k"\ntoken = "{build.TOKEN}"\n'
            f'[cloud]\npublic_key = "{build.CLOUD_KEY_TEXT}"\n'
            f'[mqtt]\nurl = "{broker}"\n{more}\n[buffer]\npath = "/b"\n{bus}'
        )

    def open_bus(self, url: str) -> MeterBus:
        self.opened.append(url)
        if "dead" in url:
            return DeadBus()
        energy = {"import_energy": Decimal(100), "export_energy": Decimal(5)}
        meter = MeterSimulator(find_profile(PROFILE), lambda: energy)
        return FakeBus({1: meter}, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Configuration]:
        supervisor = Supervisor(first_pause_s=0)
        self.fleet = Fleet(
            FleetParts(
                recorder=build.recorder_parts(self.buffer),
                supervisor=supervisor,
                clock=self.clock,
                beat=lambda _name, _ms: None,
                open_bus=self.open_bus,
                find_profile=find_profile,
            )
        )
        settings = read_settings(self.path)
        configuration = Configuration(
            self.path, settings, read_settings, staged, self.fleet, self.services, self.clock
        )
        await self.fleet.switch(settings.bus)
        await asyncio.sleep(0.02)
        try:
            yield configuration
        finally:
            await supervisor.stop_all()


class DeadBus:
    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        await asyncio.sleep(0)
        raise MeterTimeoutError(f"meter {device_id} is silent")

    async def close(self) -> None:
        return


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_a_good_configuration_comes_into_force_and_into_the_file(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(site.text(interval_s=900))

    assert answer.outcome == "done"
    assert configuration.settings.bus[0].meter[0].interval_s == 900
    assert "interval_s = 900" in site.path.read_text()
    assert list(site.path.parent.iterdir()) == [site.path]


async def test_a_bus_that_stays_the_same_is_never_closed(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(site.text(second="tcp://three:502"))

        assert site.fleet.names == ("tcp://one:502", "tcp://three:502")
    assert answer.outcome == "done"
    assert site.opened == ["tcp://one:502", "tcp://two:502", "tcp://three:502"]


async def test_the_same_configuration_changes_nothing(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change("# a remark\n" + site.text())

    assert (answer.outcome, answer.detail) == ("done", "the configuration is the same")
    assert site.path.read_bytes() == site.before
    assert len(site.opened) == 2
    assert site.services.switched == []


async def test_a_configuration_pushed_twice_leaves_a_thousand_waiting_rows_alone(
    site: Site,
) -> None:
    """thingsboard-gateway#2124: the buffer was built anew at each push."""
    await build.fill(site.buffer, "M1", ["slot"] * 1000)

    async with site.running() as configuration:
        before = list(site.buffer.rows)
        text = site.text(interval_s=900)
        answers = [await configuration.change(text) for _ in range(2)]

        assert list(site.buffer.rows)[: len(before)] == before
    assert [answer.outcome for answer in answers] == ["done", "done"]
    assert len(before) >= 1000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("this is no TOML", "no TOML"),
        ("[gateway]\n", "missing"),
    ],
)
async def test_a_wrong_configuration_is_refused_with_every_fault(
    site: Site, text: str, fault: str
) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(text)

    assert answer.outcome == "refused"
    assert fault in answer.detail
    assert site.path.read_bytes() == site.before
    assert len(site.opened) == 2


async def test_whom_the_gateway_believes_cannot_be_changed_from_afar(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(
            site.text().replace(build.CLOUD_KEY_TEXT, build.SIGNER.gateway_id)
        )

    assert answer.outcome == "refused"
    assert "[cloud]" in answer.detail
    assert site.path.read_bytes() == site.before


async def test_a_bus_that_stays_dead_brings_the_old_configuration_back(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(site.text(second="tcp://dead:502"))

        assert site.fleet.names == ("tcp://one:502", "tcp://two:502")
        assert await site.fleet.answering(configuration.settings.bus) == {"M1", "M2"}
    assert answer.outcome == "failed"
    assert "tcp://dead:502 stays dead" in answer.detail
    assert site.path.read_bytes() == site.before
    assert site.opened.count("tcp://one:502") == 1


async def test_a_meter_that_was_dead_before_may_be_dead_afterwards(site: Site) -> None:
    site.path.write_text(site.text(second="tcp://dead:502"))
    async with site.running() as configuration:
        answer = await configuration.change(site.text(second="tcp://dead-too:502"))

    assert answer.outcome == "done"


async def test_a_broker_that_is_not_reached_brings_the_old_one_back(site: Site) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(site.text(broker="mqtt://gone:1883"))

    assert answer.outcome == "failed"
    assert "mqtt://gone:1883 is not reached" in answer.detail
    assert site.services.switched == ["mqtt://gone:1883", "mqtt://good:1883"]
    assert site.services.connected
    assert site.path.read_bytes() == site.before


async def test_a_service_that_cannot_be_made_brings_the_old_configuration_back(
    site: Site,
) -> None:
    async with site.running() as configuration:
        answer = await configuration.change(site.text(more='password_file = "/nowhere"'))

    assert answer.outcome == "failed"
    assert "password_file" in answer.detail
    assert site.path.read_bytes() == site.before


async def test_a_folder_that_takes_no_file_is_said_before_anything_is_tried(site: Site) -> None:
    async with site.running() as configuration:
        site.path.with_name(".agent.toml.new").mkdir()
        answer = await configuration.change(site.text(interval_s=900))

    assert answer.outcome == "refused"
    assert "cannot be replaced" in answer.detail
    assert len(site.opened) == 2


async def test_a_reload_takes_what_is_in_the_file(site: Site) -> None:
    async with site.running() as configuration:
        site.path.write_text(site.text(second="tcp://three:502"))
        await configuration.reload()

        assert site.fleet.names == ("tcp://one:502", "tcp://three:502")
    assert site.opened.count("tcp://one:502") == 1


async def test_a_reload_of_a_wrong_file_changes_nothing_and_says_why(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.running() as configuration:
        site.path.write_text(site.text(interval_s=7))
        await configuration.reload()

        assert configuration.settings.bus[0].meter[0].interval_s == 60
    assert any("configuration refused" in record.message for record in caplog.records)


async def test_an_epoch_survives_a_change_of_its_bus(site: Site) -> None:
    async with site.running() as configuration:
        before = {name: state.epoch for name, state in site.buffer.known.items()}
        await configuration.change(site.text(first="tcp://moved:502", second="tcp://also:502"))
        await asyncio.sleep(0.02)

    assert {name: state.epoch for name, state in site.buffer.known.items()} == before


async def test_every_meter_is_read_on_demand_and_nothing_is_recorded(site: Site) -> None:
    async with site.running():
        commits = site.buffer.commits
        meters = await site.fleet.read_now()

    assert [meter["meter_id"] for meter in meters] == ["M1", "M2"]
    assert all("import_wh" in meter for meter in meters)
    assert site.buffer.commits == commits


async def test_nothing_changes_while_the_disk_takes_no_rows(site: Site) -> None:
    async with site.running() as configuration:
        site.buffer.full = True
        site.clock.advance(60_000)
        async with asyncio.timeout(30):
            while not site.fleet.stalled:  # noqa: ASYNC110 - the fleet sets no event
                await asyncio.sleep(0.01)

        answer = await configuration.change(site.text(interval_s=900))

        site.buffer.full = False
    assert answer.outcome == "refused"
    assert "free disk space" in answer.detail
    assert site.path.read_bytes() == site.before


async def test_a_configuration_behind_a_link_is_replaced_where_it_is(
    site: Site, tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "agent.toml"
    kept.parent.mkdir()
    site.path.rename(kept)
    site.path.symlink_to(kept)
    text = site.text(interval_s=900)

    async with site.running() as configuration:
        answer = await configuration.change(text)

    assert answer.outcome == "done"
    assert site.path.is_symlink()
    assert kept.read_text() == text
    assert [path.name for path in kept.parent.iterdir()] == ["agent.toml"]


async def test_another_broker_must_be_reached_even_while_the_old_one_is_away(site: Site) -> None:
    """The command came over the old one; at a broker that does not exist no other would come."""
    async with site.running() as configuration:
        site.services.connected = False
        answer = await configuration.change(site.text(broker="mqtt://gone-too:1883"))

    assert answer.outcome == "failed"
    assert "mqtt://gone-too:1883 is not reached" in answer.detail
    assert site.path.read_bytes() == site.before
