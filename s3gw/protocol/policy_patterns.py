"""PURE. The texts of a policy that are matched: `*`, `?` and `${variables}`.

Source: IAM User Guide, "Policy elements: variables and tags". A value that takes a variable's place is literal: a user
named `*` matches nothing but that name. Matching looks for the pieces between stars from left to right, each as early
as it goes, so that no pattern costs more than its length times the text's, in C.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence

_TOKEN = re.compile(r"\$\{([^{}]{1,256})\}|\*+|\?")
_DEFAULT = re.compile(r"([^,']+?)\s*,\s*'([^']*)'\s*")
_LITERALS = frozenset({"*", "?", "$"})
"""`${*}` is a star and nothing else"""

FindVariable = Callable[[str], str | None]
"""a variable's name → its one value; None when the request has none"""


class _Wild(enum.Enum):
    MANY = "*"
    ONE = "?"


class _Variable:
    __slots__ = ("default", "name")

    def __init__(self, text: str) -> None:
        with_default = _DEFAULT.fullmatch(text)
        self.name: str = with_default[1] if with_default else text.strip()
        self.default: str | None = with_default[2] if with_default else None


_Token = str | _Wild | _Variable
_Piece = str | re.Pattern[str]
"""literal text, or text with `?`"""


class Pattern:
    """One compiled text. wild: stars and question marks mean something (Like, Resource, Action)."""

    __slots__ = ("_pieces", "_tokens", "text", "variables")

    def __init__(self, text: str, *, wild: bool, with_variables: bool) -> None:
        self.text = text
        self._tokens = _tokenize(text, wild, with_variables)
        self.variables = frozenset(token.name for token in self._tokens if isinstance(token, _Variable))
        self._pieces = None if self.variables else _join(self._tokens)

    def matches(self, text: str, find_variable: FindVariable) -> bool:
        """Whether the whole text fits. A variable without a value or a default fits nothing."""
        if self._pieces is not None:
            return _match(self._pieces, text)
        tokens: list[_Token] = []
        for token in self._tokens:
            if isinstance(token, _Variable):
                value = find_variable(token.name)
                found = token.default if value is None else value
                if found is None:
                    return False
                token = found
            tokens.append(token)
        return _match(_join(tokens), text)


def _tokenize(text: str, wild: bool, with_variables: bool) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    for match in _TOKEN.finditer(text):
        tokens.append(text[position : match.start()])
        position = match.end()
        name, whole = match[1], match[0]
        if name is None:
            tokens.append(whole if not wild else _Wild.ONE if whole == "?" else _Wild.MANY)
        elif not with_variables:
            tokens.append(whole)
        else:
            tokens.append(name if name in _LITERALS else _Variable(name))
    tokens.append(text[position:])
    return [token for token in tokens if token != ""]


def _join(tokens: Sequence[_Token]) -> tuple[_Piece, ...]:
    """The pieces between the stars; a text without one is a single piece."""
    runs: list[list[str | _Wild]] = [[]]
    for token in tokens:
        assert not isinstance(token, _Variable)
        if token is _Wild.MANY:
            runs.append([])
        else:
            runs[-1].append(token)
    return tuple(_compile(run) for run in runs)


def _compile(run: Sequence[str | _Wild]) -> _Piece:
    if all(isinstance(token, str) for token in run):
        return "".join(token for token in run if isinstance(token, str))
    expression = "".join(re.escape(token) if isinstance(token, str) else "." for token in run)
    return re.compile(expression, re.DOTALL)


def _match(pieces: tuple[_Piece, ...], text: str) -> bool:
    if len(pieces) == 1:
        piece = pieces[0]
        return text == piece if isinstance(piece, str) else piece.fullmatch(text) is not None
    first, last = pieces[0], pieces[-1]
    begin = _end_at_start(first, text)
    if begin < 0:
        return False
    for piece in pieces[1:-1]:
        begin = _end_of_next(piece, text, begin)
        if begin < 0:
            return False
    if isinstance(last, str):
        return len(text) - begin >= len(last) and text.endswith(last)
    size = _length(last)
    return len(text) - begin >= size and last.fullmatch(text, len(text) - size) is not None


def _end_at_start(piece: _Piece, text: str) -> int:
    if isinstance(piece, str):
        return len(piece) if text.startswith(piece) else -1
    match = piece.match(text)
    return match.end() if match else -1


def _end_of_next(piece: _Piece, text: str, begin: int) -> int:
    if isinstance(piece, str):
        found = text.find(piece, begin)
        return -1 if found < 0 else found + len(piece)
    match = piece.search(text, begin)
    return match.end() if match else -1


def _length(piece: re.Pattern[str]) -> int:
    """Characters that a piece with `?` takes: always the same number."""
    return len(re.sub(r"\\(.)", r"\1", piece.pattern, flags=re.DOTALL))
