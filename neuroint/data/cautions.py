"""Read what a caution of the data forbids to conclude: ``why: no coupling``, ``why: no normalization``."""

from __future__ import annotations

import re
from difflib import get_close_matches

WORDS = ("coupling", "interaction", "normalization")
NEAR = 0.75  # of difflib: letters that a misspelled word shares with the right one
# What is not concluded about, by the stem of a word.
_STEMS = {r"\bcoupl": "coupling", r"\binteract": "coupling", r"\bnormali[sz]": "normalization"}
_FORBIDS = re.compile(r"(?P<why>.+?):\s*no\s+(?P<what>.+)", re.IGNORECASE)


def forbidden(caution: str) -> dict[str, str]:
    """Conclusions that a caution forbids, each with the reason; empty for a remark that forbids none of them."""
    match = _FORBIDS.fullmatch(" ".join(caution.split()))
    return dict.fromkeys(_named(match["what"]), match["why"]) if match else {}


def checked(caution: str) -> str:
    """Hand a caution on unless it names a conclusion that it does not forbid.

    Raises:
        ValueError: it does, and so would be without effect.
    """
    if idle := [subject for subject in _named(caution) if subject not in forbidden(caution)]:
        raise ValueError(
            f"speaks of {' and '.join(idle)} without forbidding it; write 'why: no {idle[0]}', the reason "
            f"first, such as 'cells pooled over animals: no coupling'. Conclusions that can be forbidden: "
            f"{', '.join(WORDS)}; leave these words out of any other remark"
        )
    match = _FORBIDS.fullmatch(" ".join(caution.split()))
    if match is not None and not forbidden(caution):
        _refuse_misspelled(match["why"], match["what"])
    return caution


def _refuse_misspelled(why: str, what: str) -> None:
    for word in what.lower().split():
        if meant := get_close_matches(word, WORDS, 1, NEAR):
            raise ValueError(
                f"forbids {word!r}, which is no conclusion; did you mean '{why}: no {meant[0]}'? Conclusions that can "
                f"be forbidden: {', '.join(WORDS)}"
            )


def _named(text: str) -> list[str]:
    return list(dict.fromkeys(subject for stem, subject in _STEMS.items() if re.search(stem, text, re.IGNORECASE)))
