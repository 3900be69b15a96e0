"""The training loop: reproducible, resumable, the same on two workers as on one."""

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from worlds import make_config, make_session, with_epochs

from neuroint.evaluation import DivergedError
from neuroint.fit import prepare
from neuroint.runtime import LocalRuntime
from neuroint.train import score_weights, train_trial

CPU = torch.device("cpu")
TIMES = ("seconds", "clips_per_s", "peak_memory_mb")


@dataclass
class Kept:
    """Keeps every report and a copy of every checkpoint."""

    folder: Path

    def __post_init__(self):
        self.metrics = []

    def __call__(self, metrics, checkpoint):
        self.metrics.append({k: v for k, v in metrics.items() if k not in TIMES})
        shutil.copytree(checkpoint, self.folder / str(metrics["epoch"]))


def fit(config, folder, sessions=None, resume_from=None, device=CPU):
    kept = Kept(folder)
    train_trial(config, sessions or [make_session()], LocalRuntime(kept, resume_from, device))
    return kept


def build(config):
    return prepare(config, [make_session()], LocalRuntime(), torch.float32)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["model"]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


RECIPES = {
    "plain": {},
    "averaged": {"train": {"ema": 0.9}},
    "schedule free": {"optimizer": {"name": "schedule_free_adamw"}},
    "plateau": {"schedule": {"name": "plateau", "patience": 1}},
    "cosine": {"schedule": "cosine", "train": {"clip_norm": 0.5}},
    "subsampled": {"train": {"neurons_per_step": 3}},
}


