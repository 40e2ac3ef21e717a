"""One run of each training and encoding benchmark from end to end, on a toy scale: no figure here means anything."""

import pytest

from benchmarks import __main__ as door
from benchmarks import encode, mlm, pairs, scaling, time_to_perplexity
from benchmarks.inputs import load_masked_lm

pytestmark = pytest.mark.slow


@pytest.fixture
def toy_shape(monkeypatch):
    """MiniLM's place is taken by two narrow layers."""
    for module in (scaling, time_to_perplexity):
        monkeypatch.setattr(module, "load_masked_lm", lambda shape, seed=0: load_masked_lm("toy", seed))


@pytest.fixture
def toy_pairs(tmp_path, tiny_pairs):
    path = tmp_path / "pairs.csv"
    rows = [f"{left},{right},{number % 2}" for number, (left, right) in enumerate(tiny_pairs[:24])]
    path.write_text("\n".join(["sentence1,sentence2,label", *rows, rows[0]]) + "\n")
    return str(path)


@pytest.fixture
def toy_encoder(tiny_bi_encoder, monkeypatch):
    for module in (pairs, encode):
        monkeypatch.setattr(module, "minilm_dir", lambda: tiny_bi_encoder)


def rates_of(measured):
    return [rate for rates in measured.values() for rate in rates]


def test_mlm_meets_both_peers(toy_corpus, monkeypatch):
    monkeypatch.setattr(mlm, "QUICK", mlm.Effort(rounds=1, lap_tokens=64, max_documents=60))
    monkeypatch.setattr(mlm, "BATCH_SIZE", 4)
    job = mlm.Job("toy, T 32", "toy", 32, line_by_line=True, candidates=(2, 4))
    monkeypatch.setattr(mlm, "jobs", lambda quick, shapes: [job])
    measured = door.main(["mlm", "--quick", "--corpus", toy_corpus])["toy, T 32"]
    sides = set(measured["units_per_second"])
    assert {"ours", "stock, float32, batch 4"} <= sides and min(rates_of(measured["units_per_second"])) > 0
    assert set(measured["stock_bfloat16_batch_sizes"]) in ({2, 4}, set())
    assert 0.1 < measured["predicted_fraction"] < 0.15 and 5 < measured["mean_keys_seen"] < 32


def test_pairs_meets_both_trainers(toy_pairs, toy_encoder):
    words = ["pairs", "--quick", "--pairs", toy_pairs, "--batch_size", "4", "--rounds", "1"]
    document = door.main(words)
    for title, peer in {"cross-encoder": "CrossEncoderTrainer", "bi-encoder": "SentenceTransformerTrainer"}.items():
        assert {"ours", f"{peer}, float32"} <= set(document[title]) and min(rates_of(document[title])) > 0
    (table,) = door.main([*words, "--ablation"])["tables"]
    assert len(table["rows"]) >= 6 and all(row["ours is faster"] for row in table["rows"][1:])


def test_encode_judges_what_it_times(toy_pairs, toy_encoder, monkeypatch, tmp_path):
    for packages in ("ONNX_PACKAGES", "OPENVINO_PACKAGES"):  # a minute of exporting each; the test is of the rest
        monkeypatch.setattr(encode, packages, ("no_such_package",))
    monkeypatch.setattr(encode, "STSB_TEST", tmp_path / "nowhere.csv")
    document = door.main(["encode", "--quick", "--pairs", toy_pairs, "--rounds", "1"])
    assert {"ours", "ours, int8", "SentenceTransformer, float32"} <= set(document["sentences_per_second"])
    assert all(0.9 < cosine < 1.001 for cosine in document["lowest_cosine_to_float32"].values())
    assert all(0 < metrics["average_precision"] <= 1 for metrics in document["metrics"].values())
    assert sum("no_such_package not installed" in note for note in document["notes"]) == 2


def test_scaling_draws_its_three_pictures(toy_corpus, toy_shape, monkeypatch, tmp_path):
    for name, values in {"LENGTHS": (16, 32), "BATCH_TOKENS": (256, 512), "QUICK_MEGABYTES": (0.1,)}.items():
        monkeypatch.setattr(scaling, name, values)
    document = door.main(["scaling", "--quick", "--corpus", toy_corpus, "--output_dir", str(tmp_path / "pictures")])
    assert set(document["sequence length"]) == {16, 32} and set(document["tokens a batch"]) == {256, 512}
    assert min(rates_of(document["sequence length"][16])) > 0 and document["corpus size"][0.1]["seconds"] > 0
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    names = ("sequence_length", "tokens_a_batch", "corpus_size")
    assert pictures == {f"scaling_{name}.png" for name in names}


def test_time_to_perplexity_follows_every_side(toy_corpus, toy_shape):
    sizes = ["--stock_steps", "3", "--eval_steps", "1", "--batch_size", "4"]
    document = door.main(["time_to_perplexity", "--quick", "--corpus", toy_corpus, *sizes])
    curves = document["seed 1"]["curves"]
    assert len(curves["stock, float32"]) == 3 and len(curves["ours"]) == 6
    for points in curves.values():
        seconds, perplexities = zip(*points)
        assert seconds[0] == 0 and list(seconds) == sorted(seconds)  # the first step is off the clock
        assert all(perplexity > 1 for perplexity in perplexities)
    assert document["seed 1"]["target"] == curves["stock, float32"][-1][1]
