"""Every search space asks a question, says how it is run, is valid, and survives a smoke test's budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroint.config import load_sweep
from neuroint.data.simulators.v1 import simulate_v1
from neuroint.recordings import open_data
from neuroint.sweep.planning import plan_sweep

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
KNOWN = 23  # raise it with every file that is added


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT)))
def file(request) -> Path:
    return request.param


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def test_the_known_number_of_files_is_found():
    assert len(FILES) == KNOWN
    assert list((ROOT / "search_spaces").rglob("*.yml")) == []


def test_the_first_line_asks_a_question(file):
    first = lines(file)[0]
    assert first.startswith("# ")
    assert first.endswith("?")
    assert load_sweep(file).question == first.removeprefix("# ")


def test_the_second_line_is_the_command_that_runs_the_file(file):
    assert lines(file)[1].startswith(f"# neuroint run {file.relative_to(ROOT)}")


def test_it_is_valid_and_so_is_its_smoke_test(file):
    sweep = load_sweep(file)
    smoke = load_sweep(file, smoke=True)
    assert len(sweep.arms) > 1, "a question holds arms against each other"
    assert list(smoke.arms) == list(sweep.arms)
    assert smoke.search.trials == 1


def test_every_corner_of_every_arm_is_a_configuration(file):
    sweep = load_sweep(file)
    for arm in sweep.arms:
        found = sweep.arms[arm].distributions
        for pick in (0, -1):
            values = {path: one.corners()[pick] for path, one in found.items()}
            flat = sweep.trial(arm, values, key="k", phase="plan", seed=0).flat()
            assert {path: flat[path] for path in found} == values


def test_names_are_unique():
    names = [load_sweep(file).name for file in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_all_cores_but_the_floor_compute_alike_in_a_step(tmp_path):
    simulate_v1(tmp_path / "v1", preset="test", sessions=1, train_clips=2, stimuli=1, repeats=2)
    sets = ("optimizer.learning_rate=0.01", "readout.sigma_init=0.2", "search.trials=1", "search.points=[]")
    sweep = load_sweep(ROOT / "search_spaces" / "cores.yaml", sets, str(tmp_path / "v1"))
    computed = {plan.name: plan.flops_per_step for plan in plan_sweep(sweep, open_data(sweep.data))}
    floor = computed.pop(sweep.reference)
    assert max(computed.values()) < 2 * min(computed.values())
    assert floor < min(computed.values()) / 4
