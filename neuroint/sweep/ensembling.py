"""Average the rates of the best runs of an arm, as many as validation says, and read dev-test once with them.

After the ensembles of STNDT (Le and Shlizerman 2022, arXiv:2206.04727): the rates of the best runs by validation score
are averaged, all neurons alike, and how many runs follows from validation, too. An ensemble is a run of its own in the
journal, of phase ``ensemble``: which runs it averages stands there before a test is read, and is not chosen again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from neuroint.averaging import evaluate_averages
from neuroint.config import SweepConfig, TrialConfig, load_sweep
from neuroint.data.base import DEV_TEST, VALIDATION
from neuroint.data.loader import ClipLoader
from neuroint.evaluation import DivergedError, pooled_mean, score
from neuroint.fit import WEIGHTS_FILE
from neuroint.metrics.moments import Moments
from neuroint.recordings import open_data, open_for
from neuroint.registry import nearest
from neuroint.results import CONFIG_FILE, read_moments, write_moments, write_validation
from neuroint.runtime import LocalRuntime, device_for, threads
from neuroint.sweep.claim import SWEEP_FILE, claimed
from neuroint.sweep.driver import check_data
from neuroint.sweep.scoring import is_scored, keep_scores
from neuroint.sweep.selection import ENSEMBLE, METRIC, ArmError, finished_runs
from neuroint.tracking.journal import Journal, RunRecord, SweepRecord
from neuroint.train import KEPT_ROWS, finished_predictor

MOST, TRIED, CHOSEN, BY_SIZE = (f"{ENSEMBLE}.{name}" for name in ("max", "tried", "members", "validation"))
Averages = dict[int, dict[str, Moments]]  # by number of runs, then by session


@dataclass(frozen=True)
class Ensemble:
    """The ensemble of an arm beside its best single run, which is the first of ``tried``.

    Attributes:
        arm: whose runs.
        metric: of all scores: the one that selects in the sweep, its mean over the neurons of all sessions.
        tried: runs by validation score, the best first.
        n: how many of them are averaged.
        validation: of the average of the first 1, 2, ... of ``tried``; NaN where it is not defined.
        dev_test_best: of the best single run.
        dev_test: of the ensemble.
        better: neurons that the ensemble predicts better than the best single run.
        neurons: those that both have a score for.
        already_there: it was made by an earlier call, and dev-test was not read again.
    """

    arm: str
    metric: str
    tried: list[str]
    n: int
    validation: list[float]
    dev_test_best: float
    dev_test: float
    better: int
    neurons: int
    already_there: bool


def ensemble_arms(
    folder: Path, arms: Sequence[str] | None = None, most: int = 8, tell: Callable[[str], None] = lambda arm: None
) -> list[Ensemble]:
    """Make the ensembles of a finished sweep's arms, and score each on dev-test beside the best single run.

    For every arm, the runs of search and confirmation that finished are ranked by the validation score that the sweep
    ranks by; of the averages of the best 1, 2, ..., ``most`` that with the highest validation score is the ensemble,
    the smallest one among equals. Dev-test is read when that is in the journal, and so is every read. What is there
    already is told again, without reading anything. The final test is not touched.

    Runs in this process, on the threads of a worker, and on a card if the sweep asked for one and there is one here.

    Args:
        folder: of the sweep.
        arms: which; by default all.
        most: runs that are averaged at most.
        tell: is called with the name of each arm that is not there yet, before its turn.

    Raises:
        ValueError: ``most`` is below 1 or another than before, an arm is not known, the sweep is not finished, or its
            recordings have changed.
        ArmError: an arm has no run to average, then nothing was read; or its rates are not finite, then the other arms
            have been scored.
    """
    if most < 1:
        raise ValueError(f"--max is {most}; give the largest number of runs to average, at least 1")
    sweep = load_sweep(folder / SWEEP_FILE)
    wanted = _known(sweep, arms)
    with claimed(folder, sweep):
        record = SweepRecord.from_journal(folder / "journal.jsonl")
        if record.status != "finished":
            raise ValueError(f"the sweep is {record.status}; finish it with --resume before its runs are averaged")
        work = [_Work(sweep, folder, arm, most) for arm in wanted]
        left = [one for one in work if one.is_left(record)]
        if left:
            check_data(folder, open_data(sweep.data))
            _make(left, tell)
        return [one.outcome(already=one not in left) for one in work]


def choose(validation: Sequence[float]) -> int:
    """Choose how many of the best runs to average: the fewest of those with the highest validation score.

    Args:
        validation: of the averages of the first 1, 2, ... runs; an undefined one is never chosen.

    Raises:
        ValueError: none is defined.
    """
    known = [-math.inf if math.isnan(found) else found for found in validation]
    if not known or max(known) == -math.inf:
        raise ValueError(f"got validation scores {list(validation)}; expected one that is defined at least")
    return 1 + known.index(max(known))


def _known(sweep: SweepConfig, arms: Sequence[str] | None) -> list[str]:
    wanted = list(dict.fromkeys(arms or sweep.arms))
    if unknown := [arm for arm in wanted if arm not in sweep.arms]:
        hint = nearest(unknown[0], sweep.arms)
        raise ValueError(f"'{unknown[0]}' is not an arm of this sweep.{hint} Arms: {', '.join(sweep.arms)}")
    return wanted


def _make(left: Sequence[_Work], tell: Callable[[str], None]) -> None:
    """Make what is left; an arm whose rates are not finite does not keep the others from it."""
    faults = []
    for one in left:
        tell(one.arm)
        try:
            one.make()
        except DivergedError as error:
            faults.append(f"arm '{one.arm}' cannot be averaged: {error}")
    if faults:
        raise ArmError("; ".join(faults))


class _Work:
    """What is to be done for one arm."""

    def __init__(self, sweep: SweepConfig, folder: Path, arm: str, most: int) -> None:
        self.sweep, self.folder, self.arm, self.most = sweep, folder, arm, most
        self.metric, self.key = sweep.score.metric, f"{ENSEMBLE}-{arm}"
        self.journal = Journal(folder / "journal.jsonl")

    def is_left(self, record: SweepRecord) -> bool:
        """Tell whether there is anything to do.

        Raises:
            ValueError: the ensemble was chosen among another number of runs.
            ArmError: there is nothing to choose from.
        """
        known = record.runs.get(self.key)
        if known is None:
            return bool(self._candidates(record))
        if known.params[MOST] != self.most:
            raise ValueError(
                f"--max is {self.most}, but arm '{self.arm}' has an ensemble chosen with {known.params[MOST]}, and "
                f"dev-test is read for one only; give --max {known.params[MOST]}"
            )
        return not is_scored(known, DEV_TEST)

    def make(self) -> None:
        """Choose by validation, unless that was done before; then read dev-test."""
        if self.key not in self._record().runs:
            self._choose()
        try:
            self._read()
        except DivergedError as error:
            self.journal.append("run_finished", run=self.key, status="diverged", message=str(error))
            raise

    def outcome(self, already: bool) -> Ensemble:
        """Compare what the files hold, neuron by neuron."""
        record = self._record()
        made = record.runs[self.key].params
        ours, best = (self._scores(key) for key in (self.key, made[TRIED][0]))
        gains = np.concatenate([ours[session] - best[session] for session in ours])
        return Ensemble(
            arm=self.arm,
            metric=self.metric,
            tried=made[TRIED],
            n=len(made[CHOSEN]),
            validation=[float(found) for found in made[BY_SIZE]],
            dev_test_best=pooled_mean(best),
            dev_test=pooled_mean(ours),
            better=int((gains > 0).sum()),
            neurons=int(np.isfinite(gains).sum()),
            already_there=already,
        )

    def _scores(self, key: str) -> dict[str, Any]:
        return score(read_moments(self.folder / "runs" / key, DEV_TEST), self.metric)

    def _record(self) -> SweepRecord:
        return SweepRecord.from_journal(self.journal.path)

    def _candidates(self, record: SweepRecord) -> list[RunRecord]:
        """The best finished runs whose weights are there."""
        ranked = finished_runs(record, self.arm, self.sweep.arms[self.arm].distributions)
        found = [run for run in ranked if self._weights(run).is_file()]
        if not found:
            runs = [run for run in record.runs.values() if run.arm == self.arm]
            states = "; ".join(f"{run.key} {run.status}" for run in runs)
            raise ArmError(
                f"arm '{self.arm}' has no finished run with its weights, runs/NAME/{WEIGHTS_FILE}, among {len(runs)} "
                f"({states or 'none was started'}); put them back, or name other arms with --arm"
            )
        return found[: self.most]

    def _choose(self) -> None:
        """Average the best 1, 2, ... runs on validation, and journal which average is the ensemble."""
        record = self._record()
        tried = self._candidates(record)
        found = self._average(tried, VALIDATION, range(1, len(tried) + 1), 1)
        validation = [pooled_mean(score(found[size], self.metric)) for size in sorted(found)]
        n = choose(validation)
        place = self.folder / "runs" / self.key
        place.mkdir(parents=True, exist_ok=True)
        write_moments(place, VALIDATION, found[n])
        write_validation(place, self.metric, score(found[n], self.metric))
        keys = [run.key for run in tried]
        made = {MOST: self.most, TRIED: keys, CHOSEN: keys[:n], BY_SIZE: validation}
        about = {"phase": ENSEMBLE, "arm": self.arm, "seed": None, "tags": _tags(tried[0])}
        self.journal.append("run_started", run=self.key, params=_shared(tried[:n]) | made, **about)

    def _read(self) -> None:
        """Predict dev-test with the runs that were chosen, and score the best of them, too, if it was not before.

        Its scores stay out of its journal: a run that ended once more would look as if it had been searched last.
        """
        record = self._record()
        made = record.runs[self.key]
        members = [record.runs[key] for key in made.params[CHOSEN]]
        best, n = members[0], len(members)
        known = {1: read_moments(self.folder / str(best.folder), DEV_TEST)} if is_scored(best, DEV_TEST) else {}
        sizes = {1, n} - known.keys()
        if n in sizes and n > 1:
            self._announce(record, made, f"average of the {n} best by validation: {', '.join(made.params[CHOSEN])}")
        if 1 in sizes:
            self._announce(record, best, f"best by validation, beside {self.key}")
        known |= self._average(members, DEV_TEST, sizes, KEPT_ROWS) if sizes else {}
        if 1 in sizes:
            write_moments(self.folder / str(best.folder), DEV_TEST, known[1])
        self._keep(made, known[1], known[n])

    def _keep(self, made: RunRecord, best: dict[str, Moments], ours: dict[str, Moments]) -> None:
        """Write the scores of the ensemble on both tiers, and that of the best run beside them."""
        n = len(made.params[CHOSEN])
        found = {VALIDATION: read_moments(self.folder / "runs" / self.key, VALIDATION), DEV_TEST: ours}
        beside = pooled_mean(score(best, self.metric))
        more = {METRIC: float(made.params[BY_SIZE][n - 1]), f"best_run/{DEV_TEST}/{self.metric}": beside}
        keep_scores(self.journal, self.folder, made, found, **more)

    def _announce(self, record: SweepRecord, run: RunRecord, reason: str) -> None:
        """Journal a read of dev-test before it happens, once."""
        if (run.key, DEV_TEST) not in {(read["run"], read["tier"]) for read in record.test_reads}:
            self.journal.append("test_read", run=run.key, tier=DEV_TEST, reason=reason)

    def _average(self, runs: Sequence[RunRecord], tier: str, sizes: Collection[int], rows: int) -> Averages:
        """Predict a tier with runs, the best first, and average the first n of them for every n of ``sizes``."""
        configs = {run.key: _config(self.folder, run) for run in runs}
        first, resources = configs[runs[0].key], self.sweep.resources
        sessions = open_for(first)
        runtime = LocalRuntime(device=device_for(resources.gpus_per_worker if torch.cuda.is_available() else 0))
        at_once = min(config.train.batch_size * config.train.frames for config in configs.values())
        with (
            threads(int(resources.cpus_per_worker)),
            ClipLoader(sessions, workers=first.train.loader_processes) as loader,
        ):
            models = {
                run.key: finished_predictor(configs[run.key], sessions, self._weights(run), runtime) for run in runs
            }
            return evaluate_averages(
                models, loader, tier, runtime.device, sizes=sizes, frames_at_once=at_once, rows=rows
            )

    def _weights(self, run: RunRecord) -> Path:
        return self.folder / str(run.folder) / WEIGHTS_FILE


def _config(folder: Path, run: RunRecord) -> TrialConfig:
    return TrialConfig.from_dict(yaml.safe_load((folder / str(run.folder) / CONFIG_FILE).read_text()))


def _shared(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Settings that all runs have."""
    first, *others = (run.params for run in runs)
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def _tags(run: RunRecord) -> dict[str, Any]:
    """What holds of an average as of one of its runs; it has more parameters."""
    return {name: value for name, value in run.tags.items() if name != "parameters"}


