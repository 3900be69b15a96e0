"""Cautions say what may not be concluded, in one form; what is meant to forbid and could not is refused."""

import pytest

from neuroint.data.base import DataError
from neuroint.data.cautions import forbidden
from neuroint.data.mapping import parse_mapping


def read(*cautions):
    return parse_mapping({"responses": "spikes", "cautions": list(cautions)}).cautions


@pytest.mark.parametrize(
    ("caution", "subjects", "why"),
    [
        ("cells pooled over animals: no coupling", {"coupling"}, "cells pooled over animals"),
        ("probably pooled: NO Coupling between cells", {"coupling"}, "probably pooled"),
        ("pooled: no couplings and no normalisation", {"coupling", "normalization"}, "pooled"),
        ("pooled: no interactions", {"coupling"}, "pooled"),
        ("file 3: pooled:\n  no divisive normalization", {"normalization"}, "file 3: pooled"),
        ("every frame was shown once: no noise ceiling", set(), ""),
        ("bins unknown", set(), ""),
    ],
)
def test_a_caution_forbids_what_it_names_after_a_colon_and_no(caution, subjects, why):
    assert forbidden(caution) == dict.fromkeys(subjects, why)
    assert read(caution) == (caution,)


@pytest.mark.parametrize(
    "caution",
    [
        "no coupling",
        "coupling cannot be concluded",
        "pooled - no interactions",
        "pooled: nothing about normalization",
        "gain control by normalization is unlikely: no coupling",
    ],
)
def test_a_caution_that_names_a_conclusion_without_forbidding_it_is_refused(caution):
    with pytest.raises(DataError, match=r"'why: no (coupling|normalization)'.*coupling, interaction, normalization"):
        read("bins unknown", caution)


@pytest.mark.parametrize(
    ("caution", "meant"), [("cells pooled: no cuopling", "coupling"), ("one depth: no nromalization", "normalization")]
)
def test_a_misspelled_conclusion_is_refused_with_the_nearest(caution, meant):
    with pytest.raises(DataError, match=rf"is no conclusion; did you mean '.*: no {meant}'.*coupling, interaction"):
        read("bins unknown", caution)
