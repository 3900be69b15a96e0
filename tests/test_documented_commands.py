"""Every command that the documents print exists as it is printed, and those of the README do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from sweeps import record_of, write_question
from typer.testing import CliRunner

from neuroint.cli import app
from neuroint.config import Resources
from neuroint.sweep.cluster import cluster

ROOT = Path(__file__).resolve().parents[1]
SHELLS = ("", "sh", "bash")
OURS = ("neuroint", "make", "ray", "cluster/", "mlflow/")
DOCUMENTS = {  # file: commands in it; raise the number with every one that is added
    "README.md": 17,
    "CONTRIBUTING.md": 3,
    "Makefile": 2,
    "docs/real_data.md": 4,
    "docs/couplings.md": 3,
    "docs/cross_area.md": 8,
    "docs/stndt.md": 4,
    "docs/ring.md": 3,
    "docs/cores.md": 4,
    "cluster/jobs/README.md": 3,
    "cluster/local/README.md": 2,
    "mlflow/README.md": 3,
}
NEEDS_MORE = {  # commands of the README that are shown to work elsewhere
    "make": "cost minutes; `make demo` and `make test` are run on a fresh machine",
    "ray": "tests/test_jobs.py submits a sweep to a head",
    "run search_spaces/interactions.yaml": "costs hours; tests/smoke.py runs it at smoke size",
    "submission": "tests/test_submission.py asks for one after a sweep on generated files",
    "data convert": "tests/data/test_steinmetz.py converts generated files",
    "--resume": "tests/test_faults.py resumes sweeps that were killed",
}


def commands(document: str) -> list[str]:
    """Commands in fenced blocks without a language other than the shell's, in cells of tables, and in recipes."""
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```", text, flags=re.MULTILINE)
    fenced = [line.strip() for language, block in blocks if language in SHELLS for line in block.splitlines()]
    cells = re.findall(r"^\| `(neuroint [^`]*)` \|", text, flags=re.MULTILINE)
    recipes = re.findall(r"^\t\$\(BIN\)/(neuroint .*)", text, flags=re.MULTILINE)
    return [line for line in fenced + cells + recipes if re.sub(r"^(\w+=\S+\s+)*", "", line).startswith(OURS)]


def words_of(command: str) -> list[str]:
    """What follows ``neuroint``, also behind ``ray job submit ... --``; nothing of other programs."""
    words = shlex.split(command.replace(" ... ", " "), comments=True)
    return words[words.index("neuroint") + 1 :] if "neuroint" in words else []


def parse(words: list[str]) -> None:
    """Let the command line read a command without carrying it out; raises what it would answer."""
    command, context, name, rest = typer.main.get_command(app), None, "neuroint", list(words)
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


SPACES = [
    file.read_text().splitlines()[1].removeprefix("# ") for file in sorted((ROOT / "search_spaces").rglob("*.yaml"))
]
WRITTEN = [(document, command) for document in DOCUMENTS for command in commands(document)]
WRITTEN += [("search_spaces", command) for command in SPACES]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_known_number_of_commands_is_found(document):
    assert len(commands(document)) == DOCUMENTS[document], commands(document)


@pytest.mark.parametrize(("document", "command"), WRITTEN, ids=lambda text: text[:60])
def test_a_printed_command_exists_with_all_its_options(document, command):
    if words := words_of(command):
        parse(words)
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    if command.startswith("make "):
        assert command.split()[1] in targets
    for script in re.findall(r"(?:cluster|mlflow)/\S+\.(?:sh|yaml)", command):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("wrong", ["lst interactions", "run FILE --dta PATH", "unlock SWEEP", "run"])
def test_a_command_that_does_not_exist_would_be_noticed(wrong):
    with pytest.raises(Exception, match=r"No such (command|option)|Missing parameter"):
        parse(shlex.split(wrong))


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Carry out a printed command in this process, at the root of the repository; returns what it printed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(ROOT)
    places = {"PATH": tmp_path / "data", "FILE": tmp_path / "small.yaml", "SWEEP": tmp_path / "results" / "small"}
    places["images.npz"] = tmp_path / "images.npz"

    def run(command: str) -> str:
        words = [str(places.get(word, word)) for word in words_of(command)]
        if words[0] == "run":
            words += ["--results", str(tmp_path / "results"), "--name", "small", "--quiet"]
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, (command, found.output, found.exception)
        return found.stdout

    return run


def write_images(file: Path) -> None:
    """Still images with repeats, and the mapping beside them."""
    draw = np.random.default_rng(0)
    images, responses = draw.normal(size=(60, 16, 16)), draw.poisson(2, size=(60, 4, 5))
    np.savez(file, images=images.astype(np.float32), responses=responses.astype(np.float32))
    mapping = {"images": {"array": "images", "axes": "stimulus height width"}}
    mapping |= {"responses": {"array": "responses", "axes": "stimulus repeat neurons"}}
    file.with_suffix(".yaml").write_text(yaml.safe_dump(mapping))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_commands_of_the_readme_do_what_it_says(call, tmp_path):
    few = "--set sessions=2 --set neurons=8 --set train_clips=4 --set stimuli=1 --set repeats=2"
    call(f"neuroint data simulate v1 PATH --preset tiny {few}")
    write_question(tmp_path / "small.yaml", data={"reader": "sensorium2023"})
    write_images(tmp_path / "images.npz")
    readme = [c for c in commands("README.md") if not any(reason in c for reason in NEEDS_MORE)]
    with cluster(Resources(), cpus=1):  # which `run` and `unlock` would otherwise start and end one after the other
        said = {" ".join(command.split()[1:3]): call(command) for command in readme}
    expected = {
        "data inspect": "2 sessions of 2 animals, 16 neurons",
        "list interactions": "linear_autoregressive",
        "validate search_spaces": "search_spaces/v4.yaml: valid",
        "plan FILE": "hours of one worker",
        "plan search_spaces/interactions.yaml": "hours of one worker",
        "run FILE": "sweep finished",
        "report SWEEP": str(tmp_path / "results" / "small"),
        "ensemble SWEEP": "neurons better",
        "unlock SWEEP": "report:",
        "upload SWEEP": "everything has arrived",
    }
    assert said.keys() == expected.keys()
    assert [name for name, part in expected.items() if part not in said[name]] == []
    record = record_of(tmp_path / "results" / "small")
    assert {read["tier"] for read in record.test_reads} == {"dev_test", "final_test"}
    trained = [run for run in record.runs.values() if run.phase != "ensemble"]
    assert {len(run.epochs) for run in trained} == {1}, "--smoke trains one epoch"
