"""Stage 1 that knows the pairs of stage 2: what it may see of them, the probe, the passages near them."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from transformers import AutoModel, AutoTokenizer

from pair_pkg.data.held_out import HeldOutTexts
from pair_pkg.data.tokens import join_pairs, pair_middle, tokenize_in_memory
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import SentenceEncoder, encode_texts
from pair_pkg.records import read_record, write_record
from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.arguments.task import TaskArguments
from pair_pkg.stages.selection import nearest_windows
from pair_pkg.stages.task_pairs import load_task, task_words

TRAINED = ("--max_steps=4", "--learning_rate=3e-3", "--eval_steps=2")


@pytest.fixture
def pair_file(tmp_path, tiny_pairs):
    """100 pairs whose labels say nothing, so that no model ranks them rightly, and each step changes the ranking."""
    rows = [(tiny_pairs[n][0], tiny_pairs[(7 * n + 3) % 180][1], n % 2) for n in range(100)]
    path = tmp_path / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("first", "second", "same"), *rows])
    return str(path)


@pytest.fixture
def settings():
    names = {"sentence1_column": "first", "sentence2_column": "second", "label_column": "same", "header": True}
    return f"--pair_settings={json.dumps({**names, 'validation_split_percentage': 20})}"


def stage_2_splits(pair_file, out):
    words = [f"--train_file={pair_file}", "--validation_split_percentage=20", "--header", "--sentence1_column=first",
             "--sentence2_column=second", "--label_column=same", "--model_name_or_path=x",
             f"--output_dir={out}"]  # fmt: skip
    return finetune.parse(words).pairs


def test_the_splits_are_those_of_stage_2(pair_file, tmp_path):
    pairs = stage_2_splits(pair_file, tmp_path)
    (_, path), settings = task_words(pairs)[:2], task_words(pairs)[2].partition("=")[2]
    task = TaskArguments(pair_file=[path], pair_settings=settings)
    assert task.pairs.validation_split_percentage == 20 and task.pairs.label_column == "same"
    found = load_task(task)
    held_out = found.held_out()
    assert {name: len(part) for name, part in found.splits.items()} == {"train": 70, "validation": 20, "test": 10}
    assert found.kind == "binary" and not held_out & set(found.texts_to_learn())
    everything = load_task(TaskArguments(pair_file=[path], pair_settings=settings, transductive=True))
    assert held_out < set(everything.texts_to_learn()) and everything.held_out_texts() is None


def test_held_out_texts_are_cut_out_of_the_corpus(mlm_words, tmp_path, tiny_documents, pair_file, settings, capsys):
    pairs = load_task(TaskArguments(pair_file=[pair_file], pair_settings=settings.partition("=")[2]))
    held_out, seen = sorted(pairs.held_out()), sorted(pairs.texts_to_learn())
    corpus = tmp_path / "leaky.txt"
    corpus.write_text("\n".join([*tiny_documents, *held_out[:7], *seen[:5]]) + "\n", encoding="utf-8")
    words = mlm_words(tmp_path / "out", *TRAINED, f"--train_file={corpus}", f"--pair_file={pair_file}", settings)
    metrics = adapt.main(words)
    counts = read_record(tmp_path / "out")["corpus"]
    assert counts["held_out_texts"] == 7 and counts["documents_kept"] == len(tiny_documents) + 5
    assert "7 texts of validation or test pairs cut out" in capsys.readouterr().out
    assert 0 < metrics["eval_probe"] <= 1 and metrics["before"]["eval_probe"] != metrics["eval_probe"]
    task = read_record(tmp_path / "out")["task"]
    assert task["probe"] == "average_precision" and not task["transductive"]


def test_the_probe_is_the_encoders_average_precision(mlm_words, tmp_path, tiny_bert, pair_file, settings):
    flags = [f"--pair_file={pair_file}", settings, "--do_eval"]
    metrics = adapt.main(mlm_words(tmp_path / "out", *flags))
    pairs = load_task(TaskArguments(pair_file=[pair_file], pair_settings=settings.partition("=")[2]))
    part = pairs.splits["validation"]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert)
    encoder = SentenceEncoder(model, tokenizer, "mean", 48)
    left, right = encode_texts(encoder, part.sentence1), encode_texts(encoder, part.sentence2)
    assert metrics["eval_probe"] == pytest.approx(average_precision_score(part.labels, (left * right).sum(1)), abs=1e-6)


def test_the_best_checkpoint_by_the_probe_is_the_result_and_a_break_changes_nothing(
    mlm_words, tmp_path, pair_file, settings
):
    flags = [f"--pair_file={pair_file}", settings, "--stop_by=probe", "--patience=2", "--max_steps=40",
             "--learning_rate=2e-2", "--eval_steps=2", "--lr_scheduler_type=constant"]  # fmt: skip
    out = tmp_path / "out"
    metrics = adapt.main(mlm_words(out, *flags))
    log = json.loads((out / "log_history.json").read_text())
    values = {entry["step"]: entry["eval_probe"] for entry in log if "eval_probe" in entry and entry["step"]}
    best = max(values, key=lambda step: (values[step], -step))
    last = max(values)
    assert metrics["eval_probe"] == values[best] and last == best + 4 < 40
    loss = next(entry["eval_loss"] for entry in log if entry["step"] == best and "eval_loss" in entry)
    assert metrics["eval_loss"] == loss and (out / "history.png").is_file()
    weights = (out / "model.safetensors").read_bytes()
    assert (out / f"checkpoint-{best}" / "model.safetensors").read_bytes() == weights

    (out / "model.safetensors").unlink()
    for step in range(best + 2, last + 1, 2):
        shutil.rmtree(out / f"checkpoint-{step}", ignore_errors=True)
    write_record(out, {**read_record(out), "status": "running"})
    again = adapt.main(mlm_words(out, *flags))
    assert (out / "model.safetensors").read_bytes() == weights and again["eval_probe"] == metrics["eval_probe"]


def test_a_sweep_keeps_the_alpha_with_the_best_probe(mlm_words, tmp_path, pair_file, settings, capsys):
    flags = [f"--pair_file={pair_file}", settings, "--merge_alpha", "0.75", "0.25"]
    metrics = adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    sweep = {float(alpha): part["probe"] for alpha, part in metrics["merge"]["sweep"].items()}
    assert set(sweep) == {0.0, 0.25, 0.75, 1.0} and sweep[0.0] == metrics["before"]["eval_probe"]
    chosen = metrics["merge"]["alpha"]
    assert sweep[chosen] == max(sweep[0.25], sweep[0.75]) == metrics["eval_probe"]
    assert f"{chosen} (kept)" in capsys.readouterr().out


def test_the_nearest_windows_are_those_of_brute_force(tiny_bert, tiny_documents):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert)
    encoder = SentenceEncoder(model, tokenizer, "mean", 64)
    texts = [text for text in tiny_documents if len(tokenizer(text)["input_ids"]) <= 64][:60]
    store = tokenize_in_memory(texts, tokenizer)
    starts, lengths = store.offsets[:-1], np.diff(store.offsets)
    sentences = ["the old pump leaks in the cold morning", "新滤网卡住"]
    chosen = nearest_windows(encoder, store, starts, lengths, sentences, top_k=3)
    cosines = encode_texts(encoder, sentences) @ encode_texts(encoder, texts).T
    expected = np.zeros(60, dtype=bool)
    expected[np.argsort(-cosines, axis=1)[:, :3]] = True
    assert np.array_equal(chosen, expected)


def test_selection_and_pair_text_shape_what_is_read(mlm_words, tmp_path, pair_file, settings):
    flags = [f"--select_by={pair_file}", settings, "--select_top=1", "--include_pair_text", "--line_by_line"]
    adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    record = read_record(tmp_path / "out")
    counts = record["corpus"]
    pairs = load_task(TaskArguments(pair_file=[pair_file], pair_settings=settings.partition("=")[2]))
    assert 0 < counts["train_rows"] <= len(pairs.texts_to_learn()) and counts["unselected_tokens"] > 0
    whole = counts["train_tokens"] + counts["validation_tokens"] + counts["unselected_tokens"]
    assert counts["tokens"] == whole
    assert counts["mixed_rows"] == {"pair_text": len(pairs.texts_to_learn())}
    assert record["task"]["select_top"] == 1


def test_pairs_are_text_as_a_cross_encoder_reads_them(mlm_words, tmp_path, pair_file, settings, tiny_bert):
    pairs = load_task(TaskArguments(pair_file=[pair_file], pair_settings=settings.partition("=")[2]))
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = pairs.texts_to_learn()
    numbers = np.array([[texts.index(left), texts.index(right)] for left, right in pairs.pairs_to_learn()])
    store = join_pairs(tokenize_in_memory(texts, tokenizer), numbers, pair_middle(tokenizer))
    for pair, begin, end in zip(pairs.pairs_to_learn(), store.offsets, store.offsets[1:]):
        assert store.ids[begin:end].tolist() == tokenizer(*pair)["input_ids"][1:-1]
    assert set(store.word_starts[store.ids == tokenizer.sep_token_id]) == {True}
    flags = [f"--pair_file={pair_file}", settings, "--include_pair_text", "--pair_text_format=pairs", "--line_by_line"]
    metrics = adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    assert read_record(tmp_path / "out")["corpus"]["mixed_rows"] == {"pair_text": len(numbers)} == {"pair_text": 70}
    assert metrics["eval_loss"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--select_top=5"], "--select_top is about pairs; give --pair_file"),
        (["--select_by=PAIRS"], "say how many for each sentence by --select_top"),
        (["--pair_file=PAIRS", "--pair_settings={"], "--pair_settings: not valid JSON"),
        (["--pair_file=PAIRS", '--pair_settings={"colour": 1}'], "--pair_settings takes sentence1_column"),
        (["--stop_by=probe"], "give --pair_file"),
        (["--patience=2"], "--patience is for --stop_by"),
        (["--stop_by=perplexity", "--eval_strategy=no"], "--stop_by asks the evaluations"),
        (["--near_duplicates=2"], "--near_duplicates 2.0 is no share"),
    ],
)
def test_a_mistake_is_one_line(mlm_words, tmp_path, pair_file, flags, message):
    flags = [flag.replace("PAIRS", pair_file) for flag in flags]
    with pytest.raises(InputError, match=message):
        adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    assert not (tmp_path / "out").exists()


def test_near_duplicates_are_dropped_on_demand(mlm_words, tmp_path, tiny_documents):
    corpus = tmp_path / "near.txt"
    long = [" ".join(tiny_documents[n : n + 6]) for n in range(0, 120, 6)]
    corpus.write_text("\n".join([*long, *(f"{text} ok" for text in long)]) + "\n", encoding="utf-8")
    adapt.main(mlm_words(tmp_path / "out", *TRAINED, f"--train_file={corpus}", "--near_duplicates=0.8"))
    counts = read_record(tmp_path / "out")["corpus"]
    assert counts["near_duplicates"] == 20 and counts["documents_kept"] == 20


def test_no_held_out_texts_are_none():
    assert HeldOutTexts([]).cut_from("Anything. At all.") == ("Anything. At all.", 0)
