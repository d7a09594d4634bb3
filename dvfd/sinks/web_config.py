"""TLS and passwords of the listener, in the web configuration format of Prometheus' exporters.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md; what Python
cannot do of it is refused by name, never silently left out. Paths are relative to the file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dvfd import shell
from dvfd.config import plain_text
from dvfd.errors import ConfigError, ToolError

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}

BCRYPT = r"^\$2[abxy]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}$"
"""A cost of 14 takes a second; a higher one would lock everybody out while it is worked out."""

UNSUPPORTED = {"cipher_suites", "curve_preferences", "cert", "key", "client_ca",
               "client_allowed_sans"}  # fmt: skip
"""What the format has and Python's TLS, or dvfd, has not."""

Header = Annotated[str, StringConstraints(pattern=r"^[\t -~]*$")]
"""A value that cannot begin a header of its own."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tls(_Section):
    cert_file: Path | None = None
    key_file: Path | None = None
    client_auth_type: Literal[
        "", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = ""
    client_ca_file: Path | None = None
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    prefer_server_cipher_suites: bool = True


class _Headers(_Section):
    csp: Header | None = Field(None, alias="Content-Security-Policy")
    hsts: Header | None = Field(None, alias="Strict-Transport-Security")
    sniffing: Literal["nosniff"] | None = Field(None, alias="X-Content-Type-Options")
    framing: Literal["deny", "sameorigin"] | None = Field(None, alias="X-Frame-Options")
    xss: Header | None = Field(None, alias="X-XSS-Protection")


class _Http(_Section):
    http2: bool = True  # ignored: every answer here is one of HTTP/1.1
    headers: _Headers = _Headers.model_validate({})


class _File(_Section):
    tls_server_config: _Tls | None = None
    http_server_config: _Http = _Http()
    basic_auth_users: dict[
        Annotated[str, StringConstraints(pattern=r"^[^:]+$")],
        Annotated[str, StringConstraints(pattern=BCRYPT)],
    ] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says, ready for use. `users` maps a name to its bcrypt hash."""

    users: dict[str, str] = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    expires_at: float | None = None  # Unix seconds; None without TLS, or where nothing can tell
    files: tuple[Path, ...] = ()


def load(path: Path) -> WebConfig:
    """Read *path* and the files that it names. Raises ConfigError with every mistake in it."""
    try:
        raw = yaml.safe_load(plain_text(path))
        found = _File.model_validate(raw or {})
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: not taken: it nests too deep"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: not YAML: {' '.join(str(error).split())}"]) from None
    except ValidationError as error:
        raise ConfigError([_explain(path, dict(e)) for e in error.errors()]) from None
    headers = found.http_server_config.headers.model_dump(by_alias=True, exclude_none=True)
    if found.tls_server_config is None:
        return WebConfig(found.basic_auth_users, headers, files=(path,))
    tls = _absolute(found.tls_server_config, path)
    context = _context(tls, path)
    files = tuple(p for p in (path, tls.cert_file, tls.key_file, tls.client_ca_file) if p)
    assert tls.cert_file
    return WebConfig(found.basic_auth_users, headers, context, expiry(tls.cert_file), files)


def expiry(certificate: Path) -> float | None:
    """Unix seconds at which the first certificate ends, as openssl(1) tells; or None."""
    try:
        done = shell.run(
            ["openssl", "x509", "-noout", "-enddate", "-in", str(certificate)], timeout=5
        )
        return float(ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter=")))
    except (ToolError, ValueError):
        return None


def _absolute(tls: _Tls, path: Path) -> _Tls:
    names = ("cert_file", "key_file", "client_ca_file")
    named = {name: getattr(tls, name) for name in names if getattr(tls, name)}
    return tls.model_copy(update={name: path.parent / file for name, file in named.items()})


def _context(tls: _Tls, path: Path) -> ssl.SSLContext:
    """Raises ConfigError if the files do not make a server."""
    if problems := list(_contradictions(tls, path)):
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.min_version]
    context.maximum_version = VERSIONS[tls.max_version]
    assert tls.cert_file
    try:
        # A key with a passphrase is an error, not a question at a terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (OSError, ssl.SSLError) as error:
        where = f"cert_file {tls.cert_file}, key_file {tls.key_file}"
        raise ConfigError([f"{path}: {where}: cannot be used together: {error}"]) from None
    if tls.client_ca_file:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"{path}: client_ca_file {tls.client_ca_file}: {error}"]) from None
    if tls.client_auth_type == "RequireAndVerifyClientCert":
        context.verify_mode = ssl.CERT_REQUIRED
    elif tls.client_auth_type == "VerifyClientCertIfGiven":
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _contradictions(tls: _Tls, path: Path) -> list[str]:
    needed = ("cert_file", "key_file")
    found = [f"{path}: tls_server_config.{n}: missing" for n in needed if getattr(tls, n) is None]
    verifies = tls.client_auth_type not in {"", "NoClientCert"}
    if verifies and not tls.client_ca_file:
        found.append(f"{path}: client_auth_type {tls.client_auth_type} needs client_ca_file")
    if tls.client_ca_file and not verifies:
        found.append(f"{path}: client_ca_file is given, but client_auth_type verifies nobody")
    if tls.min_version > tls.max_version:
        found.append(f"{path}: min_version {tls.min_version} is above {tls.max_version}")
    return found


def _explain(path: Path, error: dict[str, object]) -> str:
    """One mistake; values are left out, since they may be secrets."""
    where = error["loc"]
    assert isinstance(where, tuple)
    key = ".".join(str(part) for part in where) or "(whole file)"
    if where[:1] == ("basic_auth_users",) and "pattern" in str(error["msg"]):
        return f"{path}: {key}: wanted a bcrypt hash of cost 4 to 14: htpasswd -nBC 10 NAME"
    if set(where[-1:]) & UNSUPPORTED:
        return f"{path}: {key}: dvfd cannot honour it: leave it out"
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: no such key"
    return f"{path}: {key}: {error['msg']}"
