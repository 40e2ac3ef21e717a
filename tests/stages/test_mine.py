"""``mine``: the negatives and candidates that brute force finds, files that stage 2 reads, bad input in one line."""

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from pair_pkg.__main__ import main
from pair_pkg.data.pairs import load_pairs
from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.stages import finetune

NUM_LABELLED, MARGIN = 12, 0.05


@pytest.fixture(scope="module")
def vectors_of(tiny_bi_encoder):
    """Unit rows of texts, by sentence-transformers itself."""
    model = SentenceTransformer(tiny_bi_encoder, device="cpu")
    return lambda texts: model.encode(list(texts))


@pytest.fixture
def labelled(tiny_pairs):
    """Twelve pairs, half of them positive; no text stands in two of them."""
    return [(*tiny_pairs[row], 1 - row % 2) for row in range(NUM_LABELLED)]


@pytest.fixture
def files(tmp_path, tiny_pairs, labelled):
    """The labelled pairs, and a corpus of their texts and 80 others."""
    pairs_path, corpus_path = tmp_path / "pairs.csv", tmp_path / "corpus.txt"
    pd.DataFrame(labelled, columns=["sentence1", "sentence2", "label"]).to_csv(pairs_path, index=False)
    corpus = [text for pair in tiny_pairs[: NUM_LABELLED + 40] for text in pair]
    corpus_path.write_text("\n".join([*corpus, "", corpus[0]]) + "\n", encoding="utf-8")
    return pairs_path, corpus_path, corpus


@pytest.fixture
def mine(tiny_bi_encoder, tmp_path):
    """``mine(corpus, flags...)``: the counts and the rows of the file."""

    def run(corpus, *flags, output="mined.csv"):
        path = tmp_path / output
        words = ["mine", "--model", tiny_bi_encoder, corpus, "--output", path, *flags]
        counts = main([str(word) for word in words])
        with open(path, encoding="utf-8", newline="") as file:
            return counts, [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(
                csv.DictReader(file)
            )

    return run


def test_negatives_are_those_of_brute_force(mine, files, labelled, vectors_of):
    pairs_path, corpus_path, corpus = files
    counts, rows = mine(corpus_path, "--pairs", pairs_path, "--num_negatives", "2")
    expected = {}
    for first, second, label in labelled:
        if label:
            anchor, positive = vectors_of([first, second])
            cosines = vectors_of(corpus) @ anchor
            near = [row for row in np.argsort(-cosines) if cosines[row] < (1 - MARGIN) * (anchor @ positive)]
            expected[first] = [corpus[row] for row in near if corpus[row] not in (first, second)][:2]
    mined = [row for row in rows if row["source"] == "mined"]
    found = {first: [row["sentence2"] for row in mined if row["sentence1"] == first] for first in expected}
    assert found == expected and sum(map(len, expected.values())) >= 6
    assert counts == {"labelled": 12, "mined": len(mined), "anchors": sum(map(bool, expected.values()))}
    cosines = [float(np.prod(vectors_of([row["sentence1"], row["sentence2"]]), axis=0).sum()) for row in mined]
    np.testing.assert_allclose([float(row["cosine"]) for row in mined], cosines, atol=1e-5)
    kept = [(row["sentence1"], row["sentence2"], int(row["label"])) for row in rows if row["source"] == "labelled"]
    assert kept == labelled and {row["label"] for row in mined} == {"0"}


@pytest.mark.parametrize("output", ["mined.csv", "mined.jsonl"])
def test_stage_2_trains_on_the_file(mine, files, tiny_pairs, tiny_bert, tmp_path, output, capsys):
    pairs_path, corpus_path, _ = files
    named = pd.read_csv(pairs_path).assign(label=["same", "other"] * (NUM_LABELLED // 2))
    named.replace({"label": {"same": "yes", "other": "no"}}).to_csv(pairs_path, index=False)
    counts, rows = mine(corpus_path, "--pairs", pairs_path, output=output)
    pairs, scheme, _ = load_pairs([str(tmp_path / output)], labelled=True)
    assert scheme.names == ["no", "yes"] and pairs.labels.sum() == 6
    assert len(pairs) == len(rows) == 12 + counts["mined"] and counts["mined"] > 6
    if output.endswith(".jsonl"):
        return
    held_out = [(*tiny_pairs[row], "yes" if row % 2 else "no") for row in range(120, 140)]
    for name, part in (("validation", held_out[:10]), ("test", held_out[10:])):
        pd.DataFrame(part, columns=["sentence1", "sentence2", "label"]).to_csv(tmp_path / f"{name}.csv", index=False)
    flags = {
        "model_name_or_path": tiny_bert,
        "train_file": tmp_path / output,
        "validation_file": tmp_path / "validation.csv",
        "test_file": tmp_path / "test.csv",
        "output_dir": tmp_path / "run",
        "max_seq_length": 24,
        "max_steps": 2,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": "false",
        "bf16": "false",
        "use_cpu": "true",
    }
    finetune.main([f"--{name}={value}" for name, value in flags.items()])
    assert f"pairs: train {len(rows)}, validation 10, test 10; labels: binary (no, yes)" in capsys.readouterr().out


def test_texts_beyond_the_model_s_length_are_counted(mine, files, tmp_path, capsys):
    pairs_path, corpus_path, corpus = files
    with open(corpus_path, "a", encoding="utf-8") as file:
        file.write("the filter " * 200 + "\n" + "the pump " * 300 + "\n")
    mine(corpus_path, "--pairs", pairs_path)
    told = [line for line in capsys.readouterr().err.splitlines() if "longer than the model's 128 tokens" in line]
    assert len(told) == 1 and re.search(r"\b2 of \d+ distinct texts", told[0])


def test_what_a_cross_encoder_calls_the_same_is_no_negative(mine, files, tiny_cross_encoder, tmp_path):
    pairs_path, corpus_path, _ = files
    folder = shutil.copytree(tiny_cross_encoder, tmp_path / "cross")
    words = ["--pairs", pairs_path, "--relative_margin", "-9"]
    _, rows = mine(corpus_path, *words)
    near = [(row["sentence1"], row["sentence2"]) for row in rows if row["source"] == "mined"]
    scorer = load_scorer(str(folder))
    threshold = float(np.median(scorer.predict(*zip(*near)).probabilities))
    save_decision(Decision("binary", temperature=1.0, threshold=threshold), folder)
    counts, rows = mine(corpus_path, *words, "--filter", folder)
    kept = [(row["sentence1"], row["sentence2"]) for row in rows if row["source"] == "mined"]
    probabilities = scorer.predict(*zip(*kept)).probabilities
    assert counts["mined"] == len(kept) > 0 and probabilities.max() <= threshold + 1e-6
    assert set(near) - set(kept)


def test_candidates_are_the_nearest_pairs_of_different_texts(mine, files, vectors_of):
    _, corpus_path, corpus = files
    counts, rows = mine(corpus_path, "--max_pairs", "20", "--top_k", "50")
    vectors = vectors_of(corpus)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(corpus), 1)]
    assert counts == {"candidates": 20, "texts": len(corpus)}
    np.testing.assert_allclose([float(row["cosine"]) for row in rows], -np.sort(-cosines)[:20], atol=1e-5)
    assert list(rows[0]) == ["sentence1", "sentence2", "cosine"]
    assert all(row["sentence1"] != row["sentence2"] for row in rows)
    lowest = float(rows[4]["cosine"]) - 1e-6
    assert len(mine(corpus_path, "--min_cosine", lowest)[1]) == int((cosines >= lowest).sum())


def test_a_killed_search_for_candidates_goes_on_and_leaves_nothing(mine, files, tmp_path, monkeypatch, capsys):
    _, corpus_path, corpus = files
    before = set(tmp_path.iterdir())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "pair_pkg.stages.mine.mine_paraphrases", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        mine(corpus_path)
    mine(corpus_path)
    assert f"going on behind row {len(corpus)} of {len(corpus)}" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) - before == {tmp_path / "mined.csv"}


