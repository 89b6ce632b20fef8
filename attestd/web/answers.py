"""What does an answer look like on the wire?"""

from typing import Final

from attestd.wire import Problem, dump_json

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
RETRY_SECONDS: Final = 2

Headers = list[tuple[str, str]]


def headers_of(request_id: str, media_type: str, *, length: int) -> Headers:
    """The headers that every answer has: never stored, never sniffed, nothing about the software."""
    return [
        ("Content-Type", media_type),
        ("Content-Length", str(length)),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Request-Id", request_id),
    ]


def problem_answer(problem: Problem, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of a refusal (RFC 9457)."""
    body = dump_json(problem.body(request_id))
    headers = headers_of(request_id, PROBLEM, length=len(body))
    retry = problem.retry_after
    if retry is None and problem.code in ("unavailable", "slow_down"):
        retry = RETRY_SECONDS
    if retry is not None:
        headers.append(("Retry-After", str(retry)))
    return problem.status, headers, body


def internal_error() -> Problem:
    """For what nobody foresaw: nothing is said of it, nothing was granted, the log has the traceback."""
    detail = "The service could not handle the request; nothing was granted."
    return Problem("unavailable", detail, cause="internal_verify_error")


def store_unavailable() -> Problem:
    detail = "The service cannot record decisions now; nothing was granted."
    return Problem("unavailable", detail, cause="store_unavailable", retry_after=RETRY_SECONDS)
