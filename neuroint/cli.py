"""The command line: validate, plan, run, report, ensemble, unlock, upload, data, list.

Exit codes: 0 done; 1 a fault of the program (with its traceback); 2 bad input (nothing was trained); 3 the sweep ended,
but runs failed; 4 the sweep failed; 130 interrupted (``--resume`` goes on).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Look at recordings, and simulate them.")
app.add_typer(data_app, name="data")

BAD_INPUT, FAILED_RUNS, FAILED_SWEEP, INTERRUPTED = 2, 3, 4, 130
ENDS = {"finished": 0, "failed": FAILED_SWEEP, "interrupted": INTERRUPTED}

File = Annotated[Path, typer.Argument(help="A search space (YAML).", show_default=False)]
Sweep = Annotated[Path, typer.Argument(help="The folder of a sweep.", show_default=False)]
Data = Annotated[str | None, typer.Option("--data", help="Recordings; overrides data.path.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: a.b=value.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="One trial and one epoch per arm.")]
Tracking = Annotated[str | None, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address.")]
Cpus = Annotated[int | None, typer.Option("--cpus", help="CPUs of the local cluster.")]


@app.command()
def validate(paths: Annotated[list[Path], typer.Argument(help="Files or folders.")], as_json: AsJson = False) -> None:
    """Check search spaces without data: every fault of every file at once."""
    from neuroint.config import ConfigError, load_sweep

    files = [file for path in paths for file in (sorted(path.rglob("*.yaml")) if path.is_dir() else [path])]
    faults: dict[str, list[str]] = {}
    for file in files:
        try:
            load_sweep(file)
            faults[str(file)] = []
        except ConfigError as error:
            faults[str(file)] = error.faults
    if not files:
        faults = {str(path): ["holds no .yaml file"] for path in paths}
    lines = [
        f"{file}: {'valid' if not found else ''}" + "".join(f"\n  - {f}" for f in found)
        for file, found in faults.items()
    ]
    _print(faults, "\n".join(lines), as_json)
    raise typer.Exit(BAD_INPUT if any(faults.values()) else 0)


@app.command()
def plan(file: File, data: Data = None, sets: Sets = None, smoke: Smoke = False, as_json: AsJson = False) -> None:
    """Build every arm and range corner with the data's facts, take one step, and print what the sweep will cost."""
    with _bad_input():
        _plan(file, data, sets, smoke, as_json)


