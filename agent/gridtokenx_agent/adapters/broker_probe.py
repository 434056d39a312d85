"""Walks the way to the broker step by step, so that the first broken step can be named.

Under a client id of its own: the same id would push the running agent off. It publishes nothing.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.diagnosis import Check, Level, check_certificate

_TIMEOUT_S: Final = 5.0
_REFUSED_TOPIC: Final = "subscription: "
_OLD_BROKER: Final = "Unsupported protocol version"


def broker_checks(address: MqttAddress, topic: str, now_ms: int) -> Iterator[Check]:
    """Yield a check per step: name, port, TLS, certificates, login, access; stop where one fails.

    Args:
        address: Broker and credentials.
        topic: A topic this gateway must be allowed to read.
        now_ms: Wall clock.
    """
    parts = urlsplit(address.url)
    secure = parts.scheme == "mqtts"
    host, port = parts.hostname or "", parts.port or (8883 if secure else 1883)
    steps: list[Callable[[], Check]] = [lambda: _name(host), lambda: _port(host, port)]
    if secure:
        steps.append(lambda: _tls(address, host, port))
    steps.append(lambda: _login(address, host, port, topic))
    yield from _dates(address, host, port, now_ms, secure=secure)
    for step in steps:
        check = step()
        yield check
        if check.level is Level.BAD:
            return


def _name(host: str) -> Check:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return Check(
            "broker name", Level.BAD, f"{host} is unknown here: {exc}",
            "check mqtt.url, and the name server: `resolvectl query` or `getent hosts`",
        )  # fmt: skip
    return Check("broker name", Level.OK, f"{host} is {found[0][4][0]}")


def _port(host: str, port: int) -> Check:
    try:
        socket.create_connection((host, port), _TIMEOUT_S).close()
    except OSError as exc:
        return Check(
            "broker port", Level.BAD, f"{host}:{port} cannot be reached: {exc.strerror or exc}",
            "check the port, the firewall on the way, and that the broker runs",
        )  # fmt: skip
    return Check("broker port", Level.OK, f"{host}:{port} accepts connections")


def _tls(address: MqttAddress, host: str, port: int) -> Check:
    try:
        context = _context(address)
    except OSError as exc:
        return Check(
            "broker TLS", Level.BAD, f"the TLS files cannot be used: {exc}",
            "check mqtt.ca_file, mqtt.cert_file and mqtt.key_file, and who may read them",
        )  # fmt: skip
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return Check("broker TLS", Level.OK, f"{secured.version()}, certificate trusted")
    except ssl.SSLCertVerificationError as exc:
        return Check(
            "broker TLS", Level.BAD, f"its certificate is not trusted: {exc.verify_message}",
            "check the clock, mqtt.ca_file, and that the certificate names this host",
        )  # fmt: skip
    except OSError as exc:
        return Check(
            "broker TLS", Level.BAD, f"no handshake: {exc}",
            "check that this port speaks TLS, and whether it wants a client certificate",
        )  # fmt: skip


def _dates(
    address: MqttAddress, host: str, port: int, now_ms: int, *, secure: bool
) -> Iterator[Check]:
    if secure and (served := _served_certificate(host, port)) is not None:
        yield _dated("the broker", served, now_ms)
    if address.cert_file is not None and (own := _file_certificate(address.cert_file)) is not None:
        yield _dated("this gateway", own, now_ms)


def _dated(whose: str, certificate: x509.Certificate, now_ms: int) -> Check:
    return check_certificate(
        whose,
        int(certificate.not_valid_before_utc.timestamp() * 1000),
        int(certificate.not_valid_after_utc.timestamp() * 1000),
        now_ms,
    )


def _served_certificate(host: str, port: int) -> x509.Certificate | None:
    """Return the broker's certificate whether it is trusted or not: its dates may say why."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            data = secured.getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(data) if data else None
    except (OSError, ValueError):
        return None


def _file_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _login(address: MqttAddress, host: str, port: int, topic: str) -> Check:
    said = _visit(address, host, port, topic, MQTTProtocolVersion.MQTTv5)
    if said == _OLD_BROKER:
        said = _visit(address, host, port, topic, MQTTProtocolVersion.MQTTv311)
    who = address.username or "nobody"
    if said is None:
        return Check("broker login", Level.OK, f"as {who}; may read {topic}")
    if said.startswith(_REFUSED_TOPIC):
        reason = said.removeprefix(_REFUSED_TOPIC)
        return Check(
            "broker access", Level.BAD, f"{who} may not read {topic} ({reason})",
            "check the broker's access rules; deploy/mosquitto/acl has them",
        )  # fmt: skip
    return Check(
        "broker login", Level.BAD, f"the broker refuses {who}: {said}",
        "check mqtt.username and mqtt.password_file, and that the broker knows this gateway",
    )  # fmt: skip


class _Visit:
    """One login and one subscription; what paho's thread reports first is the verdict."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._done = threading.Event()
        self._said: list[str | None] = []

    def verdict(self) -> str | None:
        """Return what was refused, None when nothing was."""
        self._done.wait(_TIMEOUT_S)
        return self._said[0] if self._said else f"no answer within {_TIMEOUT_S:g} s"

    def on_connect(
        self, client: Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self._finish(str(code))
        else:
            client.subscribe(self._topic, qos=1)

    def on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any
    ) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        self._finish(f"{_REFUSED_TOPIC}{refused[0]}" if refused else None)

    def on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any
    ) -> None:
        self._finish(f"it closed the connection ({code})")

    def _finish(self, said: str | None) -> None:
        self._said.append(said)
        self._done.set()


def _visit(
    address: MqttAddress, host: str, port: int, topic: str, protocol: MQTTProtocolVersion
) -> str | None:
    """Log in and subscribe once; return what was refused, None when nothing was."""
    visit = _Visit(topic)
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"{address.client_id}-doctor",
        protocol=protocol,
        reconnect_on_failure=False,
    )
    client.on_connect = visit.on_connect
    client.on_subscribe = visit.on_subscribe
    client.on_disconnect = visit.on_disconnect
    if address.username:
        client.username_pw_set(address.username, address.password)
    if address.url.startswith("mqtts:"):
        client.tls_set_context(_context(address))
    try:
        client.connect(host, port)
    except OSError as exc:
        return str(exc)
    client.loop_start()
    verdict = visit.verdict()
    client.disconnect()
    client.loop_stop()
    return verdict


def _context(address: MqttAddress) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.ca_file)
    if address.cert_file:
        context.load_cert_chain(address.cert_file, address.key_file)
    return context
