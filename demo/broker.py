"""The demo's own MQTT broker: mosquitto with the shipped configuration, or iotcore without it."""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.place import ROOT, Place, secret_file, write_private
from demo.processes import DemoError, Program

CLOUD_USER = "cloud"


@dataclass(frozen=True)
class Broker:
    """How to reach the broker and what it lacks, if anything."""

    program: Program
    url: str
    lacks: str | None


def prepare_broker(place: Place, gateway_ids: list[str]) -> Broker:
    """Write configuration, passwords and ACL, and return the broker, not yet started."""
    passwords = {CLOUD_USER: password_of(place, CLOUD_USER)}
    passwords |= {gateway_id: password_of(place, gateway_id) for gateway_id in gateway_ids}
    url = f"mqtt://127.0.0.1:{place.ports['mqtt']}"
    mosquitto = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if mosquitto and os.environ.get("DEMO_BROKER") != "iotcore":
        return Broker(_mosquitto(place, mosquitto, passwords), url, None)
    return Broker(
        _iotcore(place, passwords),
        url,
        "mosquitto is not installed, iotcore serves the demo: no per-gateway ACL, and it forgets "
        "its queues at a restart (receipts make up for that)",
    )


def password_of(place: Place, user: str) -> str:
    """Return the broker password of *user*, drawn on the first call."""
    (place.folder / "secrets").mkdir(exist_ok=True, mode=0o700)
    return secret_file(password_file(place, user))


def password_file(place: Place, user: str) -> Path:
    return place.folder / "secrets" / f"mqtt-{user}"


def _mosquitto(place: Place, mosquitto: str, passwords: dict[str, str]) -> Program:
    folder = place.folder / "mosquitto"
    folder.mkdir(exist_ok=True)
    hashed = folder / "passwords"
    write_private(hashed, "".join(f"{user}:{word}\n" for user, word in passwords.items()))
    tool = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    done = subprocess.run([tool, "-U", str(hashed)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"mosquitto_passwd could not hash {hashed}: {done.stderr.strip()}")
    shutil.copy(ROOT / "deploy" / "mosquitto" / "acl", folder / "acl")
    (folder / "acl").chmod(0o600)
    template = (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text()
    changes = {
        "listener": f"listener {place.ports['mqtt']} 127.0.0.1",
        "password_file": f"password_file {hashed}",
        "acl_file": f"acl_file {folder / 'acl'}",
        "persistence_location": f"persistence_location {folder}/",
        "user": f"user {pwd.getpwuid(os.geteuid()).pw_name}",
        "log_dest": "log_dest stderr",
    }
    config = folder / "mosquitto.conf"
    config.write_text(adapt(template, changes))
    return Program("broker", [mosquitto, "-c", str(config)], place.logs / "broker.log")


def adapt(template: str, changes: dict[str, str]) -> str:
    """Return the shipped configuration with the lines that depend on the place replaced.

    A key that the template does not have is added; TLS lines (certificates the demo does not
    have) are left out. Everything else stays as shipped.
    """
    lines: list[str] = []
    left = dict(changes)
    for line in template.splitlines():
        key = line.split(" ", 1)[0]
        if key in changes:
            if key in left:
                lines.append(left.pop(key))
        elif key not in ("cafile", "certfile", "keyfile", "require_certificate"):
            lines.append(line)
    return "\n".join([*lines, *left.values()]) + "\n"


def _iotcore(place: Place, passwords: dict[str, str]) -> Program:
    folder = place.folder / "iotcore"
    folder.mkdir(exist_ok=True)
    users = "\n".join(f'"{user}" = "{word}"' for user, word in passwords.items())
    write_private(
        folder / "broker.toml",
        f"""id = 0
[router]
id = 0
max_connections = 200
max_outgoing_packet_count = 1000
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "127.0.0.1:{place.ports["mqtt"]}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 500
dynamic_filters = true
[v5.1.connections.auth]
{users}
""",
    )
    argv = [sys.executable, "-m", "demo.iotcore_broker", str(folder / "broker.toml")]
    return Program("broker", argv, place.logs / "broker.log")
