"""Shows live values to Home Assistant over its own broker; what is missed there is missed."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_agent.adapters.mqtt import MqttAddress, tls_context
from gridtokenx_agent.adapters.mqtt_session import to_its_end
from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.home import AVAILABILITY, values_of
from gridtokenx_agent.ports import NewRow
from gridtokenx_wire.encoding import parse_line

_KEEPALIVE_S = 60
_log = logging.getLogger(__name__)


class HomeAssistant:
    """One task; paho connects again by itself, and nothing waits while it is away."""

    def __init__(
        self, address: MqttAddress, announcements: Callable[[], list[tuple[str, bytes]]]
    ) -> None:
        self._address = address
        self._announcements = announcements
        self._client: Client | None = None
        self._told = ""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        client = self._new_client()
        parts = urlsplit(self._address.url)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        client.connect_async(parts.hostname or "", port, _KEEPALIVE_S)
        client.loop_start()
        self._client = client
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._client = None
            await to_its_end(partial(_close, client))

    def show(self, _state: MeterState, rows: Sequence[NewRow]) -> None:
        """Show the values of new records."""
        client = self._client
        if client is None or not client.is_connected():
            return
        for row in rows:
            shown = values_of(parse_line(row.line)) if row.kind in ("slot", "sample") else None
            if shown is not None:
                client.publish(shown[0], json.dumps(shown[1], separators=(",", ":")), qos=0)

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"gtx-{self._address.client_id[:16]}",
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        client.will_set(AVAILABILITY, b"offline", qos=0, retain=True)
        if self._address.username:
            client.username_pw_set(self._address.username, self._address.password)
        if self._address.url.startswith("mqtts:"):
            client.tls_set_context(tls_context(self._address))
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._tell("cannot be reached")
        return client

    def _on_connect(
        self, client: Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self._tell(str(code))
            return
        self._told = ""
        for topic, payload in self._announcements():
            client.publish(topic, payload, qos=0, retain=True)
        client.publish(AVAILABILITY, b"online", qos=0, retain=True)

    def _tell(self, trouble: str) -> None:
        if trouble != self._told:
            self._told = trouble
            _log.warning(
                "Home Assistant's broker is in trouble",
                extra={"broker": self._address.url, "reason": trouble},
            )


def _close(client: Client) -> None:
    if client.is_connected():
        client.publish(AVAILABILITY, b"offline", qos=0, retain=True)
    client.disconnect()
    client.loop_stop()
