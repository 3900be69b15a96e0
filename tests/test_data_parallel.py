"""Two workers equal one worker on the same global batch, several sessions included."""

from pathlib import Path

import pytest
import torch
from worlds import ProcessRuntime, make_config, make_session, process_group, thread_names

from neuroint.data.base import VALIDATION
from neuroint.data.loader import ClipLoader
from neuroint.data.plan import TrainingPlan
from neuroint.evaluation import evaluate
from neuroint.fit import prepare
from neuroint.train import training_step

STEPS = 20
ARMS = {
    "none": {},
    "own_past": {"interaction": "linear_autoregressive"},
    "attention": {"interaction": "attention"},
    "pool": {"normalization": "population_pool"},
    "channel_pool": {"normalization": "channel_pool"},
    "depression": {"normalization": {"name": "input_depression", "longest_s": 0.1}},
    "places": {"normalization": {"name": "group", "group_neurons": 3}},
    "batch": {"normalization": "batch"},
    "own_drive": {"interaction": "own_drive_filter"},
    "matched": {"readout": {"name": "gaussian", "sampling": False, "features": "shared"}},
    "permuted": {"interaction": {"name": "permuted_identities", "of": {"name": "attention"}}},
}


def trained(rank: int, world_size: int, arm: str, statistics: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Train some steps on this worker's share; returns weights, losses and validation moments."""
    torch.set_num_threads(1)
    config = make_config(
        arm,
        arms=ARMS,
        optimizer={"name": "sgd", "learning_rate": 0.05},
        readout={"name": "gaussian", "sampling": False},
        train={"precision": "float64", "batch_statistics": statistics, "clip_norm": 1.0, "frames": 34},
    )
    sessions = [make_session("a", seed=1), make_session("b", seed=2, neurons=4)]
    runtime = ProcessRuntime(rank, world_size, device=torch.device(device))
    fit = prepare(config, sessions, runtime, torch.float64)
    share = {"rank": rank, "world_size": world_size}
    plan = TrainingPlan(sessions, frames=34, batch_size=4, seed=5, steps_per_epoch=STEPS, **share)
    losses = torch.zeros(STEPS, dtype=torch.float64, device=device)
    fit.training_mode()
    with ClipLoader(sessions) as loader:
        for step, batches in enumerate(loader.training(plan, 0)):
            losses[step] = training_step(fit, batches, runtime, step)[0]
        moments = evaluate(fit.model, loader, VALIDATION, runtime, frames_at_once=40, dtype=torch.float64, rows=1)
    if world_size > 1:
        torch.distributed.all_reduce(losses)
    found = {f"moments {name}": torch.from_numpy(m.sum().values) for name, m in moments.items()}
    return {name: x.cpu() for name, x in ({**fit.model.state_dict(), **found, "losses": losses}).items()}


CASES = [*((arm, "frozen") for arm in ARMS), ("none", "synchronized"), ("batch", "synchronized")]


def _worker(rank: int, folder: str, device: str) -> None:
    with process_group(folder, rank):
        for arm, statistics in CASES:
            torch.save(trained(rank, 2, arm, statistics, device), f"{folder}/{arm}-{statistics}-{rank}.pt")
    Path(folder, f"threads-{rank}").write_text(" ".join(thread_names()))


def _together(folder: Path, device: str) -> Path:
    """What two workers found in every case: one pair of processes for all, since starting them costs the most."""
    torch.multiprocessing.spawn(_worker, (str(folder), device), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    return _together(tmp_path_factory.mktemp("together"), "cpu")


@pytest.fixture(scope="module")
def together_on_a_card(tmp_path_factory) -> Path:
    return _together(tmp_path_factory.mktemp("card"), "cuda")


def check_equal_to_one(arm: str, statistics: str, folder: Path, device: str) -> None:
    threads = torch.get_num_threads()
    alone = trained(0, 1, arm, statistics, device)
    torch.set_num_threads(threads)
    for rank in range(2):
        found = torch.load(folder / f"{arm}-{statistics}-{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("arm", "statistics"), CASES)
def test_two_workers_equal_one(arm, statistics, together: Path):
    check_equal_to_one(arm, statistics, together, "cpu")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_that_left_their_group_have_no_thread_of_it(together: Path):
    for rank in range(2):
        assert "gloo" not in (together / f"threads-{rank}").read_text()


@pytest.mark.gpu
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("arm", "statistics"), CASES)
def test_two_workers_equal_one_on_a_card(arm, statistics, together_on_a_card: Path):
    check_equal_to_one(arm, statistics, together_on_a_card, "cuda")  # both on one card, which gloo allows
