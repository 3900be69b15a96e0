"""From cells to the matrix truth x design: means over seeds, the same less that of a none-truth twin, and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recovery_parts.cells import Cell, load, truth_of
from recovery_parts.designs import CONTROL, COUPLINGS, DESIGNS, FED_TWINS, LEARNED, right_designs
from recovery_parts.scores import against, correlation, coupling_of, norm
from recovery_parts.world import TRUTHS

IDENTIFIABLE = ("own_history", "pool", *COUPLINGS)
REFERENCE = "rate_coupling"  # whose C stands in where a world has none: cells, and so C, are those of the same seed
NORM_MARGIN, GAIN_MARGIN, SHARED_MARGIN = 0.05, 0.002, 0.1

Row = dict[str, Any]


def rows(cells: Iterable[Cell], cache: Path) -> list[Row]:
    """Scores of every finished cell; ``less twin`` is minus the score of the same fit to the none-truth world."""
    found = []
    for cell in cells:
        held = load(cell, cache)
        if held is not None:
            twin = load(replace(cell, truth="none"), cache)
            found.append(_row(cell, held, twin, cache))
    return found


def _row(cell: Cell, held: dict[str, Any], twin: dict[str, Any] | None, cache: Path) -> Row:
    truth = truth_of(cell, cache)
    if not truth["coupling"].any():
        truth["coupling"] = truth_of(replace(cell, truth=REFERENCE, snr="high"), cache)["coupling"]
    scores = _scores(held, truth)
    row: Row = {**vars(cell), **{k: round(v, 5) for k, v in scores.items()}}
    row["explained_variance"] = round(float(np.median(truth["explained_variance"])), 3)
    if twin is not None:
        other = _scores(twin, truth)
        row["less_twin"] = {k: round(scores[k] - other[k], 5) for k in scores if k in other and k != "seconds"}
    return row


def _scores(held: dict[str, Any], truth: dict[str, Any]) -> dict[str, float]:
    coupling = coupling_of(held)
    off = ~np.eye(len(coupling), dtype=bool)
    noise = {k: correlation(coupling[off], truth[k][off]) for k in ("noise_same_bin", "noise_next_bin")}
    return {
        **{k: v for k, v in held.items() if isinstance(v, float)},
        **{f"coupling_{k}": v for k, v in against(coupling, truth["coupling"], truth["positions_um"]).items()},
        **noise,
        "coupling_norm": norm(coupling),
        "pool_corr": correlation((held["pool"] if "pool" in held else -held["instant"])[off], truth["pool"][off]),
    }


def mean_of(found: list[Row], key: str, **which: Any) -> float:
    """Mean over seeds of a score, or of ``less_twin.<score>``."""
    values = _values(found, key, **which)
    return float(np.mean(values)) if values else float("nan")


def _values(found: list[Row], key: str, **which: Any) -> list[float]:
    chosen = [row for row in found if _is(row, **which)]
    outer, _, inner = key.partition(".")
    held = [row.get(outer, {}).get(inner) if inner else row.get(outer) for row in chosen]
    return [v for v in held if v is not None]


def reports_coupling(found: list[Row], **which: Any) -> bool | None:
    """Decide whether a design reports coupling; None where cells are missing. A design without a null never does.

    It does when (1) the norm of what it found exceeds that of its none-truth twin by more than .05 and by more than the
    twins differ among seeds, (2) it predicts the noise-free rate better than the static control and than its null
    (``Design.null``), by more than it does in the twin, and in every seed, and (3) what it found does not look like
    noise that neurons share in the same bin: that is not passed on from neuron to neuron. Repeats tell (2) and (3) in
    recordings.
    """
    null = DESIGNS[which["design"]].null
    if null is None:
        return False
    twins = _values(found, "coupling_norm", **{**which, "truth": "none"})
    excess = mean_of(found, "less_twin.coupling_norm", **which)
    gains = [_gains(found, over, **which) for over in (CONTROL, null)]
    same, following = (mean_of(found, f"noise_{bins}_bin", **which) for bins in ("same", "next"))
    if not twins or not all(gains) or np.isnan([excess, same, following]).any():
        return None
    band = max(NORM_MARGIN, 2 * float(np.std(twins)))
    better = all(np.mean(gain) > GAIN_MARGIN and min(gain) > 0 for gain in gains)
    shared = abs(same) > SHARED_MARGIN and abs(same) >= abs(following)
    return excess > band and better and not shared


def _gains(found: list[Row], over: str, *, design: str, **which: Any) -> list[float]:
    """By seed: FEVE less that of another design, both less their twins'."""
    twinned = [row for row in found if "less_twin" in row and _is(row, **which)]
    own, other = (
        {row["seed"]: row["less_twin"]["feve"] for row in twinned if row["design"] == name} for name in (design, over)
    )
    return [own[seed] - other[seed] for seed in own if seed in other]