@pytest.fixture
def two_threads():
    """What a trial of two CPUs has; tests have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(recipe, tmp_path):
    config = make_config(**RECIPES[recipe])
    whole = fit(config, tmp_path / "whole")
    resumed = fit(config, tmp_path / "resumed", resume_from=tmp_path / "whole" / "1")
    assert resumed.metrics == whole.metrics[1:]
    assert_same_bits(weights(tmp_path / "whole" / "3"), weights(tmp_path / "resumed" / "3"))
    best = [load_file(tmp_path / name / "3" / "best.safetensors") for name in ("whole", "resumed")]
    assert_same_bits(*best)


def test_a_run_resumed_in_the_middle_of_a_plateau_remembers_it(tmp_path):
    config = make_config(schedule={"name": "plateau", "patience": 1}, train={"epochs": 6})
    whole = fit(config, tmp_path / "whole")
    resumed = fit(config, tmp_path / "resumed", resume_from=tmp_path / "whole" / "4")
    assert resumed.metrics == whole.metrics[4:]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_in_a_spawned_process(tmp_path):
    here = fit(make_config(), tmp_path / "here").metrics
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_train import fit, make_config
        print(hash("neuroint")); print(fit(make_config(), Path({str(tmp_path / "there")!r})).metrics)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert run.stdout.splitlines()[-1] == str(here)


def test_another_seed_gives_other_weights(tmp_path):
    one, other = (fit(with_epochs(make_config(seed=s), 1), tmp_path / str(s)) for s in (5, 6))
    assert one.metrics != other.metrics


def test_training_lowers_the_loss_and_predicts_held_out_clips(tmp_path):
    linear = {"core": {"name": "linear", "lags": 2, "behavior": False}, "readout": "linear", "link": "softplus"}
    metrics = fit(make_config(**linear, train={"epochs": 8, "frames": 40}), tmp_path, [make_session(train=60)]).metrics
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"] - 0.05
    assert metrics[-1]["best_validation_score"] > 0.2


def test_training_stops_when_validation_has_stalled(tmp_path):
    config = make_config(train={"epochs": 50, "patience": 2}, optimizer={"learning_rate": 1e-12})
    metrics = fit(config, tmp_path).metrics
    assert len(metrics) < 50
    assert metrics[-1]["finished"] == 1


def test_a_score_that_is_defined_later_replaces_an_undefined_first_one():
    progress = (run := build(make_config())).progress
    for score in (math.nan, -0.2, math.nan, -0.1):
        run.observe(score, {"one": np.full(6, score)})
    assert (progress.best, progress.stalled) == (-0.1, 0)
    assert run.best_scores["one"][0] == -0.1


def test_a_diverged_run_says_so_instead_of_scoring(tmp_path):
    config = make_config(optimizer={"name": "sgd", "learning_rate": 1e20}, link="exp")
    with pytest.raises(DivergedError, match=r"lower the learning rate"):
        fit(config, tmp_path)


def test_two_sessions_share_a_core_and_keep_their_own_readouts(tmp_path):
    sessions = [make_session("a", seed=1), make_session("b", seed=2, neurons=4)]
    fit(with_epochs(make_config(), 1), tmp_path, sessions)
    names = weights(tmp_path / "1")
    assert {k.split(".")[1] for k in names if k.startswith("readouts.")} == {"a", "b"}


@pytest.mark.parametrize("names", [("train", "training"), ("a.b", "a_b")])
def test_sessions_of_any_name_keep_their_own_readouts(names):
    sessions = [make_session(name, seed=seed, neurons=4 + seed) for seed, name in enumerate(names)]
    model = prepare(make_config(), sessions, LocalRuntime(device=CPU), torch.float32).model
    assert [readout.bias.numel() for readout in model.readouts.values()] == [4, 5]


def test_frozen_parts_do_not_move_and_finetuned_ones_move_less(tmp_path):
    fit(with_epochs(make_config(), 1), tmp_path / "first")
    source = {"source": str(tmp_path / "first" / "1")}
    start = load_file(tmp_path / "first" / "1" / "best.safetensors")
    for how in ("trained", "finetuned", "frozen"):
        fit(with_epochs(make_config(init={**source, "core": how}), 1), tmp_path / how)
    moved = {
        how: sum(
            float((value - start[key]).abs().sum())
            for key, value in weights(tmp_path / how / "1").items()
            if key.startswith("core.") and value.is_floating_point()
        )
        for how in ("trained", "finetuned", "frozen")
    }
    assert moved["frozen"] == 0
    assert 0 < moved["finetuned"] < moved["trained"]


def test_weights_that_fit_nowhere_are_refused(tmp_path):
    fit(with_epochs(make_config(), 1), tmp_path)
    other = {"channels": [5, 7]}
    with pytest.raises(ValueError, match="holds no core of this shape"):
        build(make_config(core=other, init={"source": str(tmp_path / "1")}))


def test_a_frozen_part_that_the_source_does_not_hold_is_refused(tmp_path):
    fit(with_epochs(make_config(), 1), tmp_path)
    source = {"source": str(tmp_path / "1" / "best.safetensors"), "readout": "frozen"}
    build(make_config(init=source))
    fit_of = lambda session: prepare(make_config(init=source), [session], LocalRuntime(), torch.float32)  # noqa: E731
    with pytest.raises(ValueError, match=r"init\.readout is frozen, but .* holds no readouts\.other\."):
        fit_of(make_session("other"))


def test_a_missing_source_of_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist; give a run's folder"):
        build(make_config(init={"source": str(tmp_path / "no")}))


def test_freezing_everything_is_refused():
    frozen = dict.fromkeys(("core", "readout", "normalization", "interaction"), "frozen")
    with pytest.raises(ValueError, match="nothing is left to train"):
        build(make_config(init=frozen))


def test_subsampling_neurons_is_refused_where_they_read_each_other():
    arms = {"none": {}, "pool": {"normalization": "population_pool"}}
    config = make_config("pool", train={"neurons_per_step": 3}, arms=arms)
    with pytest.raises(ValueError, match="drops neurons that"):
        build(config)


def test_scoring_reads_every_neuron_of_a_test_tier(tmp_path):
    fit(with_epochs(make_config(), 1), tmp_path)
    moments = score_weights(make_config(), [make_session()], tmp_path / "1" / "best.safetensors", LocalRuntime())
    assert moments["one"].n_neurons == 6
    assert moments["one"].n_stimuli == 2
    assert np.all(moments["one"]["n_frames"] == 4 * 30)  # 4 clips of 40 frames, scored from frame 10


def test_scoring_demands_weights_for_every_part_of_every_session(tmp_path):
    fit(with_epochs(make_config(), 1), tmp_path)
    file = tmp_path / "1" / "best.safetensors"
    score = lambda config, session: score_weights(config, [session], file, LocalRuntime())  # noqa: E731
    with pytest.raises(ValueError, match=r"lacks readouts\.other\..* and holds readouts\.one\..* of its own"):
        score(make_config(), make_session("other"))
    with pytest.raises(ValueError, match=r"lacks interaction\..*score a run with the configuration"):
        score(make_config("own_past"), make_session())
    with pytest.raises(ValueError, match=r"holds readouts\.one\.\w+ as \(6,.*expected \(4,"):
        score(make_config(), make_session(neurons=4))


def test_scoring_a_run_that_started_elsewhere_needs_its_own_weights_only(tmp_path):
    fit(with_epochs(make_config(train={"ema": 0.9}), 1), tmp_path)
    file = tmp_path / "1" / "best.safetensors"
    started = make_config(init={"source": str(tmp_path / "gone"), "core": "frozen"}, train={"ema": 0.9})
    (moments, again) = (
        score_weights(config, [make_session()], file, LocalRuntime())["one"]
        for config in (started, make_config(train={"ema": 0.9}))
    )
    np.testing.assert_array_equal(moments.values, again.values)


def test_bfloat16_trains_to_finite_numbers(tmp_path):
    metrics = fit(
        with_epochs(make_config("own_past", train={"precision": "bfloat16", "frames": 38}), 1), tmp_path
    ).metrics
    assert np.isfinite(metrics[0]["train_loss"])
    assert np.isfinite(metrics[0]["validation_score"])


@pytest.fixture
def cpp_compiler() -> None:
    """What torch.compile needs on a CPU; absent on some machines, required where CI=true."""
    wanted = (os.environ.get("CXX", "g++"), "clang++")
    if not any(map(shutil.which, wanted)):
        tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        tell(f"train.compile needs a C++ compiler, and none of {wanted} is on the PATH; install one")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cpp_compiler")
def test_a_compiled_core_trains_to_the_scores_of_the_eager_one(tmp_path):
    # Plain gradient steps: Adam's first ones go by the sign of gradients that are 0 but for rounding (biases before
    # batch normalization). A process of its own: torch.compile cannot read through the tests' checks of shapes.
    script = f"""
        import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_train import fit, make_config
        from torch._dynamo.utils import counters
        core = {{"channels": [3], "spatial_kernels": [3], "temporal_kernels": [3]}}
        for name in ("eager", "compiled"):
            train = {{"epochs": 1, "batch_size": 2, "compile": name == "compiled"}}
            config = make_config(core=core, optimizer={{"name": "sgd", "learning_rate": 0.1}}, train=train)
            metrics = fit(config, Path(sys.argv[1]) / name).metrics
            print(json.dumps([metrics, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())]))
    """
    cached = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | cached,
    )
    assert run.returncode == 0, run.stderr
    found = dict(zip(("eager", "compiled"), map(json.loads, run.stdout.splitlines()[-2:]), strict=True))
    (eager, no_graphs, _), (compiled, graphs, breaks) = found["eager"], found["compiled"]
    assert (no_graphs, graphs, breaks) == (0, 2, 0), "one graph to train and one to predict, each whole"
    assert compiled == [pytest.approx(eager[0], abs=1e-4)]