BAD = {
    "format": (["corpus.txt", "--output", "m.txt"], "m.txt: unknown format '.txt'; name it one of .csv, .jsonl"),
    "filter alone": (["corpus.txt", "--filter", "x", "--output", "m.csv"], "--filter: .*; give --pairs too"),
    "no negatives": (["corpus.txt", "--num_negatives=0", "--output", "m.csv"], "--num_negatives, .*: give at least 1"),
    "no number": (["corpus.txt", "--relative_margin=nan", "--output", "m.csv"], "a share below 1, such as 0.05"),
    "a cosine of 2": (["corpus.txt", "--min_cosine=2", "--output", "m.csv"], "give a cosine from -1 to 1"),
    "the input": (["corpus.csv", "--output", "corpus.csv"], "corpus.csv: is one of the files that are read"),
    "the pairs": (
        ["corpus.txt", "--pairs", "pairs.csv", "--output", "./pairs.csv"],
        "pairs.csv: is one of the files that are read; name another",
    ),
    "scores": (["corpus.txt", "--pairs", "scores.csv", "--output", "m.csv"], "labels are scores; .* need binary"),
    "one label": (["corpus.txt", "--pairs", "one.csv", "--output", "m.csv"], "one.csv:2: only one label, .1.; add"),
    "one text": (["one.txt", "--output", "m.csv"], "one.txt: one distinct text makes no pair; give more texts"),
    "no text": (["blank.txt", "--output", "m.csv"], "blank.txt: no text is left; check the file"),
    "no such file": (["nowhere.txt", "--output", "m.csv"], "nowhere.txt: no such file or folder; check the spelling"),
    "no run": (
        ["corpus.txt", "--pairs", "pairs.csv", "--filter", "nowhere", "--output", "m.csv"],
        "nowhere: holds no run.json of a fine-tuned model; give a folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_with_a_cure(words, message, files, tiny_bi_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "corpus.csv": "text\nthe old pump\na small valve\n",
        "scores.csv": "sentence1,sentence2,label\na pump,a valve,0.25\nthe lid,a hose,4.5\nthe lid,a pump,3.1\n",
        "one.csv": "sentence1,sentence2,label\na pump,a valve,1\n",
        "one.txt": "the pump\nthe pump\n",
        "blank.txt": "\n \n",
    }.items():
        (tmp_path / name).write_text(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        main(["mine", "--model", tiny_bi_encoder, *words])
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
