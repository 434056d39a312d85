"""The cloud at a broker that wants a client certificate."""

import os
import pwd
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gridtokenx_cloud.adapters.mqtt import MqttIngest
from tests.support.build_cloud import cloud
from tests.support.cloud_process import wait_until
from tests.support.mosquitto import find_mosquitto, wait_for_port
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mosquitto")]


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("test authority")
        self._write("ca", self._certificate(self.name, self.key.public_key(), is_ca=True), self.key)

    def issue(self, common_name: str) -> None:
        """Write `<common name>.crt` and `.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(common_name, self._certificate(_name(common_name), key.public_key()), key)

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        pem = serialization.Encoding.PEM
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(pem))
        plain = serialization.NoEncryption()
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        (self.folder / f"{name}.key").write_bytes(secret)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def test_the_cloud_proves_itself_with_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    authority.issue("cloud")
    port = free_port()
    broker = find_mosquitto()
    assert broker is not None
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nuser {pwd.getpwuid(os.geteuid()).pw_name}\n"
        f"cafile {tmp_path}/ca.crt\ncertfile {tmp_path}/server.crt\nkeyfile {tmp_path}/server.key\n"
        "require_certificate true\nuse_identity_as_username true\n"
    )
    process = subprocess.Popen([broker, "-c", str(tmp_path / "mosquitto.conf")])
    try:
        wait_for_port(port, process)
        with cloud(tmp_path) as side:
            worker = MqttIngest(
                f"mqtts://localhost:{port}",
                None,
                None,
                tmp_path / "ca.crt",
                side.service,
                cert_file=tmp_path / "cloud.crt",
                key_file=tmp_path / "cloud.key",
            )
            worker.start()
            try:
                wait_until(lambda: worker.connected, "the broker takes the certificate")
            finally:
                worker.stop()
    finally:
        process.terminate()
        process.wait(timeout=90)
