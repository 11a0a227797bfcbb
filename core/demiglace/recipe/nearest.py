"""The known names nearest to an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_CUTOFF = 0.6
_BAND = 0.15  # how much less alike than the best one a further name may be
_SHOWN = 12


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """At most `count` known names like `name`, the nearest first.

    Case does not count, and a dotted name is also compared by its last part: `magnitude` finds
    `prune.magnitude`.
    """
    matcher = SequenceMatcher(b=name.lower())
    scored = sorted((-_likeness(matcher, one), one) for one in set(known))
    enough = max(_CUTOFF, -scored[0][0] - _BAND) if scored else _CUTOFF
    return [one for score, one in scored if -score >= enough][:count]


def _likeness(matcher: SequenceMatcher[str], candidate: str) -> float:
    """From 0 to 1, where 1 is the same name."""
    whole = candidate.lower()
    return max(_ratio(matcher, whole), 0.95 * _ratio(matcher, whole.rpartition(".")[2]))


def _ratio(matcher: SequenceMatcher[str], candidate: str) -> float:
    matcher.set_seq1(candidate)
    if matcher.real_quick_ratio() < _CUTOFF or matcher.quick_ratio() < _CUTOFF:
        return 0.0
    return matcher.ratio()


def did_you_mean(name: str, known: Iterable[str], what: str = "known names") -> str | None:
    """A hint for an unknown name: the nearest known ones, or all when none is near."""
    names = sorted(set(known))
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(f'`{one}`' for one in near)}?"
    if not names:
        return None
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(names[:_SHOWN])}{more}"
