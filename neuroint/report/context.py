"""Say where a sweep's numbers come from: failures, looks at test data, program and data, and what is not answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from neuroint.data.base import DEV_TEST, FINAL_TEST
from neuroint.report.contrasts import ACROSS, CONCLUSIONS
from neuroint.report.evidence import Evidence
from neuroint.report.findings import ArmFindings, Contrast, Failure, TestLook
from neuroint.sweep.selection import ENSEMBLE

_FAILED = ("failed", "diverged")
_SHOWN_ELSEWHERE = frozenset({"question", "cautions", "reference", "score_metric"})


def cautions(tags: dict[str, Any]) -> list[str]:
    """Read the cautions of the data from a sweep's tags: a list, or sentences joined by `` | ``."""
    found = tags.get("cautions") or []
    parts = found.split(" | ") if isinstance(found, str) else found
    return [str(part).strip() for part in parts if str(part).strip()]


def failures(evidence: Evidence) -> list[Failure]:
    """List runs that crashed or diverged, with the last line of what they said."""
    found = [run for run in evidence.record.runs.values() if run.status in _FAILED]
    return [Failure(run.key, run.arm, run.status, last_line(run.message), run.message or "") for run in found]


def last_line(message: str | None) -> str:
    """Last line of a traceback that says anything."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no message was left"


def test_looks(evidence: Evidence) -> list[TestLook]:
    """Every read of a test tier that the journal knows."""
    reads = evidence.record.test_reads
    return [TestLook(str(r["run"]), str(r["tier"]), str(r["reason"]), moment(r["time"])) for r in reads]


def moment(seconds: float | None) -> str:
    """Write a time since 1970 as a date in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def provenance(evidence: Evidence) -> dict[str, str]:
    """Collect program, data, seeds and budget, as recorded when the sweep started."""
    record = evidence.record
    seeds = sorted({run.seed for runs in evidence.chosen.values() for run in runs if run.seed is not None})
    at_once = _trials_at_once(evidence)
    exact = {True: "the search can be repeated to the number", False: "it can be repeated up to the order they end in"}
    found = {name: str(value) for name, value in record.tags.items() if name not in _SHOWN_ELSEWHERE}
    found |= {name: str(value) for name, value in record.params.items()}
    found["confirm seeds"] = ", ".join(str(seed) for seed in seeds) or "none"
    found["tuning trials at a time"] = f"{at_once} at most: {exact[at_once <= 1]}"
    if record.unreadable_lines:
        found["unreadable journal lines"] = ", ".join(str(line) for line in record.unreadable_lines)
    return found


def _trials_at_once(evidence: Evidence) -> int:
    """Most tuning trials that ran at the same time."""
    tune = [run for run in evidence.record.runs.values() if run.phase == "tune" and run.ended_s is not None]
    changes = sorted([(run.started_s, 1) for run in tune] + [(run.ended_s or 0.0, -1) for run in tune])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def missing(evidence: Evidence, arms: Sequence[ArmFindings], contrasts: Sequence[Contrast]) -> list[str]:
    """Say what a whole sweep would have and this one has not."""
    record, found = evidence.record, []
    if record.status != "finished":
        why = f" ({record.message})" if record.message else ""
        found.append(f"The sweep is {record.status}{why}; what follows is what was recorded until then.")
    if len(evidence.asked.arms) < 2:
        found.append("There is one arm only, so nothing is compared.")
    running = [run.key for run in record.runs.values() if run.status == "running"]
    if running and record.status != "running":
        found.append(f"{len(running)} runs never ended: {', '.join(running[:5])}{' …' if len(running) > 5 else ''}.")
    trained = [run for run in record.runs.values() if run.phase != ENSEMBLE]
    counts = Counter(run.status for run in trained)
    found += [f"{counts[s]} of {len(trained)} runs {s}; see Failures." for s in _FAILED if counts[s]]
    found += [f"{text}." for arm in arms for text in arm.missing]
    if contrasts and all(contrast.snr.unavailable for contrast in contrasts):
        found.append(f"Gains cannot be split by SNR: {contrasts[0].snr.unavailable}.")
    return list(dict.fromkeys(text.replace("..", ".") for text in found))


def limits(evidence: Evidence, arms: Sequence[ArmFindings], contrasts: Sequence[Contrast]) -> list[str]:
    """Say what the answer does not cover."""
    tested = [contrast for contrast in contrasts if contrast.tier == DEV_TEST]
    changed = {slot for slot in CONCLUSIONS for arm in evidence.asked.arms if _has(evidence, arm, slot)}
    checks = {
        "Accuracy does not identify a mechanism: a design that predicts better may stand in for another one. No "
        "verdict says that the brain does what the arm does.": bool(tested),
        "Couplings and attention maps are not interpreted: with a trained core the same predictions can be made "
        "without them.": "interaction" in changed and not _core_is_frozen(evidence),
        "Verdicts speak about this recording only, not about other animals.": any(
            contrast.unit == "stimulus" for contrast in tested
        ),
        "Neurons, stimuli and animals unlike those recorded are not covered.": bool(tested),
        f"Only the declared ranges were searched, with {_budget(arms)}.": any(arm.trials for arm in arms),
        "Arms differ in the number of trained values; a gain may be capacity. Compare with an arm of equal size.": len(
            {arm.parameters for arm in arms}
        )
        > 1,
        "Arms that read different information are not ranked: a gain then means that the information was of use.": any(
            contrast.label == ACROSS for contrast in tested
        ),
        "The final test was not read; these verdicts rest on dev-test data.": not evidence.scored[FINAL_TEST]
        or not any(evidence.scored[FINAL_TEST].values()),
    }
    return [text for text, applies in checks.items() if applies]


def _has(evidence: Evidence, arm: str, slot: str) -> bool:
    return any(
        run.params.get(f"{slot}.name", "none") != "none" for run in evidence.record.runs.values() if run.arm == arm
    )


def _core_is_frozen(evidence: Evidence) -> bool:
    runs = evidence.record.runs.values()
    return bool(runs) and all(run.params.get("init.core") == "frozen" for run in runs)


def _budget(arms: Sequence[ArmFindings]) -> str:
    trials = [sum(arm.trials.values()) for arm in arms]
    fewest, most = min(trials), max(trials)
    return f"{fewest} trials per arm" if fewest == most else f"{fewest} to {most} trials per arm"
