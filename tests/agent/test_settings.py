"""The configuration: everything wrong with it is said at once."""

from pathlib import Path

import pytest

from gridtokenx_agent.app import mqtt_address, read_settings
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.settings import AgentSettings
from gridtokenx_agent.settings.document import page, undocumented
from tests.support import build

ROOT = Path(__file__).parents[2]
GOOD = f"""
[gateway]
key_file = "gateway.key"
token = "{build.TOKEN}"
[cloud]
public_key = "{build.CLOUD_KEY_TEXT}"
[mqtt]
url = "mqtt://127.0.0.1:1883"
[buffer]
path = "buffer.db"
[[bus]]
url = "tcp://127.0.0.1:502"
[[bus.meter]]
meter_id = "HOUSE-17"
profile = "eastron-sdm630"
device_id = 1
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str = GOOD) -> AgentSettings:
    return read_settings(written(tmp_path, text))


def faults(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return tuple(fault.split("agent.toml: ", 1)[-1] for fault in caught.value.faults)


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    settings = read(tmp_path)

    (meter,) = settings.bus[0].meter
    assert (meter.interval_s, meter.sample_s, meter.rated_power_w) == (900, 0, None)
    assert (settings.buffer.max_mb, settings.buffer.resend_after_s) == (256, 900)


def test_the_environment_goes_above_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTX_AGENT_MQTT__URL", "mqtts://broker.example:8883")
    monkeypatch.setenv("GTX_AGENT_BUFFER__MAX_MB", "64")

    settings = read(tmp_path)

    assert settings.mqtt.url == "mqtts://broker.example:8883"
    assert settings.buffer.max_mb == 64
    assert settings.buffer.path == Path("buffer.db")


def test_an_unknown_variable_with_our_prefix_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTX_AGENT_MQTT__URI", "mqtt://x")

    (fault,) = faults(tmp_path, GOOD)

    assert "GTX_AGENT_MQTT__URI is unknown; did you mean GTX_AGENT_MQTT__URL?" in fault


def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    text = GOOD.replace("device_id = 1", "device_id = 1\nintervall_s = 900").replace(
        'path = "buffer.db"', 'path = "buffer.db"\nmax_mbs = 5'
    )

    found = faults(tmp_path, text)

    assert found == (
        "buffer.max_mbs is unknown; did you mean max_mb?",
        "bus[0].meter[0].intervall_s is unknown; did you mean interval_s?",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("device_id = 1", "device_id = 1\ninterval_s = 7", "interval_s = 7: must divide a day"),
        ("device_id = 1", "device_id = 1\ninterval_s = 0", "interval_s = 0"),
        ("device_id = 1", "device_id = 256", "device_id = 256"),
        ('"HOUSE-17"', '"house 17"', "meter_id = 'house 17'"),
        ('"eastron-sdm630"', '"eastron-sdm631"', "eastron-sdm630"),
        ("mqtt://127.0.0.1:1883", "http://127.0.0.1", "must be mqtt://host:1883 or mqtts://"),
        ("mqtt://127.0.0.1:1883", "mqtt://me:secret@127.0.0.1", "only host and port belong here"),
        ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:99999", "no URL"),
        ("tcp://127.0.0.1:502", "udp://127.0.0.1:502", "must begin with tcp://"),
        (build.TOKEN, "So11", "gateway.token = 'So11'"),
        ('[buffer]\npath = "buffer.db"', "", "buffer is missing"),
        ("[gateway]", "[gateway", "is no TOML"),
    ],
)
def test_each_kind_of_fault_is_one_clear_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    (fault,) = faults(tmp_path, GOOD.replace(old, new))

    assert said in fault
    assert "\n" not in fault


def test_all_faults_are_told_in_one_run(tmp_path: Path) -> None:
    text = (
        GOOD.replace("eastron-sdm630", "nobody-knows")
        .replace("tcp://127", "xyz://127")
        .replace("device_id = 1", "device_id = 999")
        .replace('key_file = "gateway.key"', "")
    )

    found = " ".join(faults(tmp_path, text))

    for part in ("key_file is missing", "999", "xyz://", "nobody-knows"):
        assert part in found


def test_meters_and_device_ids_are_unique(tmp_path: Path) -> None:
    again = '[[bus.meter]]\nmeter_id = "HOUSE-17"\nprofile = "eastron-sdm630"\ndevice_id = 1\n'

    found = faults(tmp_path, GOOD + again)

    assert found == (
        "bus[0].meter[1].meter_id = HOUSE-17 is at bus[0].meter[0].meter_id already; "
        "meter ids are unique",
        "bus[0].meter[1].device_id = 1 is at bus[0].meter[0].device_id already; "
        "one per meter on a bus",
    )


def test_a_bus_is_named_once(tmp_path: Path) -> None:
    bus = GOOD[GOOD.index("[[bus]]") :].replace("HOUSE-17", "HOUSE-18")

    (fault,) = faults(tmp_path, GOOD + bus)

    assert "name each bus once" in fault


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gtx-agent init"):
        read_settings(tmp_path / "agent.toml")


def test_a_password_comes_from_its_file_and_the_user_is_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    text = GOOD.replace("[buffer]", f'password_file = "{tmp_path / "pw"}"\n[buffer]')

    address = mqtt_address(read(tmp_path, text).mqtt, "GW")

    assert (address.username, address.password, address.client_id) == ("GW", "s3cret", "GW")
    assert "s3cret" not in repr(read(tmp_path, text))


def test_an_unreadable_password_file_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    text = GOOD.replace("[buffer]", 'password_file = "/nowhere/pw"\n[buffer]')

    with pytest.raises(ConfigError, match=r"mqtt\.password_file /nowhere/pw"):
        mqtt_address(read(tmp_path, text).mqtt, "GW")


def test_the_reference_names_every_key_and_the_page_is_fresh() -> None:
    assert undocumented() == []
    assert (ROOT / "docs" / "agent-configuration.md").read_text(encoding="utf-8") == page()
