"""``benchmarks/video_attention.py``, smaller: what was planted is found by a fitted transformer."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = f"""
    import json, sys; sys.path.insert(0, {str(Path(__file__).parents[2] / "benchmarks")!r})
    from pathlib import Path
    import torch
    import video_attention
    torch.set_num_threads(1)
    video_attention.SIZES["sessions"] = 1
    video_attention.TRAINING["v1t"] = {{"frames": 1, "batch_size": 32}}
    rows = {{name: video_attention.rows_of("v1t", name, 0, Path(sys.argv[1]), 199) for name in ("moving", "swapped")}}
    print(json.dumps(rows))
"""  # a process of its own, without the tests' checks of shapes, which take as long as the fits


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Numbers of a V1T that was fitted to one animal, and of one that was told other clips' behavior in training."""
    folder = str(tmp_path_factory.mktemp("attention"))
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout.splitlines()[-1])
    return {name: {row["kind"]: row for row in of_fit} for name, of_fit in rows.items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_attention_follows_the_eye_where_receptive_fields_do_and_comes_from_what_the_model_is_told(found):
    y = found["moving"]["y"]
    assert y["own"]["correlation"] > 0.2
    assert y["own"]["p"] < 0.02
    assert y["passed_on"]["correlation"] > 0.15
    assert abs(y["left_over"]["correlation"]) < y["own"]["correlation"] / 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_predicted_rates_follow_running_where_neurons_do(found):
    assert found["moving"]["rate"]["own"]["correlation"] > 0.2
    assert found["moving"]["rate"]["own"]["p"] < 0.02


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["x", "y", "rate"])
def test_a_model_that_was_told_other_behavior_in_training_follows_none(found, kind):
    assert abs(found["swapped"][kind]["own"]["correlation"]) < 0.2
    assert found["swapped"][kind]["own"]["p"] > 0.05
