"""HTTPS by two files, with certificates that the test makes."""

from __future__ import annotations

import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.needs import need
from tests.serving import world
from tests.serving.world import GOOD
from windrow.errors import SettingsError, StoreError
from windrow.serving.local_key import local_key, local_key_file
from windrow.serving.run import start
from windrow.serving.tls import bento_ssl, check_files
from windrow.settings import Settings
from windrow.traffic import Sender


def certificate(folder: Path, name: str, *, password: str = "") -> tuple[str, str]:
    """Make a self-signed certificate for ``windrow.example`` and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    guarded = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    command = [str(need("openssl")), "req", "-x509", *kind, *guarded, "-days", "2", "-subj", "/CN=windrow.example"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return str(cert), str(key)


def settings_with(folder: Path, cert: str = "", key: str = "") -> Settings:
    places = {"HOME": str(folder / "home"), "DATA": str(folder), "PROJECT": str(ROOT), "TLS_CERT": cert, "TLS_KEY": key}
    return Settings.read({f"WINDROW_{name}": value for name, value in places.items()})


def test_without_files_there_is_no_https(tmp_path: Path) -> None:
    assert bento_ssl(settings_with(tmp_path)) == {"enabled": False}


def test_files_that_belong_together_are_handed_to_bentoml(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "own")
    assert bento_ssl(settings_with(tmp_path, cert, key)) == {"enabled": True, "certfile": cert, "keyfile": key}


def test_files_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "own")
    _, other = certificate(tmp_path, "other")
    secret_cert, secret = certificate(tmp_path, "secret", password="hunter22")
    (tmp_path / "text").write_text("no certificate")
    gone, text = str(tmp_path / "gone"), str(tmp_path / "text")
    for pair, told in (
        ((cert, ""), "WINDROW_TLS_KEY is missing. Next: name both files"),
        (("", key), "WINDROW_TLS_CERT is missing. Next: name both files"),
        ((gone, key), "WINDROW_TLS_CERT cannot be read: .*/gone: No such file"),
        ((cert, gone), "WINDROW_TLS_KEY cannot be read: .*/gone: No such file"),
        ((str(tmp_path), key), "WINDROW_TLS_CERT cannot be read: .*: Is a directory"),
        ((cert, other), "cannot be used together: KEY_VALUES_MISMATCH"),
        ((text, key), "cannot be used together"),
        ((secret_cert, secret), "cannot be used together.*the key without a password"),
    ):
        with pytest.raises(SettingsError, match=told):
            check_files(settings_with(tmp_path, *pair))
    with pytest.raises(SettingsError, match="KEY_VALUES_MISMATCH"):
        start(settings_with(tmp_path, cert, other))


@pytest.mark.xdist_group("bento")
def test_the_service_speaks_https_and_nothing_else_and_our_clients_trust_its_certificate_alone(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "own")
    wrong, _ = certificate(tmp_path, "other")
    settings = settings_with(tmp_path, cert, key)
    world.publish(settings)
    world.release_fraud(settings)
    access = local_key(settings)
    with start(settings) as running:
        assert running.url.startswith("https://127.0.0.1:")
        with Sender(running.url, key=access, cert=cert) as sender:
            assert sender.predict("fraud", GOOD).value == pytest.approx(0.7211152, abs=1e-6)
        with Sender(running.url, key="wr_", cert=cert) as sender, pytest.raises(StoreError, match="answered with 401"):
            sender.predict("fraud", GOOD)
        with (
            Sender(running.url, key=access, cert=wrong) as sender,
            pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            sender.predict("fraud", GOOD)
        with pytest.raises(OSError, match="closed|reset|disconnected|Empty"):
            urllib.request.urlopen(running.url.replace("https", "http") + "/livez", timeout=5)
        form = urllib.request.Request(running.url + "/ui/login", f"key={access}".encode(), method="POST")
        assert "; Secure" in _headers(form, cert)["set-cookie"]
    assert access.rpartition("_")[2] not in running.log.read_text()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: object) -> None:
        return None


def _headers(request: urllib.request.Request, cert: str) -> dict[str, str]:
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=trusting))
    with pytest.raises(urllib.error.HTTPError) as moved:
        opener.open(request, timeout=10)
    with moved.value as answer:
        assert answer.code == 303
        return {name.lower(): value for name, value in answer.headers.items()}


def test_the_key_of_this_machine_is_its_owners_alone_and_is_made_again_when_it_is_not_valid(tmp_path: Path) -> None:
    from windrow.stores.metadata import Metadata

    settings = settings_with(tmp_path)
    first, file = local_key(settings), local_key_file(settings)
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (first, 0o600)
    assert local_key(settings) == first
    metadata = Metadata(settings.metadata)
    metadata.revoke_key(first.split("_")[1])
    second = local_key(settings)
    assert second != first
    file.chmod(0o644)  # others may have read it
    third = local_key(settings)
    assert third not in (first, second)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [key.name for key in metadata.access_keys()] == ["this machine"] * 3
    metadata.close()
