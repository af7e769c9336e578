"""The TLS context, checked before anything serves.

Servers differ in when, and whether, they notice a certificate that cannot be used; the
worst of them then serves plain text on the TLS port. So the context is built once,
here, and each way in which its files can be wrong is told apart.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from djasgi.errors import ListenError, UsageError
from djasgi.frozen import Frozen
from djasgi.options import OPTIONS, Options

_REQUIREMENTS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Tls(Frozen):
    """What a server needs to speak TLS: the settings and the context made from them."""

    certfile: Path
    keyfile: Path | None
    password: str | None
    ca_certs: Path | None
    cert_reqs: str
    ciphers: str | None
    min_version: str
    context: ssl.SSLContext
    http2: bool = False

    def __repr__(self) -> str:
        return f"Tls({str(self.certfile)!r})"  # never the password


def load_tls(options: Options) -> Tls | None:
    """Read the files that the `ssl_*` options name; None if TLS was not asked for.

    Raises UsageError for options that contradict each other or have no effect, and
    ListenError for a file that is missing, unreadable, damaged, or does not match.
    """
    _refuse_contradictions(options)
    if options.ssl_certfile is None:
        return None
    password = _read_password(options.ssl_keyfile_password_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[options.ssl_min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    known = ["h2", "http/1.1"] if options.http2 else ["http/1.1"]
    context.set_alpn_protocols(known)
    _load_certificate(context, options.ssl_certfile, options.ssl_keyfile, password)
    _load_authorities(context, options.ssl_ca_certs)
    context.verify_mode = _REQUIREMENTS[options.ssl_cert_reqs]
    _set_ciphers(context, options.ssl_ciphers)
    return Tls(
        certfile=options.ssl_certfile,
        keyfile=options.ssl_keyfile,
        password=password,
        ca_certs=options.ssl_ca_certs,
        cert_reqs=options.ssl_cert_reqs,
        ciphers=options.ssl_ciphers,
        min_version=options.ssl_min_version,
        context=context,
        http2=options.http2,
    )


def _refuse_contradictions(options: Options) -> None:
    if options.ssl_certfile is None:
        given = [
            spec.flag
            for field, spec in OPTIONS.items()
            if field.startswith(("ssl_", "http2"))
            and getattr(options, field) != spec.default
        ]
        if given:
            raise UsageError(
                f"Without --ssl-certfile there is no TLS for {', '.join(given)}.",
                hint="Add --ssl-certfile with the certificate, or leave them out.",
            )
        return
    if options.ssl_cert_reqs != "none" and options.ssl_ca_certs is None:
        raise UsageError(
            f"--ssl-cert-reqs {options.ssl_cert_reqs} needs --ssl-ca-certs.",
            hint="Name the file with the authorities that client certificates come from.",
        )
    if options.ssl_cert_reqs == "none" and options.ssl_ca_certs is not None:
        raise UsageError(
            "--ssl-ca-certs has no effect while --ssl-cert-reqs is none.",
            hint="Add --ssl-cert-reqs required (or optional), or leave it out.",
        )
    if options.ssl_ciphers is not None and options.ssl_min_version == "1.3":
        raise UsageError(
            "--ssl-ciphers has no effect with --ssl-min-version 1.3.",
            hint="It is about TLS 1.2; leave one of the two out.",
        )


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ListenError(
            f"{option}: cannot read {path}: {reason}.",
            hint="Give a file that exists and that this user may read.",
        ) from None


def _read_password(path: Path | None) -> str | None:
    """The first line of the file, without its end."""
    if path is None:
        return None
    option = "--ssl-keyfile-password-file"
    lines = _read(option, path).splitlines()
    try:
        password = lines[0].decode() if lines else ""
    except UnicodeDecodeError:
        raise ListenError(
            f"{option}: the first line of {path} is not UTF-8 text.",
            hint="Give a text file whose first line is the password of the key.",
        ) from None
    if not password:
        raise ListenError(
            f"{option}: the first line of {path} is empty.",
            hint="Put the password there, or leave the option out if the key has none.",
        )
    return password


def _load_certificate(
    context: ssl.SSLContext, certfile: Path, keyfile: Path | None, password: str | None
) -> None:
    _check_certificate(certfile)
    key = keyfile or certfile
    source = f"--ssl-keyfile: {key}" if keyfile else f"--ssl-certfile: {key}"
    if b"PRIVATE KEY-----" not in _read(source.partition(":")[0], key):
        raise ListenError(
            f"{source} has no private key in it.",
            hint="Name the file with the key (PEM) with --ssl-keyfile.",
        )
    asked = False

    def answer() -> str:
        # Always given: without it OpenSSL asks on the terminal.
        nonlocal asked
        asked = True
        return password or ""

    try:
        context.load_cert_chain(certfile, keyfile, password=answer)
    except (ssl.SSLError, ValueError) as error:
        raise _key_error(
            error, source, certfile, asked=asked, password=password
        ) from None


def _check_certificate(certfile: Path) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in _read("--ssl-certfile", certfile):
        raise ListenError(
            f"--ssl-certfile: {certfile} has no certificate in it.",
            hint="Give the certificate, and those between it and the root, as PEM.",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certfile)
    except ssl.SSLError as error:
        raise ListenError(
            f"--ssl-certfile: the certificate in {certfile} is damaged "
            f"({_reason(error)}).",
            hint="Give the certificate, and those between it and the root, as PEM.",
        ) from None


def _key_error(
    error: ssl.SSLError | ValueError,
    source: str,
    certfile: Path,
    *,
    asked: bool,
    password: str | None,
) -> ListenError:
    if asked and password is None:
        return ListenError(
            f"{source} has a key that is encrypted.",
            hint="Give its password with --ssl-keyfile-password-file.",
        )
    if asked:
        return ListenError(
            f"{source} has a key that the password in "
            "--ssl-keyfile-password-file does not open.",
            hint="The password is the first line of that file, spaces included.",
        )
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return ListenError(
            f"{source} has a key that does not belong to the certificate in {certfile}.",
            hint="The server's own certificate comes first in its file; give its key.",
        )
    return ListenError(
        f"{source} cannot be used with the certificate in {certfile} "
        f"({_reason(error)}).",
        hint="Give the key as PEM, whole and as it was made for this certificate.",
    )


def _load_authorities(context: ssl.SSLContext, path: Path | None) -> None:
    if path is None:
        return
    _read("--ssl-ca-certs", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ListenError(
            f"--ssl-ca-certs: {path} has no usable certificate in it "
            f"({_reason(error)}).",
            hint="Give the certificates of the authorities as PEM.",
        ) from None


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None) -> None:
    if ciphers is None:
        return
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise UsageError(
            f"--ssl-ciphers: OpenSSL knows no cipher in {ciphers!r}.",
            hint="Give a cipher list, such as ECDHE+AESGCM:ECDHE+CHACHA20.",
        ) from None


def _reason(error: Exception) -> str:
    """OpenSSL's own word for it, such as `bad base64 decode`."""
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else "not valid PEM"
