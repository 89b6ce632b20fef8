"""Does the running service answer, here and under the address that devices use?"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from attestd.addresses import is_wildcard
from attestd.cli.failures import Failure, Unreachable
from attestd.cli.options import config_option
from attestd.cli.output import json_option
from attestd.cli.report import Line, lines_of, tell
from attestd.config import Config

_PATIENCE = 5.0  # seconds for one answer
_LARGEST = 1 << 20

_FIXES = {
    "store": "is the database running? `attestd check` looks at it",
    "keys": "the keys directory differs from the other replicas'; copy it from one of them",
    "trust": "a file in the trust store is no certificate; `attestd ek-roots list` names it",
    "policies": "a stored policy cannot be read; `attestd check` names it",
}
_UNSAFE_FIXES = {
    "tofu": "set tofu = false unless unknown makers' TPMs may ask for approval",
    "auto_admit": "set auto_admit = false unless every genuine TPM may become a device",
    "emulated_tpms": "`attestd ek-roots remove` the software TPMs' root",
}


@click.command("doctor")
@config_option
@click.option("--ca", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Trust this CA for the service's certificate, as devices do.")  # fmt: skip
@json_option
def command(config: Config, ca: Path | None, as_json: bool) -> None:
    """Ask the running service how it is; exit 1 if it has a fault, 3 if it does not answer."""
    trust = ssl.create_default_context(cafile=None if ca is None else str(ca))
    checks = [
        ("service", lambda: _service(config, trust)),
        ("readiness", lambda: _readiness(config, trust)),
        ("external_url", lambda: _outside(config, trust)),
    ]
    tell(lines_of(checks, passing=(Unreachable,)), as_json=as_json)


def _service(config: Config, trust: ssl.SSLContext) -> Iterator[Line]:
    status, body = _get_here(config, trust, "/healthz")
    if status != 200:
        raise Failure(f"{config.listen}/healthz answers {status}; is it attestd that listens there?")
    yield Line("ok", "service", f"answers at {config.listen}")
    for mode in body.get("unsafe", []):
        yield Line("warning", "service", f"weakened by {mode}; {_UNSAFE_FIXES.get(mode, 'turn it off')}")


def _readiness(config: Config, trust: ssl.SSLContext) -> Iterator[Line]:
    status, body = _get_here(config, trust, "/readyz")
    if status == 200:
        yield Line("ok", "readiness", f"ready: {', '.join(body.get('checks', {}))}")
        return
    missing = [name for name in _FIXES if name in str(body.get("detail", ""))]
    for name in missing:
        yield Line("fault", "readiness", f"{name}: {_FIXES[name]}")
    if not missing:
        yield Line("fault", "readiness", f"/readyz answers {status}; the service's log says why")


def _outside(config: Config, trust: ssl.SSLContext) -> Iterator[Line]:
    """What devices and relying parties see; health and readiness are not published there."""
    url = urlsplit(config.external_url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    context = trust if url.scheme == "https" else None
    path = f"{url.path}/.well-known/openid-configuration"
    status, body = _get((host, port), path, context=context, name=host)
    if status != 200:
        yield Line(
            "fault", "external_url", f"{config.external_url} answers {status}; does the proxy lead to us?"
        )
    elif body.get("issuer") != config.external_url:
        detail = f"{config.external_url} is another service, {body.get('issuer')}; correct external_url"
        yield Line("fault", "external_url", detail)
    else:
        yield Line("ok", "external_url", f"{config.external_url} leads here")


def _get_here(config: Config, trust: ssl.SSLContext, path: str) -> tuple[int, dict[str, Any]]:
    """Ask the listener itself, past any proxy; its certificate is the external name's."""
    host = config.host
    if is_wildcard(host):
        host = "::1" if ":" in host else "127.0.0.1"
    context = trust if config.tls.certificate is not None else None
    name = urlsplit(config.external_url).hostname or host
    return _get((host, config.port), path, context=context, name=name)


def _get(
    address: tuple[str, int], path: str, *, context: ssl.SSLContext | None, name: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON members of one answer; anything that is no JSON object counts as an empty one."""
    connection = http.client.HTTPConnection(name, address[1], timeout=_PATIENCE)
    try:
        plain = socket.create_connection(address, timeout=_PATIENCE)
        connection.sock = plain if context is None else context.wrap_socket(plain, server_hostname=name)
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        raw = answer.read(_LARGEST)
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, http.client.HTTPException) as error:
        where = f"{address[0]} port {address[1]}"
        why = "is `attestd serve` running, is the address right?"
        raise Unreachable(f"{where} does not answer: {error}; {why}") from None
    finally:
        connection.close()
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    return answer.status, body if isinstance(body, dict) else {}
