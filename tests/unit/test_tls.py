"""The TLS context and everything that can be wrong with its files."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from djasgi.errors import DjasgiError, ExitCode, ListenError, UsageError
from djasgi.options import Options
from djasgi.tls import Tls, load_tls


class Files:
    """A certificate for `localhost` and its key, in every form that matters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority = trustme.CA()
        self.issued = self.authority.issue_cert("localhost")
        self.cert = self.write(
            "cert.pem", *(blob.bytes() for blob in self.issued.cert_chain_pems)
        )
        self.key = self.write("key.pem", self.issued.private_key_pem.bytes())
        self.both = self.write(
            "both.pem", self.cert.read_bytes(), self.key.read_bytes()
        )
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())
        self.encrypted = self.write("encrypted.pem", self._encrypted())
        self.password = self.write("password", b"pa ss\r\nsecond line\n")
        self.empty = self.write("empty", b"")

    def write(self, name: str, *parts: bytes) -> Path:
        path = self.root / name
        path.write_bytes(b"".join(parts))
        return path

    def _encrypted(self) -> bytes:
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pa ss"),
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def load(**options: Any) -> Tls:
    tls = load_tls(Options(**options))
    assert tls is not None
    return tls


def refused(kind: type[DjasgiError], **options: Any) -> str:
    """The message; the hint is there, and both together are at most three lines."""
    with pytest.raises(kind) as caught:
        load_tls(Options(**options))
    assert caught.value.hint
    assert str(caught.value).count("\n") < 3
    return caught.value.message


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Client and server after a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def browser(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_without_a_certificate_there_is_no_tls() -> None:
    assert load_tls(Options()) is None


@pytest.mark.parametrize("form", ["separate", "both", "encrypted"])
def test_a_client_is_served(files: Files, form: str) -> None:
    options: dict[str, Any] = {
        "separate": {"ssl_certfile": files.cert, "ssl_keyfile": files.key},
        "both": {"ssl_certfile": files.both},
        "encrypted": {
            "ssl_certfile": files.cert,
            "ssl_keyfile": files.encrypted,
            "ssl_keyfile_password_file": files.password,
        },
    }[form]

    client, _ = handshake(load(**options).context, browser(files))

    assert client.version() == "TLSv1.3"
    assert client.selected_alpn_protocol() == "http/1.1"
    assert client.compression() is None


def test_settings_are_handed_on_and_the_password_is_not_shown(files: Files) -> None:
    tls = load(
        ssl_certfile=files.cert,
        ssl_keyfile=files.encrypted,
        ssl_keyfile_password_file=files.password,
        ssl_ca_certs=files.ca,
        ssl_cert_reqs="optional",
        ssl_ciphers="ECDHE+AESGCM",
    )

    assert tls.certfile == files.cert
    assert tls.keyfile == files.encrypted
    assert tls.password == "pa ss"
    assert tls.ca_certs == files.ca
    assert tls.cert_reqs == "optional"
    assert tls.ciphers == "ECDHE+AESGCM"
    assert tls.min_version == "1.2"
    assert "pa ss" not in repr(tls)


def test_oldest_version(files: Files) -> None:
    old = browser(files)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    client, _ = handshake(load(ssl_certfile=files.both).context, old)
    newest = load(ssl_certfile=files.both, ssl_min_version="1.3").context

    assert client.version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        handshake(newest, old)


def test_ciphers(files: Files) -> None:
    context = load(ssl_certfile=files.both, ssl_ciphers="ECDHE+CHACHA20").context
    old = browser(files)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    client, _ = handshake(context, old)

    cipher = client.cipher()
    assert cipher is not None
    assert "CHACHA20" in cipher[0]


def test_a_client_certificate_is_required(files: Files) -> None:
    context = load(
        ssl_certfile=files.both, ssl_ca_certs=files.ca, ssl_cert_reqs="required"
    ).context
    with_certificate = browser(files)
    files.authority.issue_cert("client@site.test").configure_cert(with_certificate)

    _, server = handshake(context, with_certificate)

    assert server.getpeercert()
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(context, browser(files))


@pytest.mark.parametrize(
    ("option", "value", "flag"),
    [
        ("ssl_keyfile", Path("key.pem"), "--ssl-keyfile"),
        ("ssl_keyfile_password_file", Path("p"), "--ssl-keyfile-password-file"),
        ("ssl_ca_certs", Path("ca.pem"), "--ssl-ca-certs"),
        ("ssl_cert_reqs", "required", "--ssl-cert-reqs"),
        ("ssl_ciphers", "HIGH", "--ssl-ciphers"),
        ("ssl_min_version", "1.3", "--ssl-min-version"),
    ],
)
def test_options_without_a_certificate(option: str, value: Any, flag: str) -> None:
    message = refused(UsageError, **{option: value})

    assert message == f"Without --ssl-certfile there is no TLS for {flag}."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ssl_cert_reqs": "required"},
            "--ssl-cert-reqs required needs --ssl-ca-certs.",
        ),
        (
            {"ssl_ca_certs": Path("ca.pem")},
            "--ssl-ca-certs has no effect while --ssl-cert-reqs is none.",
        ),
        (
            {"ssl_ciphers": "HIGH", "ssl_min_version": "1.3"},
            "--ssl-ciphers has no effect with --ssl-min-version 1.3.",
        ),
        (
            {"ssl_ciphers": "NO-SUCH"},
            "--ssl-ciphers: OpenSSL knows no cipher in 'NO-SUCH'.",
        ),
    ],
)
def test_contradictory_options(
    files: Files, options: dict[str, Any], message: str
) -> None:
    assert refused(UsageError, ssl_certfile=files.both, **options) == message