def _plan(file: Path, data: str | None, sets: list[str] | None, smoke: bool, as_json: bool) -> None:
    from neuroint.config import load_sweep
    from neuroint.data.opening import read_through
    from neuroint.recordings import open_data
    from neuroint.sweep.planning import plan_sweep, summarize_arms, untestable

    sweep = load_sweep(file, tuple(sets or ()), data, smoke)
    sessions = open_data(sweep.data)
    read_through(sessions)
    summarize_arms(sweep, sessions)
    print(f"one step of every corner of {len(sweep.arms)} arms", file=sys.stderr)
    arms = plan_sweep(sweep, sessions, lambda arm: print(f"  {arm}", file=sys.stderr))
    width = max(len(a.name) for a in arms) + 2
    head = f"{'arm':<{width}}{'information':<18}  parameters  GFLOP/step  trials  corners   s/step      MB   hours"
    rows = [
        f"{a.name:<{width}}{a.information:<18}{a.parameters:>12,}{a.flops_per_step / 1e9:>12.2f}{a.trials:>8}"
        f"{a.corners:>9}{a.seconds_per_step:>9.3f}{a.peak_memory_mb:>8.0f}{a.hours:>8.2f}"
        for a in arms
    ]
    notes = [f"not matched to {sweep.reference}: {a.name}: {a.unmatched}" for a in arms if a.unmatched]
    end = f"{sum(a.hours for a in arms):.2f} hours of one worker on this CPU; divide by the trials that run at once"
    _print([a.as_dict() for a in arms], "\n".join([head, *rows, *notes, end]), as_json)
    if warning := untestable(sessions):
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def run(
    file: File,
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep's folder; by default file name and time.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of all results.")] = Path("results"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep of that --name, if there is one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only.")] = False,
    sets: Sets = None,
    smoke: Smoke = False,
    tracking_uri: Tracking = None,
    cpus: Cpus = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final table only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search, confirm and score every arm of a question, and write the report."""
    from neuroint.config import load_sweep
    from neuroint.sweep.driver import run_sweep

    if dry_run:
        plan(file, data, sets, smoke, as_json)
        return
    with _bad_input():
        if resume and name is None:
            raise ValueError("--resume needs --name: the folder of the interrupted sweep inside --results")
        sweep = load_sweep(file, tuple(sets or ()), _absolute(data), smoke)
        folder = results.resolve() / (name or f"{sweep.name}-{datetime.now():%Y%m%d-%H%M%S}")
        style = "quiet" if quiet else "json" if as_json else "bars" if sys.stderr.isatty() else "lines"
        outcome = run_sweep(sweep, folder, tracking_uri=tracking_uri, resume=resume, cpus=cpus, style=style)
    _finish(outcome, tracking_uri, as_json)


def _finish(outcome: Any, tracking_uri: str | None, as_json: bool) -> None:
    """Print the table of arms, what failed, and where to look; exit with the code that says how it went."""
    from neuroint.report import analyse, table
    from neuroint.tracking import default_uri, ui_command

    folder, findings = outcome.folder, analyse(outcome.folder)
    ui = ui_command(tracking_uri or default_uri(folder.parent))
    resume = f"neuroint run {folder / 'sweep.yaml'} --results {folder.parent} --name {folder.name} --resume"
    if as_json:
        plain = {name: getattr(outcome, name) for name in ("folder", "status", "message", "failed", "report")}
        waits = {"not_in_mlflow": outcome.pending.message if outcome.pending else None}
        print(json.dumps(plain | waits | {"mlflow": ui, "resume": resume, "findings": findings.as_dict()}, default=str))
    else:
        _rich(table(findings))
        print(f"sweep {outcome.status}" + (f": {outcome.message.strip()}" if outcome.message else ""))
        print(
            "".join(f"failed: {key} (its traceback is in the report and in MLflow)\n" for key in outcome.failed), end=""
        )
        print(f"{outcome.pending.message}\n" if outcome.pending else "", end="")
        print(f"go on with: {resume}\n" if outcome.status != "finished" else "", end="")
        print(f"report: {outcome.report or 'not written'}\ncompare runs: {ui}")
    raise typer.Exit(ENDS[outcome.status] or (FAILED_RUNS if outcome.failed else 0))


@app.command()
def report(sweep: Sweep, format: Annotated[str, typer.Option(help="html, md or json.")] = "html") -> None:
    """Write the report of a sweep from what its folder holds."""
    from neuroint.report import write_report

    with _bad_input():
        _need_sweep(sweep)
        print(write_report(sweep, format))


@app.command()
def ensemble(
    sweep: Sweep,
    arms: Annotated[list[str] | None, typer.Option("--arm", help="Which arms; by default all.")] = None,
    most: Annotated[int, typer.Option("--max", help="Runs of an arm that are averaged at most.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Average the rates of each arm's best runs, as many as validation says, and read dev-test once with them."""
    from neuroint.sweep import ensembling

    with _bad_input():
        _need_sweep(sweep)
        tell = lambda arm: print(f"averaging runs of {arm}", file=sys.stderr)  # noqa: E731
        found = ensembling.ensemble_arms(sweep.resolve(), arms, most, tell)
    _print(ensembling.as_json(found), ensembling.render(found), as_json)


@app.command()
def submission(
    sweep: Sweep,
    out: Annotated[Path, typer.Argument(help="HDF5 file, new or with other data sets.")],
    arm: Annotated[str, typer.Option(help="Whose ensemble, or best run by validation, predicts.")],
) -> None:
    """Write what an arm predicts as the Neural Latents Benchmark takes it, rates per bin; scores nothing."""
    from neuroint.sweep.submission import write_arm

    with _bad_input():
        _need_sweep(sweep)
        runs = write_arm(sweep.resolve(), arm, out)
    print(f"{out}: rates of {', '.join(runs)}")


@app.command()
def unlock(
    sweep: Sweep,
    reason: Annotated[str, typer.Option(help="Why the final test is read now.")],
    tracking_uri: Tracking = None,
    cpus: Cpus = None,
) -> None:
    """Read the final test of a finished sweep, once, and log it."""
    from neuroint.data.base import FINAL_TEST
    from neuroint.report import analyse, table
    from neuroint.sweep.driver import unlock as read_final_test

    with _bad_input():
        _need_sweep(sweep)
        file = read_final_test(sweep.resolve(), reason, tracking_uri=tracking_uri, cpus=cpus)
    _rich(table(analyse(sweep), FINAL_TEST))
    print(f"report: {file}")


@app.command()
def upload(sweep: Sweep, tracking_uri: Tracking = None) -> None:
    """Send to MLflow what it has not received of a sweep."""
    from neuroint.sweep.driver import upload as send

    with _bad_input():
        _need_sweep(sweep)
        pending = send(sweep.resolve(), tracking_uri)
    print(pending.message if pending else "everything has arrived")
    raise typer.Exit(FAILED_RUNS if pending else 0)


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(help="cores, readouts, normalizations, links, ... or all.")] = "all",
    as_json: AsJson = False,
) -> None:
    """List components: name, what it does to the data, and every choice with its default."""
    from neuroint import registry

    registries = {k: v for k, v in vars(registry).items() if isinstance(v, registry.Registry)}
    if kind not in (known := ("all", *registries)):
        with _bad_input():
            raise ValueError(f"'{kind}' is not a list.{registry.nearest(kind, known)} Lists: {', '.join(known)}")
    chosen = {key: held for key, held in registries.items() if kind in ("all", key)}
    found = {key: {name: _describe(entries[name]) for name in entries.names()} for key, entries in chosen.items()}
    lines: list[str] = []
    for key, entries in found.items():
        lines.append(key)
        for name, about in entries.items():
            choices = (f"      {choice} = {default}" for choice, default in about["choices"].items())
            lines += [f"  {name:<24} {about['summary']}", *choices]
    _print(found, "\n".join(lines), as_json)


