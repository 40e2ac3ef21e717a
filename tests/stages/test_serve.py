"""The page of ``serve`` without a browser: what it says of pairs and sentences, and the folder of a Space."""

import configparser
import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pair_pkg.__main__ import main as command
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import load_tokenizer
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.records import read_json, read_record, write_record
from pair_pkg.stages import serve, space

pytest.importorskip("gradio", reason="gradio is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path, tiny_bi_encoder, tiny_documents):
    """Folder of an index of a few texts."""
    (tmp_path / "texts.txt").write_text("\n".join([*tiny_documents[:20], "<b>the old pump</b>"]), encoding="utf-8")
    command(["index", str(tmp_path / "texts.txt"), "--model", tiny_bi_encoder, "--output", str(tmp_path / "index")])
    return str(tmp_path / "index")


def test_a_pair_is_judged_as_score_judges_it(tiny_cross_encoder):
    scorer = load_scorer(tiny_cross_encoder)
    pair = ("the old pump leaks", "水泵漏水")
    judged, verdict = serve.judging(scorer, tiny_cross_encoder)(*pair), scorer.predict_one(*pair)
    assert judged.verdict == verdict.verdict
    assert judged.probabilities == pytest.approx({"1": verdict.probability, "0": 1 - verdict.probability})
    assert f"{verdict.probability:.3f}" in judged.details and f"{len(judged.tokens)} tokens" in judged.details


def test_an_ensemble_is_judged_as_its_members_mean(tiny_cross_encoder, tmp_path):
    for name in ("fold-1", "fold-2"):
        shutil.copytree(tiny_cross_encoder, tmp_path / name)
    write_record(tmp_path, {"labels": read_record(tiny_cross_encoder)["labels"], "members": ["fold-1", "fold-2"]})
    save_decision(Decision("binary", temperature=1.0, threshold=0.5), tmp_path)
    pair = ("the old pump leaks", "a small valve sticks")
    alone = load_scorer(tiny_cross_encoder).predict_one(*pair)
    judged = serve.judging(load_scorer(str(tmp_path)), str(tmp_path))(*pair)
    assert judged.verdict == alone.verdict and judged.probabilities["1"] == pytest.approx(alone.probability)
    assert judged.tokens[0] == ("[CLS]", "special")
    assert serve._about(str(tmp_path), None) == f"{tmp_path.name}: an ensemble of models"


def test_scores_have_no_probability(tiny_cross_encoder, tmp_path):
    shutil.copytree(tiny_cross_encoder, tmp_path / "model")
    (tmp_path / "model/decision.json").unlink()
    scorer = load_scorer(str(tmp_path / "model"))
    judged = serve.judging(scorer, str(tmp_path / "model"))("the old pump leaks", "a small valve sticks")
    assert judged.probabilities == {} and float(judged.verdict) == pytest.approx(
        scorer.predict_one("the old pump leaks", "a small valve sticks").score, rel=1e-3
    )


def test_tokens_are_those_that_the_model_reads(tiny_bert):
    tokenizer = load_tokenizer(tiny_bert)
    together = serve.token_parts(tokenizer, "the old pump", "水泵", 40, together=True)
    assert [token for token, _ in together] == tokenizer("the old pump", "水泵").tokens()
    assert together[0] == ("[CLS]", "special") and together[1] == ("the", "sentence 1")
    assert together[-2][1] == "sentence 2" and together[-1] == ("[SEP]", "special")
    apart = serve.token_parts(tokenizer, "the old pump", "水泵", 40, together=False)
    assert [token for token, whose in apart if whose == "special"] == ["[CLS]", "[SEP]"] * 2
    assert {whose for _, whose in apart} == {"special", "sentence 1", "sentence 2"}
    assert len(serve.token_parts(tokenizer, "the old pump " * 30, "水泵", 20, together=True)) == 20


def test_neighbours_are_judged_by_the_model(index, tiny_cross_encoder, tiny_bi_encoder):
    scorer = load_scorer(tiny_cross_encoder)
    answer = serve._finding(index, tiny_bi_encoder, 5, scorer, tiny_cross_encoder)("the old pump")
    assert len(answer.hits) == 5
    for hit in answer.hits:
        verdict = scorer.predict_one("the old pump", hit.text)
        assert hit.probability == pytest.approx(verdict.probability, abs=1e-5)
        assert hit.same == (verdict.verdict == "1")
    probabilities = [hit.probability for hit in answer.hits]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top_k", "0"], "--top_k 0: give at least 1"),
        (["--port", "0"], "--port 0 is out of range"),
        (["--encoder", "x"], "give --index with it"),
        (["--index", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_cross_encoder, words, message):
    with pytest.raises(InputError, match=re.escape(message)):
        serve.main(["--model", tiny_cross_encoder, *words])


def test_without_gradio_the_extra_is_named(tiny_cross_encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # its import fails
    monkeypatch.delitem(sys.modules, "pair_pkg.stages.serve_page", raising=False)
    monkeypatch.delattr(importlib.import_module("pair_pkg.stages"), "serve_page", raising=False)
    with pytest.raises(InputError, match=r"pip install 'pair-pkg\[serve\]'"):
        serve.main(["--model", tiny_cross_encoder])


def test_a_space_holds_all_it_needs_and_nothing_else(index, tiny_cross_encoder, tiny_bi_encoder, tmp_path):
    record = read_record(tiny_cross_encoder)
    folder = tmp_path / "space"
    made = serve.main(["--model", tiny_cross_encoder, "--index", index, "--write_space", str(folder)])
    assert made == str(folder) and read_record(tiny_cross_encoder) == record
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "app.py", "requirements.txt", ".gitattributes", "model", "index", "encoder", "pair_pkg",
    }  # fmt: skip
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py") and re.fullmatch(
        r"\d+\.\d+\.\d+", front["sdk_version"]
    )
    assert "`model/`" in card
    app = (folder / "app.py").read_text(encoding="utf-8")
    assert '"--model", "model"' in app and '"--encoder", "encoder"' in app
    manifest = read_json(folder / "index/manifest.json")
    assert manifest["model"]["name"] == "encoder" and manifest["rows"] == 21
    assert not list(folder.rglob("__pycache__")) and str(tmp_path) not in card + app
    for line in (folder / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[\w-]+==[\w.]+", line), line
    with pytest.raises(InputError, match="is not empty"):
        serve.main(["--model", tiny_cross_encoder, "--write_space", str(folder)])


def test_a_space_with_a_secret_is_not_written(tiny_cross_encoder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_cross_encoder, model)
    write_record(model, {**read_record(model), "settings": {"note": "hf_" + "a" * 34}})
    with pytest.raises(InputError, match="secret"):
        serve.main(["--model", str(model), "--write_space", str(tmp_path / "space")])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_requirements_of_a_space_are_those_of_the_package():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options"]["install_requires"].split("\n")
    assert tuple(line.split(" ")[0] for line in lines if line) == space.REQUIREMENTS
