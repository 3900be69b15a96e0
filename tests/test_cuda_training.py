"""On a CUDA device training gives the numbers that it gives on a CPU, resumes, compiles, and scores."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import RECIPES as ON_CPU
from test_train import fit as fit_on
from worlds import make_config, make_session, with_epochs

from neuroint.runtime import LocalRuntime
from neuroint.train import score_weights, train_trial

pytestmark = pytest.mark.gpu
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
PLAIN = {"readout": {"name": "gaussian", "sampling": False}}  # points drawn on a card are others than those of a CPU
RECIPES = ON_CPU | {
    "mixed": {"train": {"cutmix": 0.5}},
    "strided": {"train": {"frame_stride": 2, "frames": 20}, "core": {"temporal_kernels": [2, 2]}},
    "with loader processes": {"train": {"loader_processes": 1}},
}
# With a stride, crops of a session this small are shorter than the memory of own_past.
BOTH = [(recipe, arm) for recipe in RECIPES for arm in ("none", "own_past") if (recipe, arm) != ("strided", "own_past")]


def configured(recipe, arm="none", epochs=2, **train):
    changes = {key: dict(value) if isinstance(value, dict) else value for key, value in RECIPES[recipe].items()}
    changes["train"] = {"precision": "float64", "frames": 38, **changes.get("train", {}), **train}
    return with_epochs(make_config(arm, **PLAIN, **changes), epochs)


def fit(config, folder, device=CUDA, resume_from=None):
    """Metrics of every epoch."""
    return fit_on(config, folder, resume_from=resume_from, device=device).metrics


@pytest.mark.parametrize(("recipe", "arm"), BOTH)
def test_training_on_a_card_follows_training_on_a_cpu(recipe, arm, tmp_path):
    config = configured(recipe, arm)
    there = fit(config, tmp_path / "card")
    here = fit(config, tmp_path / "cpu", CPU)
    for name in ("train_loss", "validation_score", "gradient_norm"):
        assert [m[name] for m in there] == pytest.approx([m[name] for m in here], rel=1e-6), name


def test_the_peak_of_memory_is_that_of_the_card_and_not_of_the_process():
    told = []
    runtime = LocalRuntime(lambda metrics, folder: told.append(metrics["peak_memory_mb"]), device=CUDA)
    train_trial(configured("plain"), [make_session()], runtime)
    assert 0 < max(told) < 1000


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_resumed_on_a_card_equals_an_uninterrupted_one(recipe, tmp_path):
    config = configured(recipe, epochs=3)
    whole = fit(config, tmp_path / "whole")
    resumed = fit(config, tmp_path / "resumed", resume_from=tmp_path / "whole" / "1")
    assert [m["train_loss"] for m in resumed] == pytest.approx([m["train_loss"] for m in whole[1:]], rel=1e-9)
    weights = [load_file(tmp_path / name / "3" / "best.safetensors") for name in ("whole", "resumed")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-7, atol=1e-9)


def test_a_checkpoint_of_a_card_goes_on_on_a_cpu(tmp_path):
    config = configured("averaged", epochs=3)
    whole = fit(config, tmp_path / "whole")
    resumed = fit(config, tmp_path / "resumed", CPU, resume_from=tmp_path / "whole" / "1")
    assert [m["train_loss"] for m in resumed] == pytest.approx([m["train_loss"] for m in whole[1:]], rel=1e-6)


def test_weights_are_scored_alike_on_both_devices(tmp_path):
    config, sessions = configured("plain", "own_past"), [make_session()]
    fit(config, tmp_path)
    weights = tmp_path / "2" / "best.safetensors"
    found = [score_weights(config, sessions, weights, LocalRuntime(device=d))["one"] for d in (CUDA, CPU)]
    there, here = (torch.from_numpy(moments.sum().values) for moments in found)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)  # in float32


@pytest.mark.parametrize("arm", ["none", "own_past"])
def test_bfloat16_on_a_card_trains_near_float32(arm, tmp_path):
    found = [
        fit(configured("plain", arm, precision=precision), tmp_path / precision)[-1]
        for precision in ("float32", "bfloat16")
    ]
    assert found[1]["train_loss"] == pytest.approx(found[0]["train_loss"], rel=0.02)


def test_same_seed_gives_the_same_epoch_twice(tmp_path):
    config = with_epochs(make_config("none"), 1)
    one, other = (fit(config, tmp_path / name)[0] for name in ("one", "other"))
    assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)  # sums on a card come in any order


@pytest.mark.timeout(300)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_core_trains_to_the_loss_of_the_eager_one(precision, tmp_path):
    # A process of its own: torch.compile cannot read through the tests' checks of shapes.
    script = f"""
        import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_cuda_training import configured, fit
        for name in ("eager", "compiled"):
            config = configured("plain", epochs=1, precision={precision!r}, compile=name == "compiled")
            print(json.dumps(fit(config, Path(sys.argv[1]) / name)))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert run.returncode == 0, run.stderr
    (eager,), (compiled,) = map(json.loads, run.stdout.splitlines()[-2:])
    assert compiled["train_loss"] == pytest.approx(eager["train_loss"], rel=1e-3 if precision == "float32" else 0.02)
