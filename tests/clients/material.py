"""Real input for the clients: the standard library's source tree, a large file, and object keys that hurt."""

from __future__ import annotations

import hashlib
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30

LEFT_OUT = ("__pycache__", "site-packages", "dist-packages", "*.a", "*.pyc")
"""Not source: caches, other people's packages and static archives."""

HOSTILE_KEYS = (
    "a",
    "a/b",
    "a//b",
    "a/",
    "/leading",
    "//two-leading",
    "trailing/",
    "dot/./segment",
    "dot/../segment",
    "plus+plus",
    "percent%20literal",
    "100%",
    "a space",
    " leading space",
    "trailing space ",
    "tab\there",
    "question?query=1&b=2",
    "hash#fragment",
    "semi;colon,comma:colon",
    "quote'double\"back`tick",
    "<xml>&amp;</xml>",
    "back\\slash",
    "star*bang!paren()",
    "curly{brace}[bracket]^caret|pipe~tilde",
    "at@dollar$equals=",
    "größe",
    "日本語/キー",
    "e\u0301-decomposed",
    "é-composed",
    "emoji-🧊❄️",
    "rtl-\u202eabc",
    "x" * 1024,
    "é" * 512,
)
"""Row 9 of what clients rely on: opaque UTF-8 of up to 1,024 bytes; all distinct, all listable."""

CONTROL_KEYS = ("control\x01one", "control\x7fdelete", "newline\nkey", "carriage\rreturn")
"""Illegal in XML 1.0 or changed by its parsers: listable only with encoding-type=url, which boto3 always asks for."""


def hostile_body(object_key: str) -> bytes:
    """A body that belongs to this key only, so that two keys taken for one are noticed."""
    return b"body of " + hashlib.sha256(object_key.encode()).hexdigest().encode()


def copy_standard_library(target: Path) -> Path:
    """Copy the standard library's sources to `target`, without caches and without empty directories."""
    source = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT), ignore_dangling_symlinks=True)
    for directory, _, _ in os.walk(target, topdown=False):
        if not os.listdir(directory):
            os.rmdir(directory)
    return target


def relative_files(root: Path) -> list[str]:
    """Sorted paths of all files below `root`, with slashes, as object keys."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def write_random_file(path: Path, size_bytes: int) -> str:
    """Write incompressible bytes and return their SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            block = os.urandom(min(MIB, size_bytes - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def removed_at_end(path: Path) -> Iterator[Path]:
    """For fixtures: yield the path, unlink the file after use: large files must not pile up in pytest's directories."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
