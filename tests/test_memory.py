"""Peak memory belongs to the work that needed it."""

import sys

import pytest
import torch

from neuroint.memory import measure_anew, peak_mb

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_earlier_work_is_not_told_of_later_work():
    measure_anew(CPU)
    before = peak_mb(CPU)
    torch.ones(100 * 2**18)  # 100 MiB, gone at once
    high = peak_mb(CPU)
    measure_anew(CPU)
    assert high > before + 90
    assert peak_mb(CPU) < high - 50
