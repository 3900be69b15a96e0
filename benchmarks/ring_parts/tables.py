"""Tables and verdicts out of the results of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Row = dict[str, Any]
COLUMNS: dict[str, Callable[[Row], float | None]] = {
    "MSE, last 200 updates": lambda r: r["mse_end"],
    "open-loop MSE": lambda r: r["open_loop_mse"],
    "open-loop MSE / constant's": lambda r: r["open_loop_mse"] / r["open_loop_mse_of_constant"],
    "velocity modulation, observed (median)": lambda r: r["modulation_observed"],
    "the same of the true units": lambda r: r["modulation_true"],
    "shifters + / -": lambda r: None,
    "correlation with W": lambda r: r["recurrent"]["correlation"]["score"],
    "its largest shuffled": lambda r: r["recurrent"]["correlation"]["null_max"],
    "profile correlation with W": lambda r: r["recurrent"]["profile"]["score"],
    "circulant R2": lambda r: r["recurrent"]["circulant_r2"]["score"],
    "its largest shuffled ": lambda r: r["recurrent"]["circulant_r2"]["null_max"],
    "gain-signed product with Wv": lambda r: _shifting(r, "correlation"),
    "its profile correlation": lambda r: _shifting(r, "profile"),
    "its circulant R2": lambda r: _shifting(r, "circulant_r2"),
    "its largest shuffled correlation": lambda r: r["shifting"]["correlation"]["null_max"] if "shifting" in r else None,
    "CPU seconds per 1000 updates": lambda r: r["cpu_seconds"] / r["updates"] * 1000,
}
GROUP = 0.2  # of the hidden units: what makes a group of shifters


def _shifting(row: Row, score: str) -> float | None:
    return row["shifting"][score]["score"] if "shifting" in row else None


def markdown(rows: list[Row]) -> str:
    """Mean and range over seeds, a column for each condition; then the claims, counted."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    lines = [
        "| | " + " | ".join(f"{c} ({_count(rows, c)})" for c in conditions) + " |",
        "|---" * (1 + len(conditions)) + "|",
    ]
    for name, value in COLUMNS.items():
        cells = [_cell(name, value, [row for row in rows if row["condition"] == c]) for c in conditions]
        lines.append(f"| {name.strip()} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *claims(rows)])


def claims(rows: list[Row]) -> list[str]:
    """Count in how many seeds each claim of the reference holds; one line each."""
    one, other = ({row["seed"]: row for row in rows if row["condition"] == c} for c in ("separated", "unseparated"))
    both = [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]
    found = {
        "observed units' median velocity modulation is below .02 when separated": [_still(a) for a in one.values()],
        "and above .1 when not": [row["modulation_observed"] > 0.1 for row in other.values()],
        "two opposite groups of shifters, each at least a fifth of the hidden units": [
            _groups(a) for a in one.values()
        ],
        "correlation and circulant R2 with the true W exceed the unseparated model's": [
            _exceeds(a, b) for a, b in both
        ],
        "and every one of the shuffled draws": [_beats_null(a) for a in one.values()],
    }
    return [f"- {claim}: {sum(held)} of {len(held)} seeds" for claim, held in found.items()]


def _still(row: Row) -> bool:
    return row["modulation_observed"] < 0.02


def _groups(row: Row) -> bool:
    return min(row["shifters_plus"], row["shifters_minus"]) >= GROUP * row["hidden"]


def _exceeds(a: Row, b: Row) -> bool:
    return all(a["recurrent"][k]["score"] > b["recurrent"][k]["score"] for k in ("correlation", "circulant_r2"))


def _beats_null(row: Row) -> bool:
    return all(row["recurrent"][k]["score"] > row["recurrent"][k]["null_max"] for k in ("correlation", "circulant_r2"))


def _count(rows: Iterable[Row], condition: str) -> str:
    seeds = sum(row["condition"] == condition for row in rows)
    return f"{seeds} seed" + "s" * (seeds != 1)


def _cell(name: str, value: Callable[[Row], float | None], rows: list[Row]) -> str:
    if name.startswith("shifters"):
        return ", ".join(f"{r['shifters_plus']} / {r['shifters_minus']}" for r in rows if r["hidden"]) or "-"
    found = [x for x in map(value, rows) if x is not None]
    if not found:
        return "-"
    return f"{np.mean(found):.3g} ({min(found):.3g} to {max(found):.3g})"
