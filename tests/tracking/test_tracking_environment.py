"""Provenance says which code ran, and nothing about the machine."""

import getpass
import platform
import subprocess
from importlib.metadata import version

import pytest

from neuroint.tracking import environment, provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that tracks the package's ``__init__.py``, with one commit."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "PACKAGE", package)
    monkeypatch.delenv("NEUROINT_GIT_COMMIT", raising=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "package/__init__.py")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    return package


def git(folder, *arguments):
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_and_uncommitted_changes_are_named(checkout):
    clean = provenance()
    assert (clean["git_commit"], clean["git_dirty"]) == (git(checkout, "rev-parse", "HEAD"), "false")
    (checkout / "__init__.py").write_text("x = 1\n")
    assert provenance()["git_dirty"] == "true"


def test_a_package_that_lies_untracked_in_somebody_elses_repository_has_no_commit(checkout, monkeypatch):
    installed = checkout.parent / "venv"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "PACKAGE", installed)
    assert (provenance()["git_commit"], provenance()["git_dirty"]) == ("unknown", "unknown")


def test_outside_a_checkout_and_without_git_the_commit_is_unknown_or_given(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("NEUROINT_GIT_COMMIT", raising=False)
    assert provenance()["git_commit"] == "unknown"
    monkeypatch.setenv("NEUROINT_GIT_COMMIT", "abc123")
    assert provenance()["git_commit"] == "abc123"


def test_versions_of_declared_dependencies_are_named_and_nothing_names_the_machine():
    found = provenance()
    for name in ("torch", "ray", "optuna", "mlflow", "numpy"):
        assert found[f"version.{name}"] == version(name)
    assert found["version.python"] == platform.python_version()
    assert "version.pytest" not in found  # a tool of development
    for value in found.values():
        assert platform.node() not in value
        assert "/" not in value
        assert getpass.getuser() not in value
