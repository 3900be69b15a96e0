"""``benchmarks/plan_memory.py``: how it compares, and that plan and a training process agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from plan_memory import ALL, compared, sweep_of

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "plan_memory.py"


def job(what, mb, **more):
    return {"what": what, "name": "a case", "peak_mb": mb, **more}


def test_medians_of_repeats_are_compared_and_their_spread_is_told():
    (row,) = compared([job("plan", 900), job("plan", 990), job("train", 1000), job("train", 1100), job("sweep", 1050)])
    assert (row["plan_mb"], row["train_mb"], row["sweep_mb"]) == (945, 1050, 1050)
    assert (row["plan_spread"], row["train_spread"], row["sweep_spread"]) == (0.1, 0.1, 0)
    assert (row["over_train"], row["over_sweep"]) == (-0.1, -0.1)


def test_what_was_refused_is_told_and_not_compared():
    refused = {"what": "train", "name": "a case", "refused": "took longer than 600 s"}
    (row,) = compared([job("plan", 900), refused])
    assert row == {"case": "a case", "refused": ["took longer than 600 s"], "plan_mb": 900, "plan_spread": 0}


def test_every_case_is_a_configuration():
    for case in ALL.values():
        train = sweep_of(case, "anywhere").trial("only", {}, key="k", phase="plan", seed=0).train
        assert (train.frames, train.batch_size) == (case.frames, case.batch)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")
def test_a_plan_is_within_a_fifth_of_what_a_training_process_takes(tmp_path):
    given = ["--cases", "factorized_conv3d", "--repeats", "1", "--out", str(tmp_path / "found.json")]
    subprocess.run([sys.executable, str(PROGRAM), *given], check=True, capture_output=True)
    (row,) = json.loads((tmp_path / "found.json").read_text())["summary"]
    assert not row["refused"]
    assert abs(row["over_train"]) < 0.2
