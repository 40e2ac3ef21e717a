"""Ranges, pins, checks and the workflow say the same; the site is built without a warning."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def ranges() -> dict[str, Requirement]:
    """The requirements of setup.cfg, those of the extras too, by normal name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    lines += [line for extra in setup["options.extras_require"].values() for line in extra.splitlines()]
    return {normal(found.name): found for found in (Requirement(line) for line in lines if line)}


def pins(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_pins_lie_in_the_ranges():
    allowed, pinned = ranges(), pins("constraints.txt")
    assert len(pinned) > 30
    for pin in pinned:
        version = next(iter(pin.specifier)).version
        if normal(pin.name) in allowed:
            assert version in allowed[normal(pin.name)].specifier, pin
    missing = set(allowed) - {normal(pin.name) for pin in pinned}
    assert not missing, f"not pinned: {missing}"


def test_the_oldest_versions_are_the_lower_ends():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = {normal(Requirement(line).name) for line in setup["options"]["install_requires"].split("\n") if line}
    oldest = {normal(pin.name): next(iter(pin.specifier)).version for pin in pins("constraints-oldest.txt")}
    assert set(oldest) == required
    for name, version in oldest.items():
        (lowest,) = [bound for bound in ranges()[name].specifier if bound.operator == ">="]
        assert Requirement(f"x=={lowest.version}").specifier.contains(version), name


def test_the_workflow_runs_the_supported_pythons():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    pythons = jobs["newest"]["strategy"]["matrix"]["python"]
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert f"python_requires = >={pythons[0]}" in setup
    assert jobs["oldest"]["env"] == jobs["newest"]["env"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert jobs["oldest"]["steps"][1]["with"]["python-version"] == pythons[0]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for step in steps:
        for line in re.findall(r"make ([a-z ]+)", step.get("run", "")):
            assert set(line.split()) <= set(targets)


def test_hooks_are_the_checks_of_make():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        assert f"$(VENV)/bin/{hook['name']}" in makefile, hook["name"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs", "."]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "docs/api.html").read_text(encoding="utf-8")
    assert 'id="pair_pkg.pairs.load_scorer"' in page and 'id="pair_pkg.adapt"' in page
    assert (tmp_path / "docs/search.html").is_file() and (tmp_path / "README.html").is_file()