def render(found: Sequence[Ensemble]) -> str:
    """Lay ensembles out as a table, one row per arm."""
    head = f"{'arm':<28}{'runs averaged':>14}{'validation':>22}{'dev-test':>22}{'neurons better':>18}"
    names = f"{'':<28}{'':>14}{'best run':>11}{'ensemble':>11}{'best run':>11}{'ensemble':>11}"
    rows = [_row(one) for one in found]
    notes = [f"{one.arm}: was there already; dev-test was not read again" for one in found if one.already_there]
    title = f"{found[0].metric}, mean over neurons; best run: the best single one by validation"
    return "\n".join([title, head, names, *rows, *notes])


def _row(one: Ensemble) -> str:
    scores = (one.validation[0], one.validation[one.n - 1], one.dev_test_best, one.dev_test)
    better = f"{one.better} of {one.neurons}" if one.n > 1 else "the same run"
    numbers = "".join(f"{value:>11.4f}" for value in scores)
    return f"{one.arm:<28}{f'{one.n} of {len(one.tried)}':>14}{numbers}{better:>18}"


def as_json(found: Sequence[Ensemble]) -> list[dict[str, Any]]:
    """Lay ensembles out as plain data, in which a number that is not defined is null."""
    return json.loads(json.dumps([asdict(one) for one in found]), parse_constant=lambda name: None)
