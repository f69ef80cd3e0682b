"""PURE. Which released blobs no running read can still hold, by steady time: wall clocks may jump by hours meanwhile.

What the metadata records (when a blob was released, when a session was renewed, when its oldest read began) is in its
owner's wall time, of which only this is certain: it never goes backwards. A jump forwards makes everything look old; a
jump backwards makes it slow (a database's: stand still) until it has caught up. So an age is taken from one record
only, where both ends come from one moment (renewed_ms - oldest_read_ms), and everything else is counted on the
sweeper's own steady clock:

1. A *look* is the steady time at which sessions were listed, and the newest renewal seen then. Whatever was released
   before that renewal, in the owner's time, was released before the look (less the margin: where commands commit side
   by side, what was stamped earlier may become visible a moment later).
2. A session that was renewed since the last look says how old its oldest read is: no read of it that still runs began
   before the last look, less that age and a margin for a renewal that took its time. While the record of its oldest
   read does not move, what was known of it before stays true.
3. When no running read began before a look, what was released before that look may go.

Only open sessions count: what a fenced worker was reading is given up with what it was writing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from storage.model import SessionState, WriteSession

LOOKS_MAX = 1_000
_NEVER_S = float("-inf")
_NOTHING_MS = -1


class _Look(NamedTuple):
    at_s: float
    newest_renewal_ms: int


class _Seen(NamedTuple):
    """An open session as it was last seen. reads_since_s: every running read of it began later than this."""

    renewed_ms: int
    oldest_read_ms: int
    changed_s: float
    reads_since_s: float


class ReadHorizon:
    """Fed with every list of sessions; knows what may be swept, and how long a session has been silent."""

    def __init__(self, margin_s: float) -> None:
        self._margin_s = margin_s
        self._looks: deque[_Look] = deque()
        self._last_look_s = _NEVER_S
        self._seen: dict[bytes, _Seen] = {}
        self._cutoff_ms = _NOTHING_MS

    def look(self, sessions: Iterable[WriteSession], now_s: float) -> int:
        """Blobs released before the returned moment (owner's time) are held by no running read."""
        sessions = list(sessions)
        self._seen = {it.session_id: self._see(it, now_s) for it in sessions if it.state is SessionState.OPEN}
        reads_since_s = min((it.reads_since_s for it in self._seen.values()), default=now_s)
        while self._looks and self._looks[0].at_s < reads_since_s:
            self._cutoff_ms = max(self._cutoff_ms, self._looks.popleft().newest_renewal_ms)
        if len(self._looks) < LOOKS_MAX:  # fewer looks make the sweep later, never wrong
            newest_ms = max((it.renewed_ms for it in sessions), default=_NOTHING_MS) - round(self._margin_s * 1000)
            self._looks.append(_Look(now_s, newest_ms))
        self._last_look_s = now_s
        return self._cutoff_ms

    @property
    def reads_since_s(self) -> float:
        """As of the last look: no read that still runs began before this steady time; -inf when that is not known."""
        return min((it.reads_since_s for it in self._seen.values()), default=self._last_look_s)

    @property
    def silent_s(self) -> float:
        """For how long, as of the last look, the most silent open session has been seen unchanged."""
        return max((self._last_look_s - it.changed_s for it in self._seen.values()), default=0.0)

    def _see(self, session: WriteSession, now_s: float) -> _Seen:
        renewed_ms, oldest_read_ms = session.renewed_ms, session.oldest_read_ms
        known = self._seen.get(session.session_id)
        if known is not None and renewed_ms == known.renewed_ms:
            return known
        reads_since_s = self._last_look_s - self._margin_s - (renewed_ms - oldest_read_ms) / 1000
        if known is not None:
            moved = oldest_read_ms != known.oldest_read_ms
            reads_since_s = max(reads_since_s, known.reads_since_s) if moved else known.reads_since_s
        return _Seen(renewed_ms, oldest_read_ms, now_s, reads_since_s)
