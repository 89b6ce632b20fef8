"""How do slow, broken and hostile clients stay out of the way of the others?

A small gthread: one loop owns every socket, waits for whole requests and sends what is left of answers;
threads see whole requests only. A client holds a thread for as long as its request is worked on, never for as
long as it takes to send or to read. Head and body must be there ten seconds after the first byte.
"""

import errno
import signal
import ssl
import time
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from attestd.clock import now_ms
from attestd.web.answers import internal_error
from attestd.web.connection import Connection, Phase, Step
from attestd.web.exchange import KEY, Exchange
from attestd.web.gateway import call, encode, environ_of, parse_head
from attestd.web.log import ACCESS, SERVER
from attestd.web.memory import Held
from attestd.wire import Problem
from tpm.errors import PolicyError

REQUEST_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """`self.wsgi` is the `Web` application, `self.app` the server with its listeners."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._contexts: dict[int, ssl.SSLContext | None] = {}
        self._stamps: tuple[int, ...] = ()  # of what the contexts were made of
        self._waiting: dict[Connection, int] = {}  # what each waits for
        self._held = Held()
        self._next_sweep = 0.0

    # Starting, reloading, stopping

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGHUP, lambda *_: self.method_queue.defer(self._reload))

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._contexts = self._read_contexts()

    def _read_contexts(self) -> dict[int, ssl.SSLContext | None]:
        stamps = self._look()
        pairs = zip(self.sockets, self.app.listeners, strict=True)
        contexts = {sock.fileno(): listener.context() for sock, listener in pairs}
        self._stamps = stamps
        return contexts

    def _look(self) -> tuple[int, ...]:
        return tuple(listener.stamp() for listener in self.app.listeners)

    def _reload(self) -> None:
        """New connections get the certificates that are in the files now; unusable ones change nothing."""
        try:
            self._contexts = self._read_contexts()
            SERVER.info("certificates reloaded")
        except PolicyError as error:
            SERVER.error("certificates kept: %s", error.detail)

    def run(self) -> None:
        self.poller.register(self.method_queue.fileno(), EVENT_READ, self.method_queue.run_callbacks)
        while self.alive and self.is_parent_alive():
            self.notify()
            self.set_accept_enabled(self.nr_conns < self.worker_connections)
            self.wait_for_and_dispatch_events(timeout=1.0)
            self._sweep()
        self.set_accept_enabled(False)
        self._finish_up(time.monotonic() + self.cfg.graceful_timeout - 1)
        self.tpool.shutdown(wait=False, cancel_futures=True)

    def _finish_up(self, end: float) -> None:
        """Requests that have begun are answered; idle connections get a second for one on its way."""
        soon = time.monotonic() + 1.0
        for connection in self._waiting:
            if not connection.incoming.held:
                connection.deadline = min(connection.deadline, soon)
        while self.nr_conns and time.monotonic() < end:
            self.notify()
            self.wait_for_and_dispatch_events(timeout=0.2)
            self._sweep()

    # The loop: everything here runs in one thread and never waits for a client

    def accept(self, listener: Any) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            return  # otherwise the client has left again
        client = address[0] if isinstance(address, tuple) else ""
        context = self._contexts[listener.fileno()]
        try:
            connection = Connection(
                sock, client, listener.getsockname()[:2], context=context, cap_of=self.wsgi.cap_of
            )
        except OSError:
            sock.close()
            return
        connection.deadline = time.monotonic() + REQUEST_SECONDS
        self.nr_conns += 1
        self._advance(connection)

    def _ready(self, connection: Connection, _: Any) -> None:
        if connection.idle:
            connection.idle = False
            connection.deadline = time.monotonic() + REQUEST_SECONDS
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        try:
            step = connection.advance()
            while step is Step.SENT:
                self._after_answer(connection)
                step = connection.advance()
        except (OSError, ValueError):
            step = Step.GONE
        self._follow(connection, step)

    def _follow(self, connection: Connection, step: Step) -> None:
        size = connection.incoming.held + (len(connection.request.body) if connection.request else 0)
        if self._held.count(connection, size) and step is Step.AWAIT_READ:
            step = Step.GONE
        match step:
            case Step.AWAIT_READ:
                self._wait(connection, EVENT_READ)
            case Step.AWAIT_WRITE:
                self._wait(connection, EVENT_WRITE)
            case Step.REQUEST:
                self._wait(connection, 0)
                self.tpool.submit(self._work, connection)
            case _:
                self._drop(connection)

    def _worked(self, connection: Connection, step: Step) -> None:
        if step is Step.SENT:
            try:
                self._after_answer(connection)
            except OSError:
                step = Step.GONE
            else:
                return self._advance(connection)
        connection.deadline = time.monotonic() + REQUEST_SECONDS
        self._follow(connection, step)

    def _after_answer(self, connection: Connection) -> None:
        now = time.monotonic()
        if connection.keep:
            connection.phase = Phase.READING
            connection.idle = not connection.incoming.held
            connection.deadline = now + (self.cfg.keepalive if connection.idle else REQUEST_SECONDS)
        else:
            connection.deadline = now + LINGER_SECONDS
            connection.finish()

    def _wait(self, connection: Connection, events: int) -> None:
        before = self._waiting.get(connection, 0)
        if events == before or connection not in self._held:
            return
        ready = partial(self._ready, connection)
        if not events:
            self.poller.unregister(connection.sock)
            del self._waiting[connection]
        elif before:
            self.poller.modify(connection.sock, events, ready)
            self._waiting[connection] = events
        else:
            self.poller.register(connection.sock, events, ready)
            self._waiting[connection] = events

    def _drop(self, connection: Connection) -> None:
        if connection in self._held:
            self._wait(connection, 0)
            self._held.forget(connection)
            self.nr_conns -= 1
            connection.close()

    def _sweep(self) -> None:
        """Once a second: cut what is late, and the oldest where there is no room left."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + 1.0
        if self._look() != self._stamps:
            self._reload()
        for connection in [waiting for waiting in self._waiting if waiting.deadline <= now]:
            self._drop(connection)
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        oldest = sorted(self._waiting, key=lambda connection: connection.deadline)
        for connection in oldest[: 1 + len(oldest) // 16]:
            self._drop(connection)

    # In a thread: one whole request

    def _work(self, connection: Connection) -> None:
        started = time.perf_counter()
        exchange = Exchange.begin(connection.client, now=now_ms())
        line: dict[str, Any] = {}
        keep = False
        try:
            if connection.refusal is not None or connection.request is None:
                raise connection.refusal or Problem("malformed", "There is no request.")
            raw = connection.request
            parsed = parse_head(raw, connection, self.cfg)
            line = {"method": parsed.method, "path": parsed.path[:200]}
            environ = environ_of(parsed, raw, connection)
            status, headers, body = call(self.wsgi, environ)
            exchange = environ[KEY]
            keep = self.alive and not parsed.should_close()
            body = b"" if parsed.method == "HEAD" else body
        except Problem as problem:
            status, headers, body = self.wsgi.refusal(problem, exchange)
        except Exception:
            SERVER.exception("unexpected error")
            status, headers, body = self.wsgi.refusal(internal_error(), exchange)
        connection.answer(encode(status, headers, body, keep=keep), keep=keep)
        try:
            step = connection.advance()
        except OSError:
            step = Step.GONE
        # The loop takes the connection back before the bookkeeping: the next request need not wait for that.
        self.method_queue.defer(self._worked, connection, step)
        seconds = time.perf_counter() - started
        self.wsgi.metrics.count(exchange, status, seconds=seconds)
        _log(exchange, status, line, seconds)


def _log(exchange: Exchange, status: int, line: dict[str, Any], seconds: float) -> None:
    fields = {
        **line,
        "status": status,
        "code": exchange.code,
        "device": exchange.device_id,
        "ms": round(seconds * 1000, 1),
        "request_id": exchange.request_id,
        "source": exchange.source,
    }
    ACCESS.info("request", extra={"fields": fields})
