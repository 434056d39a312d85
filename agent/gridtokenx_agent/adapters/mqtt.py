"""The broker, over paho-mqtt with MQTT 5: in 3.1.1 a refused PUBLISH looks like success."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gridtokenx_agent.adapters.mqtt_session import (
    CONNECT_TIMEOUT_S,
    MqttSession,
    ProtocolRefusedError,
    to_its_end,
)
from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError
from gridtokenx_agent.ports import Will

KEEPALIVE_S = 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttAddress:
    """Where the broker is, and who we are there; *section* of the configuration says so."""

    url: str
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    section: str = "mqtt"

    @property
    def shown(self) -> str:
        """Address and user, for messages."""
        return f"{self.url} as {self.username}" if self.username else self.url


def tls_context(address: MqttAddress) -> ssl.SSLContext:
    """Return what TLS needs.

    Raises:
        BrokerRefusedError: A certificate or key file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file)
    except OSError as exc:
        raise BrokerRefusedError(
            f"{address.shown}: cannot use the TLS files ({exc}); check {address.section}.ca_file, "
            "cert_file and key_file"
        ) from exc
    return context


class MqttLink:
    """`BrokerLink`; a new paho client for each session, so nothing of an old one can survive."""

    def __init__(self, address: MqttAddress, notify: Callable[[], None]) -> None:
        self._address = address
        self._notify = notify
        self._told_old = False

    @property
    def name(self) -> str:
        """See `BrokerLink.name`."""
        return self._address.shown

    async def connect(self, subscriptions: Sequence[str], will: Will) -> MqttSession:
        """See `BrokerLink.connect`; a broker that does not know MQTT 5 is asked for 3.1.1."""
        try:
            return await self._session(subscriptions, will, MQTTProtocolVersion.MQTTv5)
        except ProtocolRefusedError:
            session = await self._session(subscriptions, will, MQTTProtocolVersion.MQTTv311)
        if not self._told_old:
            self._told_old = True
            _log.warning(
                "broker speaks only MQTT 3.1.1: a message it refuses looks like one it took, and "
                "is sent again until a receipt comes",
                extra={"broker": self.name},
            )
        return session

    async def _session(
        self, subscriptions: Sequence[str], will: Will, protocol: MQTTProtocolVersion
    ) -> MqttSession:
        client = self._client(will, protocol)
        loop = asyncio.get_running_loop()
        session = MqttSession(client, will, self.name, loop, self._notify)
        try:
            await to_its_end(partial(self._dial, client))
            await session.welcomed()
            await session.subscribe(subscriptions)
        except BaseException:
            await session.close()
            raise
        return session

    def _client(self, will: Will, protocol: MQTTProtocolVersion) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._address.client_id,
            protocol=protocol,
            reconnect_on_failure=False,
            # In 3.1.1 this is said here; in 5 with each CONNECT.
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        if self._address.username:
            client.username_pw_set(self._address.username, self._address.password)
        if self._address.url.startswith("mqtts:"):
            client.tls_set_context(tls_context(self._address))
        return client

    def _dial(self, client: Client) -> None:
        parts = urlsplit(self._address.url)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        try:
            if client.protocol == MQTTProtocolVersion.MQTTv5:
                client.connect(parts.hostname or "", port, KEEPALIVE_S, clean_start=True)
            else:
                client.connect(parts.hostname or "", port, KEEPALIVE_S)
        except ssl.SSLCertVerificationError as exc:
            raise BrokerRefusedError(
                f"{self.name}: its certificate is not trusted ({exc.verify_message}); check "
                "mqtt.ca_file and the host name"
            ) from exc
        except OSError as exc:
            raise BrokerDownError(f"{self.name} cannot be reached: {exc}") from exc
        client.loop_start()
