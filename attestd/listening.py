"""Where does this service listen, under which address is it known, and who protects the connections?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from attestd.addresses import is_loopback, is_wildcard, join, split_listen, url_fault
from attestd.tables import Table


@dataclass(frozen=True, slots=True)
class Tls:
    """How the listeners are protected: by a certificate and key of our own, or by a proxy in front.

    `mtls_listen` is HOST:PORT of the listener that demands a client's certificate, issued by our own CA; it
    ends TLS itself, whatever stands before the other one.
    """

    certificate: Path | None
    key: Path | None
    behind_proxy: bool
    mtls_listen: str | None


def read_tls(top: Table, folder: Path) -> Tls:
    """[tls], with paths made absolute."""
    tls = top.table("tls", tuple(field.name for field in fields(Tls)))
    certificate, key = tls.optional_text("certificate"), tls.optional_text("key")
    if (certificate is None) != (key is None):
        missing = "key" if key is None else "certificate"
        raise tls.refusal(missing, "config_missing_key", "is missing; certificate and key come together")
    if tls.has("mtls_listen") and certificate is None:
        raise tls.refusal("mtls_listen", "config_missing_key", "needs [tls] certificate and key; add them")
    return Tls(
        certificate=None if certificate is None else folder / certificate,
        key=None if key is None else folder / key,
        behind_proxy=tls.flag("behind_proxy", False),
        mtls_listen=join(*_split(tls, "mtls_listen")) if tls.has("mtls_listen") else None,
    )


def read_listen(top: Table, tls: Tls) -> tuple[str, int]:
    """Host and port; an address that others reach needs TLS, and the mTLS listener one of its own."""
    host, port = _split(top, "listen", "127.0.0.1:8440")
    if not is_loopback(host) and tls.certificate is None and not tls.behind_proxy:
        raise top.refusal(
            "listen",
            "config_exposed",
            f"is {join(host, port)}, which others can reach unencrypted; set [tls] certificate and key, "
            "or behind_proxy = true, or listen on 127.0.0.1",
        )
    if tls.mtls_listen is not None and _collide((host, port), split_listen(tls.mtls_listen)):
        raise top.refusal(
            "listen",
            "config_value",
            f"is {join(host, port)}, where [tls] mtls_listen is {tls.mtls_listen}; choose another port",
        )
    return host, port


def read_external_url(top: Table, host: str, port: int, tls: Tls) -> str:
    """Our address as others write it, character by character."""
    if not top.has("external_url") and (tls.behind_proxy or is_wildcard(host)):
        raise top.refusal(
            "external_url",
            "config_missing_key",
            'is missing; say how devices reach the service, like "https://attest.example.org"',
        )
    scheme = "https" if tls.certificate else "http"
    url = top.text("external_url", f"{scheme}://{join(host, port).lower()}")
    fault = url_fault(url)
    if fault:
        raise top.refusal("external_url", "config_value", f'is "{url}"; {fault}')
    return url


def _split(table: Table, key: str, default: str | None = None) -> tuple[str, int]:
    written = table.text(key, default)
    try:
        return split_listen(written)
    except ValueError as error:
        raise table.refusal(key, "config_value", f'is "{written}"; it {error}') from None


def _collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    hosts = {one[0].lower(), other[0].lower()}
    return one[1] == other[1] and (len(hosts) == 1 or any(is_wildcard(host) for host in hosts))
