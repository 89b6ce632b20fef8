"""Two spellings of one endpoint are one, and what browsers and servers read differently is none."""

import pytest

from attestd.resource.uri import normalise


@pytest.mark.parametrize(
    ("uri", "spelled"),
    [
        ("https://API.example.org:443/a/%7Eb/./c/../d", "https://api.example.org/a/~b/d"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("https://[::1]:8443/x?y#z", "https://[::1]:8443/x"),
    ],
)
def test_spellings_of_one_endpoint_are_one(uri: str, spelled: str) -> None:
    assert normalise(uri) == spelled


@pytest.mark.parametrize(
    "uri",
    [
        "https://a.example.org\\@b.example.org/",
        "https://a.example.org/a\\b",
        "https://user@a.example.org/",
        "ftp://a.example.org/",
        "/a",
        "https://a.example.org/a b",
    ],
)
def test_what_is_read_in_two_ways_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="it is not"):
        normalise(uri)
