"""The examples of docs/python.md are run in their order, with tiny models; and what the public names promise."""

import ast
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import pair_pkg
from pair_pkg.errors import InputError
from pair_pkg.pairs import load_scorer
from pair_pkg.records import read_json
from pair_pkg.search import index_texts, load_encoder, load_searcher
from pair_pkg.stages import adapt, search

PAGE = Path(__file__).parents[2] / "docs/python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SMALL = 'num_train_epochs=0.1, per_device_train_batch_size=8, use_cpu=True, bf16=False, save_strategy="no"'


def small(example: str, token_cache: str) -> str:
    """An example at toy size: few steps on a CPU, and rows as short as the tiny model's."""
    example = example.replace("num_train_epochs=3", SMALL)
    return example.replace("max_seq_length=128", f"max_seq_length=48, token_cache_dir={token_cache!r}")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert, tiny_bi_encoder, tiny_documents, tiny_pairs, token_cache):
    """A folder that holds what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(tiny_bert, folder / "BASE")
    shutil.copytree(tiny_bi_encoder, folder / "runs/bi_encoder")
    (folder / "corpus.txt").write_text("\n".join(tiny_documents[:150]) + "\n", encoding="utf-8")
    (folder / "held_out.txt").write_text("\n".join(tiny_documents[150:]) + "\n", encoding="utf-8")
    rows = ["sentence1,sentence2,label"]
    for number, (left, right) in enumerate(tiny_pairs[:120]):
        other = tiny_pairs[number + 1][1]
        rows.append(f"{left},{other if number % 2 else right},{1 - number % 2}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    common = {"per_device_train_batch_size": 8, "max_steps": 2, "max_seq_length": 48, "use_cpu": True, "bf16": False}
    mlm = {"train_file": "corpus.txt", "token_cache_dir": token_cache, **common}
    recipe = {
        "base_model": "BASE",
        "output_dir": "runs/other",
        "mlm": mlm,
        "pairs": {"train_file": "pairs.csv", **common},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def shown(example: str, names: dict) -> list:
    """Run an example and return the values of the expressions that stand in it alone, as a notebook would show them."""
    values = []
    for statement in ast.parse(example).body:
        if isinstance(statement, ast.Expr):
            values.append(eval(compile(ast.Expression(statement.value), str(PAGE), "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), str(PAGE), "exec"), names)
    return values


@pytest.mark.slow
def test_the_examples_of_the_page(place, token_cache, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    train, tune, answer, measure, read, compare, score, find, export = [
        shown(small(example, token_cache), names) for example in EXAMPLES
    ]
    assert all(perplexity > 1 for perplexity in train[0])
    correct, total, accuracy = tune[0]
    assert accuracy == correct / total
    results = read_json(place / "runs/answer/results.json")
    assert results["seeds"] == [1, 2] and answer == [results["sentence"]]
    perplexity, loss, predicted = measure[0]
    assert perplexity == pytest.approx(np.exp(loss)) and predicted > 0
    assert read[0][:2] == ("pairs", accuracy) and read[1].shape == (total,)
    base, adapted, difference, low, high = compare[-2]
    assert adapted == accuracy and difference == pytest.approx(adapted - base) and low <= difference <= high
    assert compare[-1].startswith("Adaptation ")
    probability, word, margin, threshold = score[0]
    assert word == "01"[probability >= threshold] and np.isfinite(margin)
    assert score[1][0].shape == score[1][2].shape == (2,) and score[2][0] == pytest.approx(score[1][2][0], abs=1e-5)
    assert names["vectors"].shape == (2, 128) and find[0][:2] == (3, "flat")
    assert [hit[0] for hit in find[1]][0] == "a" and len(find[1]) == 2
    size, off = export[0]
    assert size > 0 and off < 1e-4


@pytest.mark.parametrize("room", ["", "pairs", "search", "report"])
def test_the_page_lists_every_public_function(room):
    module = __import__(f"pair_pkg.{room}".rstrip("."), fromlist=["x"])
    public = {name for name in module.__all__ if name.islower()}
    page = PAGE.read_text(encoding="utf-8")
    assert public and all(f"`{module.__name__}.{name}`" in page for name in public)
    assert all(len(getattr(module, name).__doc__.split()) > 5 for name in module.__all__)


def test_perplexity_is_that_of_the_command(mlm_words, tiny_bert, tiny_corpus, token_cache, tmp_path):
    metrics = adapt.main(mlm_words(tmp_path / "run", "--do_eval", "--validation_file", tiny_corpus, "--seed=3"))
    flags = {"max_seq_length": 48, "token_cache_dir": token_cache, "seed": 3, "use_cpu": True, "bf16": False}
    measured = pair_pkg.measure_perplexity(Path(tiny_bert), tiny_corpus, per_device_eval_batch_size=3, **flags)
    assert measured["perplexity"] == pytest.approx(metrics["eval_perplexity"], rel=1e-6)
    assert measured["predicted_tokens"] == metrics["eval_predicted_tokens"] and "accuracy" not in measured


def test_flags_of_a_call_are_those_of_the_command(mlm_words, tmp_path):
    with pytest.raises(InputError, match="unknown flag 'learning_rat'; did you mean learning_rate"):
        pair_pkg.adapt(output_dir=tmp_path, learning_rat=1e-4)
    with pytest.raises(InputError, match="--seed -1 is out of range"):
        pair_pkg.finetune(output_dir=tmp_path, train_file=["a.csv", "b.csv"], seed=-1)
    with pytest.raises(InputError, match="no-recipe.yaml"):
        pair_pkg.pipeline("no-recipe.yaml", seeds=[1, 2], no_texts=True)


def test_an_index_made_in_python_is_that_of_the_command(tiny_bi_encoder, tiny_cross_encoder, tmp_path):
    texts = ["the old pump leaks", "a small valve sticks", "the new filter works"]
    encoder = load_encoder(tiny_bi_encoder, device="cpu")
    index_texts(texts, encoder, tmp_path / "index")
    searcher = load_searcher(tmp_path / "index", device="cpu")
    (answer,) = searcher.search(["the old pump leaks"], top_k=2)
    assert answer.hits[0].id == "0" and answer.hits[0].cosine == pytest.approx(1, abs=1e-5)
    (printed,) = search.main(["the old pump leaks", f"--index={tmp_path / 'index'}", "--top_k=2", "--device=cpu"])
    assert [hit["id"] for hit in printed["hits"]] == [hit.id for hit in answer.hits]
    reranked = load_searcher(tmp_path / "index", reranker=tiny_cross_encoder, device="cpu").search(texts[:1], top_k=3)
    chances = [hit.probability for hit in reranked[0].hits]
    assert chances == sorted(chances, reverse=True) and len(chances) == 3


def test_what_an_index_refuses(tiny_bi_encoder, tmp_path):
    encoder = load_encoder(tiny_bi_encoder, device="cpu")
    for texts, more, message in (
        ("one text", {}, "one string where a list of texts belongs"),
        ([], {}, "none was given"),
        (["a", " "], {}, "text 1: is empty"),
        (["a", "b"], {"ids": ["x", "x"]}, "the id 'x' is taken"),
        (["a", "b"], {"ids": ["x"]}, "1 for 2 texts"),
        (["a"], {"index_type": "tree"}, "index_type tree: unknown"),
    ):
        with pytest.raises(InputError, match=message):
            index_texts(texts, encoder, tmp_path / "index", **more)
    assert not (tmp_path / "index").exists()
    index_texts(["a"], encoder, tmp_path / "index")
    with pytest.raises(InputError, match="holds an index already"):
        index_texts(["b"], encoder, tmp_path / "index")
    assert index_texts(["b"], encoder, tmp_path / "index", overwrite=True)["texts"] == 1
    plain = dataclasses.replace(encoder, encoder=dataclasses.replace(encoder.encoder, normalized=False))
    with pytest.raises(InputError, match="are not of length 1; load it with unit_rows=True"):
        index_texts(["a"], plain, tmp_path / "other")


def test_a_string_is_no_list_of_texts(tiny_bi_encoder, tiny_cross_encoder):
    scorer = load_scorer(Path(tiny_cross_encoder), device="cpu")
    with pytest.raises(InputError, match="sentence1: one string"):
        scorer.predict("the old pump", "the old pump")
    with pytest.raises(InputError, match="2 first sentences and 1 second"):
        scorer.score(["a", "b"], ["c"])
    with pytest.raises(InputError, match="texts: one string"):
        load_encoder(tiny_bi_encoder, device="cpu").encode("a text")
    with pytest.raises(InputError, match="dtype float8: unknown"):
        load_encoder(tiny_bi_encoder, dtype="float8")


def test_runs_are_compared_on_the_same_pairs_only(tiny_cross_encoder, tiny_bert):
    with pytest.raises(InputError, match="holds no test predictions"):
        pair_pkg.compare_runs(tiny_cross_encoder, tiny_cross_encoder)
    with pytest.raises(InputError, match="holds no run.json"):
        pair_pkg.read_run(tiny_bert)
