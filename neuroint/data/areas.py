"""Brain areas by name or by group: which neurons are read, and which are predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from neuroint.data.base import DataError
from neuroint.registry import nearest

UNASSIGNED = "root"  # the Allen atlas's root: inside the brain, in no area; such a neuron may lie in the target
# Acronyms of the Allen atlas in the groups of the Neuromatch course's notebooks on Steinmetz et al. (2019).
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(areas.split())
    for group, areas in {
        "visual": "VISa VISam VISl VISp VISpm VISrl",
        "thalamus": "CL LD LGd LH LP MD MG PO POL PT RT SPF TH VAL VPL VPM",
        "hippocampus": "CA CA1 CA2 CA3 DG SUB POST",
        "other_cortex": "ACA AUD COA DP ILA MOp MOs OLF ORB ORBm PIR PL SSp SSs RSP TT",
        "midbrain": "APN IC MB MRN NB PAG RN SCs SCm SCig SCsg ZI",
        "basal_ganglia": "ACB CP GPe LS LSc LSr MS OT SNr SI",
        "subplate": "BLA BMA EP EPd MEA",
    }.items()
}


def in_areas(
    areas: Sequence[str] | None, wanted: Sequence[str], session: str, setting: str
) -> Bool[np.ndarray, " neurons"]:
    """Mark the neurons of areas, each given by its name or by that of its group.

    Raises:
        DataError: the recording has no areas, nothing is wanted, or no neuron is in a wanted area or group.
    """
    known = Counter(areas or ())
    if areas is None:
        raise DataError(
            f"{setting} is {list(wanted)}, but session '{session}' does not say in which area its neurons are; use "
            "data.held_in alone, or a reader that knows areas"
        )
    if not wanted:
        raise DataError(
            f"{setting} is empty; name areas or groups, or leave it out for all that are not on the other side"
        )
    chosen: set[str] = set()
    for word in wanted:
        found = set(members_of(word)) & set(known)
        if not found:
            raise DataError(_unknown(word, known, session, setting))
        chosen |= found
    return np.isin(np.asarray(areas), sorted(chosen))


def members_of(word: str) -> tuple[str, ...]:
    """List the areas of a group, or the area itself."""
    return GROUPS.get(word, (word,))


def assigned(areas: Sequence[str]) -> Bool[np.ndarray, " neurons"]:
    """Mark the neurons that are in some area."""
    return np.asarray(areas) != UNASSIGNED


def _unknown(word: str, known: Counter[str], session: str, setting: str) -> str:
    held = ", ".join(f"{area} {count}" for area, count in sorted(known.items()))
    groups = [group for group, members in GROUPS.items() if set(members) & set(known)]
    same = [name for name in (*known, *groups) if name.lower() == word.lower()]
    return (
        f"{setting}: session '{session}' has no neuron in '{word}'.{nearest((same or [word])[0], [*known, *groups])} "
        f"Neurons by area: {held}; groups: {', '.join(groups) or 'none'}"
    )
