"""What does [ima] demand of the files that a machine ran?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attestd.policy.fields import Fields, entries, matching, plain_text, refusal, typed
from attestd.policy.ima_allow import STRONG, AllowList, load_allow_lists
from tpm.errors import PolicyError, StructureError
from tpm.ima.file_signature import FileKeys, load_file_keys

KNOWN = ("required", "allow", "keys", "exclude", "keyrings", "match", "violations", "sha1_padded")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,126}")
_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")
_PATTERNS = re.compile(r"[*?^$|\\(){}]|\[.*\]|\.\+")


@dataclass(frozen=True, slots=True)
class ImaRules:
    """[ima] as it was loaded; made by `load_ima` only.

    `allowed` are the digests that files may have: under any path, or with `match` "path" only under the path
    that the list has beside them. `keys` sign files. `exclude` are beginnings of paths, each a whole name:
    "/tmp" is /tmp and what is below it. `keyrings` are the digests that a keyring, or another measured
    buffer, may receive, by its name. `violations` and `sha1_padded` (the way kernels before 5.8 extend) are
    "reject" or "accept". `files` are the names of the files that belong to the policy.
    """

    required: bool
    allowed: AllowList
    keys: FileKeys
    exclude: tuple[bytes, ...]
    keyrings: Mapping[bytes, frozenset[str]]
    match: str
    violations: str
    sha1_padded: str
    files: tuple[str, ...]


def load_ima(value: object, files: Mapping[str, bytes]) -> ImaRules:
    """The table [ima], with the contents of the files that stand beside the policy, by name.

    PolicyError names the key, or the file and its line, with what was expected and found.
    """
    fields = Fields(value, "ima", known=KNOWN)
    required = typed(fields.value("required"), bool, "ima.required")
    allow = _named(fields, "allow", files)
    keys = _named(fields, "keys", files)
    if not allow and not keys:
        raise PolicyError(
            "list_empty",
            "ima: it allows no file; add allow = [FILE…], lists of digests, or keys = [FILE…], or both",
        )
    return ImaRules(
        required=required,
        allowed=load_allow_lists(allow),
        keys=_load_keys(keys),
        exclude=tuple(_prefix(path, at) for at, path in fields.items("exclude"))
        if fields.has("exclude")
        else (),
        keyrings=_load_keyrings(fields) if fields.has("keyrings") else {},
        match=fields.choice("match", ("digest", "path"), default="digest"),
        violations=fields.choice("violations", ("reject", "accept"), default="reject"),
        sha1_padded=fields.choice("sha1_padded", ("reject", "accept"), default="reject"),
        files=tuple(dict.fromkeys((*allow, *keys))),
    )


def named_files(value: object) -> tuple[str, ...]:
    """The files that a table [ima] names, before they are read; PolicyError as `load_ima`."""
    fields = Fields(value, "ima", known=KNOWN)
    return tuple(dict.fromkeys(name for key in ("allow", "keys") for _, name in _names(fields, key)))


def _names(fields: Fields, key: str) -> tuple[tuple[str, str], ...]:
    if not fields.has(key):
        return ()
    return tuple((at, matching(plain_text(name, at), _FILE_NAME, at)) for at, name in fields.items(key))


def _named(fields: Fields, key: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for at, name in _names(fields, key):
        if name in found:
            raise refusal("value_twice", at, expected="different files", found=name, step="name it once")
        if name not in files:
            raise PolicyError("file_missing", f"{at}: {name} does not stand beside the policy; put it there")
        found[name] = files[name]
    return found


def _load_keys(files: Mapping[str, bytes]) -> FileKeys:
    for name, source in files.items():
        try:
            load_file_keys([source])
        except StructureError as error:
            raise PolicyError("key_unusable", f"{name}: {error.detail}") from None
    return load_file_keys(list(files.values()))


def _prefix(value: object, at: str) -> bytes:
    """The beginning of paths that this entry means, without a slash at its end."""
    text = plain_text(value, at)
    if _PATTERNS.search(text):
        raise refusal(
            "value_wrong",
            at,
            expected="the beginning of a path",
            found=text,
            step="patterns are not known here",
        )
    path = text.removesuffix("/")
    names = path.split("/")
    if not path.startswith("/") or any(name in ("", ".", "..") for name in names[1:]):
        raise refusal(
            "value_wrong",
            at,
            expected='the beginning of a path below "/", as "/var/tmp"',
            found=text,
            step="name a directory or a file; to exclude everything is to leave [ima] out",
        )
    return path.replace(" ", "_").encode()


def _load_keyrings(fields: Fields) -> dict[bytes, frozenset[str]]:
    found = {}
    for name, listed in fields.members("keyrings"):
        path = f"ima.keyrings.{name}"
        plain_text(name, "ima.keyrings")
        found[name.replace(" ", "_").encode()] = frozenset(
            _digest(one, at) for at, one in entries(listed, path)
        )
    return found


def _digest(value: object, at: str) -> str:
    text = plain_text(value, at)
    match = _DIGEST.fullmatch(text)
    if match is None or len(match[2]) != 2 * STRONG[match[1]]:
        raise refusal(
            "digest_wrong",
            at,
            expected='a digest as "sha256:" and 64 hex digits',
            found=text,
            step="take it from the finding",
        )
    return text