def _is(row: Row, **which: Any) -> bool:
    return all(row[k] == v for k, v in which.items())


def verdicts(found: list[Row], snr: str = "high", mode: str = "oracle") -> list[dict[str, Any]]:
    """Whether the right design wins its row, against designs that cannot express the truth, and by how much."""
    judged = []
    for truth in IDENTIFIABLE:
        scores = {d: mean_of(found, "feve", mode=mode, snr=snr, truth=truth, design=d) for d in DESIGNS}
        scores = {d: v for d, v in scores.items() if not np.isnan(v)}
        right = {d: v for d, v in scores.items() if d in right_designs(truth)}
        wrong = {d: v for d, v in scores.items() if d not in right and truth not in DESIGNS[d].relatives}
        if right and wrong:
            best, rival = max(right, key=right.__getitem__), max(wrong, key=wrong.__getitem__)
            margin = round(right[best] - wrong[rival], 4)
            judged.append({"truth": truth, "right": best, "best_wrong": rival, "margin": margin, "wins": margin > 0})
    return judged


def fed_contrast(found: list[Row], snr: str) -> list[dict[str, Any]]:
    """Single-trial R2 of the recorded-fed design minus that of the prediction-fed one, by seed."""
    contrasts = []
    for recorded, predicted in FED_TWINS.items():
        for truth in TRUTHS:
            where = {"mode": "oracle", "snr": snr, "truth": truth}
            pairs = [_values(found, "r2", **where, design=name) for name in (recorded, predicted)]
            if pairs[0] and len(pairs[0]) == len(pairs[1]):
                difference = [round(a - b, 5) for a, b in zip(*pairs, strict=True)]
                contrasts.append({"design": predicted, "truth": truth, "difference": difference})
    return contrasts


def markdown(found: list[Row]) -> str:
    """All tables, as the documentation shows them."""
    parts = []
    for snr in dict.fromkeys(row["snr"] for row in found if row["mode"] == "oracle"):
        parts.append(f"### Known drive, {snr} SNR: noise-free FEVE\n\n{_feve(found, mode='oracle', snr=snr)}")
        parts[-1] += f"\n\nExplained variance of single responses, median over neurons: {_reliability(found, snr)}."
        parts.append(f"### Known drive, {snr} SNR: norm of the coupling found, less that of the none-truth twin\n")
        parts[-1] += "\n" + _coupling(found, mode="oracle", snr=snr)
    for snr in dict.fromkeys(row["snr"] for row in found if row["mode"] == "oracle"):
        parts.append(f"### What the right designs recover, {snr} SNR\n\n{_recovered(found, snr)}")
    if parts:
        parts.append(f"### Recorded-fed minus prediction-fed, single-trial R2\n\n{_fed(found)}")
    for mode in ("learned", "frozen"):
        if any(row["mode"] == mode for row in found):
            parts.append(f"### Core {mode}, high SNR: noise-free FEVE\n\n{_feve(found, mode=mode, snr='high')}")
            parts.append(f"### Core {mode}: FEVE over the static control's, by seed\n\n{_gained(found, mode)}")
    parts.append(f"### Does the right design win its row?\n\n{_verdicts(found)}")
    return "\n\n".join(parts)


def _reliability(found: list[Row], snr: str) -> str:
    means = {t: mean_of(found, "explained_variance", snr=snr, truth=t) for t in TRUTHS}
    return ", ".join(f"{truth} {value:.2f}" for truth, value in means.items() if not np.isnan(value))