def given(files: Files, option: str, path: Path) -> dict[str, Any]:
    """Good options, but for one file."""
    options: dict[str, Any] = {
        "ssl_certfile": files.cert,
        "ssl_keyfile": files.encrypted,
        "ssl_keyfile_password_file": files.password,
        "ssl_ca_certs": files.ca,
        "ssl_cert_reqs": "required",
    }
    return {**options, option: path}


FILE_OPTIONS = {
    "ssl_certfile": "--ssl-certfile",
    "ssl_keyfile": "--ssl-keyfile",
    "ssl_keyfile_password_file": "--ssl-keyfile-password-file",
    "ssl_ca_certs": "--ssl-ca-certs",
}


@pytest.mark.parametrize("option", FILE_OPTIONS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file or directory"),
        ("directory", "is a directory"),
        ("loop", "too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read(
    files: Files, option: str, kind: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)

    message = refused(ListenError, **given(files, option, path))

    assert message == f"{FILE_OPTIONS[option]}: cannot read {path}: {reason}."
    assert ListenError.exit_code is ExitCode.LISTEN


PEM_GARBAGE = b"-----BEGIN %s-----\nnot base64 at all\n-----END %s-----\n"


@pytest.mark.parametrize("option", FILE_OPTIONS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbage",
        PEM_GARBAGE % (b"CERTIFICATE", b"CERTIFICATE"),
        PEM_GARBAGE % (b"PRIVATE KEY", b"PRIVATE KEY"),
    ],
)
def test_a_file_with_garbage(
    files: Files, option: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)

    message = refused(ListenError, **given(files, option, path))

    assert FILE_OPTIONS[option] in message
    if not content.startswith(b"-----"):
        assert str(path) in message


def test_a_key_of_another_certificate(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(files.authority.issue_cert("x.test").private_key_pem.bytes())

    message = refused(ListenError, ssl_certfile=files.cert, ssl_keyfile=other)

    assert message == (
        f"--ssl-keyfile: {other} has a key that does not belong to the certificate "
        f"in {files.cert}."
    )


def test_no_key_at_all(files: Files) -> None:
    message = refused(ListenError, ssl_certfile=files.cert)

    assert message == f"--ssl-certfile: {files.cert} has no private key in it."


@pytest.mark.parametrize("password", [None, b"wrong\n", b"pa ss \n", b"x" * 2000])
def test_an_encrypted_key_never_asks_on_the_terminal(
    files: Files, tmp_path: Path, password: bytes | None
) -> None:
    options: dict[str, Any] = {
        "ssl_certfile": files.cert,
        "ssl_keyfile": files.encrypted,
    }
    expected = "has a key that is encrypted."
    if password is not None:
        options["ssl_keyfile_password_file"] = tmp_path / "password"
        (tmp_path / "password").write_bytes(password)
        expected = (
            "has a key that the password in --ssl-keyfile-password-file does not open."
        )

    message = refused(ListenError, **options)

    assert message == f"--ssl-keyfile: {files.encrypted} {expected}"


def test_an_empty_first_line_is_no_password(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"\npa ss\n")

    message = refused(ListenError, **given(files, "ssl_keyfile_password_file", path))

    assert message == f"--ssl-keyfile-password-file: the first line of {path} is empty."