def _describe(component: Any) -> dict[str, Any]:
    return {
        "summary": component.summary,
        "choices": {name: repr(choice.default) for name, choice in component.choices.items()},
        "facts": list(component.facts),
    }


@data_app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Recordings.")],
    reader: Annotated[str, typer.Option(help="How they are read.")] = "auto",
    mapping: Annotated[Path | None, typer.Option(help="YAML of roles, or a search space.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="role=array, in place of a mapping file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the card into this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a card of a data set: sessions, tiers, repeats, responses, SNR, and every fault found."""
    from neuroint.data.base import DataError
    from neuroint.data.card import inspect as make_card
    from neuroint.data.card import render
    from neuroint.data.card_figure import draw
    from neuroint.data.opening import find_faults, open_sessions

    with _bad_input():
        options = _reading_options(mapping, role)
        faults = find_faults(path, reader, options)
        try:
            sessions = open_sessions(path, reader, options)
            card = make_card(sessions, faults)
        except DataError:
            if not faults:
                raise
            sessions, card = [], make_card([], faults)  # what hinders it is among them
        if figure is not None and sessions:
            draw(card, sessions, figure)
    if figure is not None and not sessions:
        print(f"{figure} was not drawn: the recordings cannot be opened with these faults", file=sys.stderr)
    _print(card.as_dict(), render(card), as_json)
    raise typer.Exit(BAD_INPUT if card.faults else 0)


def _reading_options(mapping: Path | None, role: list[str] | None) -> dict[str, Any]:
    """Put a mapping file, or the options under ``data`` in a search space, and single roles together."""

    from neuroint.data.mapping import read_mapping

    read = read_mapping(mapping) if mapping else {}
    options = dict(read["data"].get("options", {})) if isinstance(read.get("data"), dict) else {"mapping": read}
    roles = dict(_role(text) for text in role or ())
    found = {**(options.get("mapping") or {}), **roles}
    return {**options, "mapping": found} if found else {}


def _role(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, array = text.partition("=")
    if not equals:
        raise ValueError(f"--role got {text!r}, expected role=array, such as responses=spikes")
    return name, yaml.safe_load(array)


@data_app.command()
def simulate(
    world: Annotated[str, typer.Argument(help="Which simulator: v1, ring, torus or nlb.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    preset: Annotated[str, typer.Option(help="tiny, test, or the largest: bench (v1) or reference.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Any other choice: name=value.")] = None,
) -> None:
    """Simulate sessions with known truth, in the layout of real recordings."""
    import yaml

    from neuroint.registry import simulators

    with _bad_input():
        options = {"preset": preset, "seed": seed}
        options |= {name: yaml.safe_load(value) for name, value in map(_choice, sets or ())}
        component = simulators[world]
        choices, faults = component.validate(options)
        if faults:
            raise ValueError(f"simulator '{world}': " + "; ".join(faults))
        print(component.factory(out, **choices))
    print(f"look at it: neuroint data inspect {out}", file=sys.stderr)


def _choice(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set got {text!r}, expected name=value, such as neurons=50")
    return name, value


@data_app.command()
def convert(
    layout: Annotated[str, typer.Argument(help="Which layout: steinmetz.")],
    parts: Annotated[list[Path], typer.Argument(help="The published files, in their order.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Write recordings published as pickled objects as plain arrays, once. This unpickles the files, which can run any
    code that is in them: convert only what you trust. Nothing else in this program unpickles.
    """
    from neuroint.data.neuromatch import CONVERTERS
    from neuroint.registry import nearest

    with _bad_input():
        if layout not in CONVERTERS:
            known = ", ".join(CONVERTERS)
            raise ValueError(
                f"'{layout}' is not a layout that is converted.{nearest(layout, CONVERTERS)} Known: {known}"
            )
        print(f"unpickling {', '.join(map(str, parts))}: this runs whatever code is in them", file=sys.stderr)
        print("\n".join(map(str, CONVERTERS[layout](parts, out))))


def _absolute(data: str | None) -> str | None:
    """Fix where recordings are while it is known what a relative path is relative to."""
    return data if data is None or "://" in data else str(Path(data).resolve())


def _need_sweep(folder: Path) -> None:
    if not (folder / "journal.jsonl").is_file():
        inside = ", ".join(str(file.parent) for file in sorted(folder.glob("*/journal.jsonl")))
        hint = f"sweeps in it: {inside}" if inside else "it is printed at the end of a run"
        raise ValueError(f"{folder} is not the folder of a sweep (no journal.jsonl); {hint}")


@contextmanager
def _bad_input() -> Iterator[None]:
    """Print one message for what the user can mend, and exit with its code; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _print(plain: Any, text: str, as_json: bool) -> None:
    print(json.dumps(plain, default=str) if as_json else text)


def _rich(renderable: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160"))).print(renderable)


if __name__ == "__main__":
    app()
