"""How does the service run until it is told to stop? Gunicorn, configured by us alone.

The sockets are bound by one parent process, which also tells systemd that it is ready; workers are its
children. SIGHUP reads the certificates again, SIGTERM ends everything within ten seconds.
"""

import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from attestd.clock import now_ms
from attestd.config import Config, environment
from attestd.notify import Notifier
from attestd.store.errors import StoreUnavailable
from attestd.web import log
from attestd.web.application import Web
from attestd.web.listeners import Listener
from attestd.web.metrics import Metrics
from attestd.web.seam import WebService
from attestd.web.worker import Worker

Service = TypeVar("Service", bound=WebService)

THREADS: Final = 8
GRACE_SECONDS: Final = 8
KEEP_SECONDS: Final = 75
_CONNECTIONS: Final = 4096
_RESERVED_FILES: Final = 256  # descriptors for the store, logs and keys


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The parent. Workers are not replaced or counted by signals: one process writes to SQLite.

    It alone speaks with systemd, and is alive for it while its loop turns and a worker is there.
    """

    _next_ping = 0.0

    def handle_hup(self) -> None:
        notifier: Notifier = self.app.notifier
        notifier.reloading(monotonic_us=time.monotonic_ns() // 1000)
        self.kill_workers(signal.SIGHUP)
        notifier.ready()

    def murder_workers(self) -> None:
        """Once a turn of the loop, at least every second. A worker that hangs is killed here."""
        super().murder_workers()
        notifier: Notifier = self.app.notifier
        if notifier.interval is not None and self.WORKERS and time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + notifier.interval
            notifier.ping()

    def stop(self, graceful: bool = True) -> None:
        self.app.notifier.stopping("finishing what was begun" if graceful else "")
        super().stop(graceful)

    def handle_ttin(self) -> None:
        self.log.warning("SIGTTIN ignored: the number of workers is configured")

    def handle_ttou(self) -> None:
        self.log.warning("SIGTTOU ignored: the number of workers is configured")

    def handle_usr2(self) -> None:
        self.log.warning("SIGUSR2 ignored: start the new version after stopping this one")


class Maintenance(threading.Thread):
    """Calls the service's housekeeping once a second, whatever it raises."""

    def __init__(self, service: WebService) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._service = service
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(1.0):
            try:
                self._service.maintain(now_ms())
            except StoreUnavailable as error:
                log.SERVER.error("the store is unavailable: %s", error)
            except Exception:
                log.SERVER.exception("housekeeping failed")

    def end(self) -> None:
        self._ended.set()
        self.join(2.0)


@dataclass(frozen=True, slots=True)
class Parts(Generic[Service]):
    """How the service and its application are made; called in each worker process, after the fork."""

    build: Callable[[Config], Service]
    wire: Callable[[Service, Metrics], Web]

    def make(self, config: Config, metrics: Metrics) -> tuple[WebService, Web]:
        service = self.build(config)
        return service, self.wire(service, metrics)


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """One configuration being served; workers reach it as `self.app`."""

    def __init__(self, config: Config, parts: Parts[Any], listeners: Sequence[Listener]) -> None:
        self.config = config
        self.parts = parts
        self.listeners = tuple(listeners)
        self.service: WebService | None = None
        self.maintenance: Maintenance | None = None
        self.notifier = Notifier.of(environment(), pid=os.getpid())
        several = config.workers > 1
        self.shared = Path(tempfile.mkdtemp(prefix="attestd-metrics-")) if several else None
        super().__init__()

    def load_config(self) -> None:
        for name, value in _settings(self).items():
            self.cfg.set(name, value)

    def load(self) -> Web:
        self.service, web = self.parts.make(self.config, Metrics(self.shared))
        web.check()
        self.maintenance = Maintenance(self.service)
        self.maintenance.start()
        return web

    def stop(self) -> None:
        """In a worker that ends."""
        if self.maintenance is not None:
            self.maintenance.end()
        if self.service is not None:
            self.service.close()

    def run(self) -> int:
        """The exit status of the parent. A worker leaves by SystemExit, through here, to its own end."""
        parent = os.getpid()
        try:
            Master(self).run()
        except SystemExit as ended:
            if os.getpid() != parent:
                raise
            return ended.code if isinstance(ended.code, int) else 1
        finally:
            if os.getpid() == parent and self.shared is not None:
                shutil.rmtree(self.shared, ignore_errors=True)
        return 0


def _settings(server: Server) -> dict[str, Any]:
    """Everything that gunicorn must not decide or read from elsewhere."""
    settings: dict[str, Any] = {
        "bind": [listener.address for listener in server.listeners],
        "workers": server.config.workers,
        "worker_class": Worker,
        "threads": THREADS,
        "worker_connections": _raise_file_limit(),
        "graceful_timeout": GRACE_SECONDS,
        "keepalive": KEEP_SECONDS,
        "timeout": 30,
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        "logger_class": log.GunicornLog,
        "control_socket_disable": True,
        "proxy_protocol": "off",
        # No header of a client or proxy changes scheme, path or address behind our back.
        "forwarded_allow_ips": "",
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        "header_map": "drop",
        "when_ready": lambda arbiter: _announce(server),
        "worker_exit": lambda arbiter, worker: server.stop(),
    }
    if server.shared is not None:
        settings["raw_env"] = [f"PROMETHEUS_MULTIPROC_DIR={server.shared}"]
        settings["child_exit"] = _forget_worker
    return settings


def _announce(server: Server) -> None:
    where = [listener.address for listener in server.listeners]
    server.notifier.ready(f"serving {server.config.external_url}")
    log.SERVER.info("serving", extra={"fields": {"listen": where, "url": server.config.external_url}})


def _forget_worker(_: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _raise_file_limit() -> int:
    """How many connections a worker may hold with the descriptors that it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _RESERVED_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(THREADS + 1, min(_CONNECTIONS, soft - _RESERVED_FILES))


def serve(config: Config, parts: Parts[Any], listeners: Sequence[Listener]) -> int:
    """Serve until SIGTERM; the exit status. PolicyError before anything is bound if it cannot be served."""
    log.set_up()
    for listener in listeners:
        listener.context()
    # Once here, before a socket is bound: what cannot start says so now, and workers do not race to migrate.
    parts.build(config).close()
    return Server(config, parts, listeners).run()
