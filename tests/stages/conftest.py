"""Doors as a shell sees them, and folders of finished runs, made of drawn scores: nothing is trained."""

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.pairs.decision import fit_decision, save_decision
from pair_pkg.records import write_json, write_record
from pair_pkg.stages.pair_evaluation import evaluate_test, write_worst
from pair_pkg.stages.pair_testing import ScoredPairs, evaluate_calibration
from pair_pkg.stages.predictions import TEST_NAME, write_predictions

SCHEMES = {
    "binary": LabelScheme("binary", ["no", "yes"]),
    "classes": LabelScheme("classes", ["same", "near", "other"]),
    "scores": LabelScheme("scores", low=0.0, high=5.0),
}
NUM_PAIRS = 90


def drawn_pairs(scheme, seed, texts):
    draw = np.random.default_rng(seed)
    if scheme.kind == "scores":
        labels = np.round(draw.uniform(0, 5, NUM_PAIRS), 2).astype(np.float32)
    else:
        labels = draw.integers(scheme.num_classes, size=NUM_PAIRS)
    first = [texts[n] if n < len(texts) else f"the pump number {n} leaks" for n in range(NUM_PAIRS)]
    second = [f"pump {n} is not tight" for n in range(NUM_PAIRS)]
    return Pairs(first, second, labels, [f"pairs.csv:{n + 2}" for n in range(NUM_PAIRS)])


def drawn_scores(scheme, labels, seed):
    draw = np.random.default_rng(seed)
    if scheme.kind == "classes":
        return np.eye(scheme.num_classes)[labels] * 1.5 + draw.normal(size=(len(labels), scheme.num_classes))
    return (labels * 2 - 1 if scheme.kind == "binary" else labels) + draw.normal(scale=1.2, size=len(labels))


@pytest.fixture
def door(capfd, monkeypatch):
    """``door(main, words)``: exit status and standard error of a command, with a log handler of its own."""

    def call(main, words):
        monkeypatch.setattr(logging.getLogger("pair_pkg"), "handlers", [])
        status = run_door(main, [str(word) for word in words])
        return status, capfd.readouterr().err

    return call


@pytest.fixture
def refusal(door, tmp_path):
    """``refusal(main, words)``: the one line of a refused command that left the output folder as it was."""
    out = tmp_path / "out"

    def call(main, words):
        before = snapshot(out)
        status, errors = door(main, words)
        assert status == EXIT_BAD_INPUT, errors
        assert "Traceback" not in errors
        assert snapshot(out) == before
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, errors
        assert errors.splitlines()[-1] == lines[0]
        return lines[0]

    return call


def snapshot(folder: Path) -> dict[str, bytes] | None:
    if not folder.exists():
        return None
    files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a test that asks for it is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on the path (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has none
        yield chromium
        chromium.close()


@pytest.fixture
def pairs_run(tmp_path):
    """``pairs_run(name, kind, seed=, texts=)`` writes the folder of a run of stage 2; gives its path."""

    def write(name, kind="binary", seed=0, texts=(), **changes):
        scheme, folder = SCHEMES[kind], tmp_path / name
        folder.mkdir(parents=True)
        pairs = drawn_pairs(scheme, 1, list(texts))
        scored = ScoredPairs("test", pairs, drawn_scores(scheme, pairs.labels, seed))
        decision = fit_decision(kind, scored.scores, pairs.labels, are_cosines=False, decide_by="accuracy")
        metrics = {"train_runtime": 61.0, **evaluate_test(scheme, decision, pairs, scored, {})}
        if decision is not None:
            metrics["decision"] = dataclasses.asdict(decision)
            validation = dataclasses.replace(scored, name="validation")
            metrics["calibration"] = evaluate_calibration(decision, False, [validation, scored])
        write_predictions(folder / TEST_NAME, pairs, scheme, scored.scores, decision)
        write_worst(folder, scheme, decision, scored)
        save_decision(decision, folder)
        history = [{"step": 1, "loss": 0.7, "learning_rate": 1e-3}, {"step": 2, "loss": 0.5, "learning_rate": 5e-4}]
        history += [{"step": 2, "eval_loss": 0.6, "eval_accuracy": 0.75, "eval_spearman": 0.5}]
        write_json(folder / "log_history.json", history)
        record = {
            "status": "finished",
            "stage": "pairs",
            "identity": {"seed": seed, "test_pairs": "abc", "learning_rate": 1e-3},
            "base_model": "runs/mlm",
            "lineage": {"stage": "mlm", "base_model": "someone/base-encoder", "lineage": None},
            "architecture": "cross_encoder",
            "labels": scheme.to_json(),
            "pairs": {"pairs": {"train": NUM_PAIRS, "test": NUM_PAIRS}, "leaks": 0},
            "threshold": decision and decision.threshold,
            "global_step": 2,
            "metrics": metrics,
        }
        write_record(folder, record | changes)
        return folder

    return write


@pytest.fixture
def mlm_run(tmp_path):
    """``mlm_run(name, before=, after=)`` writes the folder of a run of stage 1; gives its path."""

    def write(name, before=812.5, after=41.25):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        history = [{"step": 0, "eval_loss": 6.7, "eval_perplexity": before}]
        history += [{"step": 5, "loss": 4.0, "learning_rate": 1e-4, "tokens_per_second": 1500.0}]
        write_json(folder / "log_history.json", [*history, {"step": 5, "eval_loss": 3.7, "eval_perplexity": after}])
        metrics = {"before": {"eval_perplexity": before}, "eval_perplexity": after, "eval_predicted_tokens": 706}
        bands = {
            side: {"rarer": {"tokens": 706, "accuracy_at_1": share, "accuracy_at_5": share + 0.25}}
            for side, share in {"base": 0.125, "adapted": 0.375}.items()
        }
        guesses = [{"context": "the [MASK] <b>leaks</b>", "token": "pump", "base": ["the"], "adapted": ["pump"]}]
        sweep = {alpha: {"perplexity": 50.0, "probe": 0.5} for alpha in ("0.0", "0.5", "1.0")}
        metrics |= {"masked_slices": bands, "fill_mask": guesses, "weight_movement": {"layer 1": 0.0125}}
        metrics["merge"] = {"alpha": 0.5, "sweep": sweep}
        corpus = {"documents_read": 84_000, "documents_kept": 83_990, "duplicates": 10}
        record = {"stage": "mlm", "base_model": "someone/base-encoder", "corpus": corpus, "metrics": metrics}
        write_record(folder, {"status": "finished", "global_step": 5, **record})
        return folder

    return write


@pytest.fixture
def pipeline_run(mlm_run, pairs_run, tmp_path):
    """The folder of a finished pipeline; gives its path and its results."""
    from pair_pkg.stages import pipeline

    adapted_dir = mlm_run("demo/mlm")
    folders = {}
    for name, seed in (("base", 3), ("adapted", 4)):
        pairs_run(f"demo/{name}", seed=seed)
        folders[name] = [pairs_run(f"demo/{name}/seed-1", seed=seed)]
    results = pipeline.compare(folders, [1], adapted_dir)
    write_json(tmp_path / "demo" / "results.json", results)
    return tmp_path / "demo", results
