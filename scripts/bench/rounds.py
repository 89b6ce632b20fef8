"""What does a whole round cost, beside the sum of what it cannot do without, and how many fit into a second?

The floor of a round: two empty requests through the same server, one verification, the signatures, and the
durable commits, all measured in this run.
"""

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.bench.measure import Row
from scripts.bench.server import Client, attestd_server, empty_server, enrolled
from tests.attester import Machine, jwk_of, new_key, new_round, parent_key, signing_key

ROUNDS = 400
SIGNATURES = 3
"""X.509-SVID, attestation result, head of the audit chain."""
COMMITS = 2
BAD_SHARE = 100
"""One in so many is bad evidence."""


def rows() -> Iterator[Row]:
    """The round with one credential beside its floor, the full round, and the load with bad evidence in it.
    """
    with tempfile.TemporaryDirectory(prefix="attestd-bench-") as work:
        directory = Path(work)
        with attestd_server(directory / "service") as (port, maker), empty_server(directory) as empty_port:
            client, empty = Client(port), Client(empty_port)
            server = f"http://127.0.0.1:{port}"
            machine = enrolled(client, maker, directory / "service", server)
            yield _one_credential(client, empty, machine, server, directory)
            yield _everything(client, machine, server)
            yield from _load(port, machine, server)
            client.close()
            empty.close()


def _one_credential(client: Client, empty: Client, machine: Machine, server: str, directory: Path) -> Row:
    key = jwk_of(new_key("p256"))
    members = {"credentials": [{"format": "x509-svid", "agent": "billing", "key": key}]}
    floors = {"commit": commit(directory), "verify": verification(), "sign": signature()}
    ours: list[float] = []
    floor: list[float] = []
    for number in range(ROUNDS + 20):
        spent = _round(client, machine.later(number), server, members)
        asked = sum(timed(lambda: empty.post("/empty", b'{"device_id":"x"}')) for _ in range(2))
        least = asked + timed(floors["verify"])
        least += sum(timed(floors["sign"]) for _ in range(SIGNATURES))
        least += sum(timed(floors["commit"]) for _ in range(COMMITS))
        if number >= 20:
            ours.append(spent)
            floor.append(least)
    return Row.beside("round: challenge, X.509-SVID, EAR (SQLite)", ours, floor, bound=2.0)


def _everything(client: Client, machine: Machine, server: str) -> Row:
    key, parent = signing_key(), parent_key()
    name = {"name": key.name.hex()}
    members = {
        "certified": (key, parent),
        "credentials": [
            {"format": "x509-svid", "agent": "telemetry", "key": name},
            {"format": "wit-svid", "agent": "telemetry", "key": name},
            {"format": "jwt-svid", "agent": "billing", "audience": ["https://a.example.org"]},
        ],
        "sealed_keys": [{"name": "disk", "parent": {"name": parent.name.hex()}}],
    }
    moment = machine.later(1_000_000)
    values = [_round(client, moment.later(number), server, members) for number in range(ROUNDS // 2)]
    return Row.alone("round: 3 credentials, certified, sealed key", values)


def _round(client: Client, machine: Machine, server: str, members: dict[str, Any]) -> float:
    """Microseconds in the two requests; what the device's side does in between does not count."""
    begin = time.perf_counter_ns()
    status, challenge = client.json("/v1/challenges", {"device_id": machine.device_id})
    spent = time.perf_counter_ns() - begin
    assert status == 201, challenge
    body = _encode(new_round(machine, challenge, server, **members).body())
    begin = time.perf_counter_ns()
    status, answer = client.post("/v1/attestations", body)
    spent += time.perf_counter_ns() - begin
    assert status == 200, answer
    return spent / 1000


def _load(port: int, machine: Machine, server: str) -> Iterator[Row]:
    """Two clients at once; one in a hundred sends bad evidence, all of which has to be refused."""
    key = jwk_of(new_key("p256"))
    outcomes: list[tuple[float, bool, int]] = []
    begin = time.monotonic()

    def work(first: int) -> None:
        client = Client(port)
        for number in range(first, 2 * ROUNDS, 2):
            bad = number % BAD_SHARE == 0
            moment = machine.later(10_000_000 + number)
            status, challenge = client.json("/v1/challenges", {"device_id": moment.device_id})
            assert status == 201
            credentials = [{"format": "x509-svid", "agent": "billing", "key": key}]
            body = new_round(moment, challenge, server, credentials=credentials).body()
            if bad:
                body["quote"]["attest"] = body["quote"]["attest"][:40] + "AAAA" + body["quote"]["attest"][44:]
            raw = _encode(body)
            started = time.perf_counter_ns()
            status, _ = client.post("/v1/attestations", raw)
            outcomes.append(((time.perf_counter_ns() - started) / 1000, bad, status))
        client.close()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    # A quote that overtakes a later one of the same machine is stale; that is a conflict and no failure.
    accepted = sum(not bad and status == 200 for _, bad, status in outcomes)
    refused = sum(bad and status in (400, 403) for _, bad, status in outcomes)
    wrong = sum(bad and status == 200 for _, bad, status in outcomes)
    times = sorted(spent for spent, _, _ in outcomes)
    p99 = times[int(len(times) * 0.99)]
    note = (
        f"{len(outcomes) / seconds:.0f} rounds/s beside the attester, p99 {p99 / 1000:.1f} ms, "
        f"{accepted} accepted, {refused} of {sum(b for _, b, _ in outcomes)} bad refused, {wrong} accepted"
    )
    yield Row.alone("load: 2 clients, 1 % bad evidence", times, note=note)


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - begin) / 1000


def commit(directory: Path) -> Callable[[], object]:
    """One durable commit of one row."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (a TEXT)")

    def work() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 200,))
        connection.execute("COMMIT")

    return work


def verification() -> Callable[[], object]:
    key = ec.generate_private_key(ec.SECP256R1())
    signature, public = key.sign(b"x", ec.ECDSA(hashes.SHA256())), key.public_key()
    return lambda: public.verify(signature, b"x", ec.ECDSA(hashes.SHA256()))


def signature() -> Callable[[], object]:
    key = ec.generate_private_key(ec.SECP256R1())
    return lambda: key.sign(b"x", ec.ECDSA(hashes.SHA256()))
