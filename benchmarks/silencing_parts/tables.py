"""Tables out of the rows of the benchmark ``silencing.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neuroint.analysis.attended import agreement_of_seeds

Row = dict[str, Any]
WAYS = {
    "matched": "most attended, matched controls",
    "any": "most attended, any controls",
    "zero": "most attended, silenced by zeros, matched controls",
    "drivers": "the true drivers, matched controls",
}
RELATIONS = {
    "mean ~ rate": "in-degree ~ mean rate",
    "mean ~ reliability": "in-degree ~ SNR",
    "mean ~ singly": "in-degree ~ cost of silencing it alone",
    "first ~ singly": "the same, in-degree of the first layer",
    "untrained ~ singly": "the same, in-degree before training",
    "mean ~ told": "in-degree ~ what its record alone tells",
    "mean ~ drives": "in-degree ~ how much it drives held-out neurons",
    "singly ~ told": "cost of silencing it alone ~ what its record alone tells",
    "singly ~ drives": "cost of silencing it alone ~ how much it drives",
}
KINDS = {"plain": "", "given": ", given rate and SNR"}
AGREEMENTS = {"mean": "trained", "first": "trained, first layer", "untrained": "not trained"}


def markdown(rows: list[Row]) -> str:
    """What silencing costs, what goes with in-degree, and how far seeds agree."""
    groups = {
        f"{world}, `{core}`": [row for row in rows if (row["world"], row["core"]) == (world, core)]
        for world, core in dict.fromkeys((row["world"], row["core"]) for row in rows)
    }
    compared = all(len(held) > 1 for held in groups.values())  # seeds
    return "\n\n".join(table(groups) for table in (_costs, _relations, *([_agreements] if compared else [])))


def _costs(groups: dict[str, list[Row]]) -> str:
    head = (
        "| fitted to, core | silenced, compared with | co-bps | lost | controls lose | difference | p of each seed | "
    )
    lines = [head + "caution |", "|" + "---|" * 8]
    for name, rows in groups.items():
        for way, about in WAYS.items():
            held = [row[way] for row in rows if way in row]
            if held:
                numbers = [_mean([row["co_bps"] for row in rows], "{:.3f}")]
                numbers += [_mean([one[key] for one in held], "{:.3f}") for key in ("lost", "controls", "difference")]
                tested = "; ".join(f"{_p(one['p'])}, {_span(one['interval'])}" for one in held)
                lines.append(f"| {name} | {about} | {' | '.join(numbers)} | {tested} | {_cautions(held)} |")
    return "\n".join([*lines, *_drivers(groups)])


def _drivers(groups: dict[str, list[Row]]) -> list[str]:
    """Count true drivers among the most attended neurons, and say how many there would be by chance."""
    lines = []
    for name, rows in groups.items():
        found = [len(set(row["chosen"]) & set(row["hubs"])) for row in rows]
        if hubs := len(rows[0]["hubs"]):
            chance = rows[0]["k"] * hubs / len(rows[0]["singly"])
            told = ", ".join(map(str, found))
            lines.append(
                f"{name}: {told} of the {hubs} true drivers are among the most attended ({chance:.1f} by chance)."
            )
    return ["", *lines] if lines else []


def _relations(groups: dict[str, list[Row]]) -> str:
    lines = ["| Spearman's correlation over held-in neurons | " + " | ".join(groups) + " |"]
    lines.append("|" + "---|" * (len(groups) + 1))
    for name, about in RELATIONS.items():
        kinds = {"given": ", given rate and SNR"} if about.startswith("the same") else KINDS
        for kind, more in kinds.items():
            held = [[row["relations"][name].get(kind) for row in rows] for rows in groups.values()]
            if all(found[0] is not None for found in held):
                lines.append(f"| {about}{more} | " + " | ".join(_tested(found) for found in held) + " |")
    return "\n".join(lines)


def _agreements(groups: dict[str, list[Row]]) -> str:
    lines = ["| mean correlation of in-degree between seeds | " + " | ".join(groups) + " |"]
    lines.append("|" + "---|" * (len(groups) + 1))
    given: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
        "": lambda traits: None,
        ", given rate": lambda traits: traits[:, :1],
        ", given rate and SNR": lambda traits: traits,
    }
    for kind, about in AGREEMENTS.items():
        for more, some in given.items():
            found = [
                agreement_of_seeds(np.array([row["degrees"][kind] for row in rows]), some(np.array(rows[0]["traits"])))
                for rows in groups.values()
            ]
            cells = [f"{one.correlation:.2f} (p {_p(one.p)}, W {one.kendall_w:.2f})" for one in found]
            lines.append(f"| {about}{more} | " + " | ".join(cells) + " |")
    for kind, about in AGREEMENTS.items():
        spreads = [[np.std(row["degrees"][kind]) / np.mean(row["degrees"][kind]) for row in r] for r in groups.values()]
        lines.append(
            f"| *SD of in-degree over its mean*, {about} | " + " | ".join(_mean(x, "{:.2f}") for x in spreads) + " |"
        )
    return "\n".join(lines)


def _tested(found: list[list[float]]) -> str:
    """Mean and range of correlations, and how many of them are told from 0."""
    small = sum(p < 0.05 for _, p in found)
    return f"{_mean([r for r, _ in found], '{:.2f}')}; {small} of {len(found)}"


def _mean(values: Sequence[Any], form: str) -> str:
    told = [form.format(x) for x in (np.mean(values), min(values), max(values))]
    return f"{told[0]} ({told[1]} to {told[2]})"


def _span(interval: list[float]) -> str:
    return " to ".join(f"{x:.3f}" for x in interval)


def _p(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _cautions(held: list[Row]) -> str:
    marked = [number for number, one in enumerate(held) if one["caution"]]
    return f"seeds {', '.join(map(str, marked))}: {held[marked[0]]['caution']}" if marked else ""