def _matrix(found: list[Row], entry: Callable[..., str], **where: Any) -> str:
    held = [row for row in found if _is(row, **where)]
    truths = [t for t in TRUTHS if any(row["truth"] == t for row in held)]
    designs = [d for d in DESIGNS if any(row["design"] == d for row in held)]
    lines = [["design \\ truth", *truths], ["---"] * (len(truths) + 1)]
    lines += [[f"`{d}`", *(entry(truth=t, design=d, **where) for t in truths)] for d in designs]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _feve(found: list[Row], **where: Any) -> str:
    def entry(**which: Any) -> str:
        value = mean_of(found, "feve", **which)
        text = "" if np.isnan(value) else f"{value:.3f}"
        return f"**{text}**" if text and which["design"] in right_designs(which["truth"]) else text

    return _matrix(found, entry, **where)


def _coupling(found: list[Row], **where: Any) -> str:
    def entry(**which: Any) -> str:
        value = mean_of(found, "less_twin.coupling_norm", **which)
        return "" if np.isnan(value) else f"{value:+.2f}{' *' if reports_coupling(found, **which) else ''}"

    return _matrix(found, entry, **where) + "\n\n\\* reports coupling"


def _recovered(found: list[Row], snr: str) -> str:
    """Beside the truth: exponent 2, tau .2 s, strength of history 6, of the pool 8 times the mean of its weighted E."""
    wanted = {
        "own_history": ("found exponent", "found tau_s", "found strength"),
        "pool": ("pool_corr", "found exponent", "found strength"),
        **dict.fromkeys(COUPLINGS, ("coupling_corr", "coupling_slope", "coupling_norm", "coupling_profile_corr")),
    }
    lines = ["| truth | design | score | value | less twin |", "|---|---|---|---|---|"]
    for truth, keys in wanted.items():
        for design in right_designs(truth):
            which = {"mode": "oracle", "snr": snr, "truth": truth, "design": design}
            for key in keys:
                value, less = mean_of(found, key, **which), mean_of(found, f"less_twin.{key}", **which)
                if not np.isnan(value):
                    lines.append(f"| {truth} | `{design}` | {key.removeprefix('found ')} | {value:.3f} | {less:+.3f} |")
    return "\n".join(lines)


def _gained(found: list[Row], mode: str) -> str:
    """What a design adds where its truth holds, and in the twins without a mechanism."""
    lines = ["| truth | design | mean | less twin | by seed | in the none-truth twins |", "|---|---|---|---|---|---|"]
    for truth, designs in LEARNED.items():
        for design in designs:
            here, twin = (_over_control(found, mode=mode, truth=t, design=design) for t in (truth, "none"))
            if here and design != CONTROL:
                name = f"**`{design}`**" if design in right_designs(truth) else f"`{design}`"
                both = [here[seed] - twin[seed] for seed in here if seed in twin]
                less = f"{np.mean(both):+.3f}" if both else ""
                mean = f"{np.mean(list(here.values())):+.3f}"
                lines.append(f"| {truth} | {name} | {mean} | {less} | {_signed(here)} | {_signed(twin)} |")
    return "\n".join(lines)


def _over_control(found: list[Row], *, design: str, **which: Any) -> dict[int, float]:
    """FEVE less the static control's, by seed."""
    own, control = (
        {row["seed"]: row["feve"] for row in found if _is(row, design=name, **which)} for name in (design, CONTROL)
    )
    return {seed: own[seed] - control[seed] for seed in own if seed in control}


def _signed(values: dict[int, float]) -> str:
    return ", ".join(f"{value:+.3f}" for value in values.values())


def _fed(found: list[Row]) -> str:
    lines = ["| SNR | design | truth | mean | by seed |", "|---|---|---|---|---|"]
    for snr in dict.fromkeys(row["snr"] for row in found if row["mode"] == "oracle"):
        for row in fed_contrast(found, snr):
            seeds = ", ".join(f"{v:+.4f}" for v in row["difference"])
            lines.append(
                f"| {snr} | `{row['design']}` | {row['truth']} | {np.mean(row['difference']):+.4f} | {seeds} |"
            )
    return "\n".join(lines)


def _verdicts(found: list[Row]) -> str:
    lines = [
        "| drive | SNR | truth | right design | best wrong design | margin | wins |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode, snr in (("oracle", "high"), ("oracle", "low"), ("learned", "high"), ("frozen", "high")):
        for v in verdicts(found, snr, mode):
            lines.append(
                f"| {mode} | {snr} | {v['truth']} | `{v['right']}` | `{v['best_wrong']}` | {v['margin']:+.3f} | "
                f"{'yes' if v['wins'] else 'no'} |"
            )
    return "\n".join(lines)
