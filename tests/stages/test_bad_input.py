"""Every mistake of a user is one line with the place and the cure, exit status 2, and nothing half-written."""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from pair_pkg.__main__ import main as command
from pair_pkg.errors import EXIT_BAD_INPUT
from pair_pkg.stages import adapt, finetune

ROOT = Path(__file__).resolve().parents[2]
HEADER = "sentence1,sentence2,label"
CHINESE = "糖尿病患者应该注意饮食"


@pytest.fixture
def pair_words(tiny_bert, tiny_pairs, tmp_path):
    """``pair_words(more...)``: the words of a small float32 run of stage 2 on a CPU; later flags override."""

    def words(*more):
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": tiny_pairs,
            "output_dir": tmp_path / "out",
            "max_steps": 2,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        return [f"--{name}={value}" for name, value in flags.items()] + list(more)

    return words


@pytest.fixture(scope="session")
def pair_rows(tiny_documents) -> list[str]:
    """100 labelled rows that share no text."""
    texts = [text.replace(",", " ") for text in tiny_documents]
    return [f"{first},{second},{row % 2}" for row, (first, second) in enumerate(zip(texts[::2], texts[1::2]))]


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory, pair_rows) -> Path:
    return written(tmp_path_factory.mktemp("pairs") / "pairs.csv", [HEADER, *pair_rows])


def written(path: Path, content: bytes | str | list[str]) -> Path:
    if isinstance(content, list):
        content = "\n".join(content) + "\n"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def with_row(rows: list[str], line: int, row: str) -> list[str]:
    """A table whose line ``line`` (from 1, the header's) is another row."""
    table = [HEADER, *rows]
    table[line - 1] = row
    return table


# --- the corpus


BAD_CORPORA = {
    "one document": ("corpus.txt", b"the old pump leaks\n", "1 documents are too few"),
    "no text column": ("corpus.csv", b"id,title,text\n1,a\n", "corpus.csv:2: 2 fields where the first row has 3"),
    "not gzip": ("corpus.txt.gz", b"plain text\n", "is named .gz but is not gzip; rename it or fetch it again"),
    "not parquet": ("corpus.parquet", b"PAR1", "corpus.parquet: damaged or not parquet"),
    "unknown format": ("corpus.docx", b"text", "unknown format .docx; name it one of"),
}


@pytest.mark.parametrize("name, content, expected", BAD_CORPORA.values(), ids=BAD_CORPORA)
def test_corpus(refusal, mlm_words, tmp_path, name, content, expected):
    corpus = written(tmp_path / name, content)
    assert expected in refusal(adapt.main, mlm_words(tmp_path / "out", f"--train_file={corpus}"))


def test_corpus_without_the_text_column(refusal, mlm_words, tmp_path):
    corpus = written(tmp_path / "corpus.csv", "text,title\na,b\nc,d\n")
    words = mlm_words(tmp_path / "out", f"--train_file={corpus}", "--text_column=titel")
    assert refusal(adapt.main, words).endswith("no column 'titel' among text, title; did you mean title?")
    corpus = written(tmp_path / "other.jsonl", '{"headline": "a"}\n')
    line = refusal(adapt.main, mlm_words(tmp_path / "out", f"--train_file={corpus}"))
    assert "other.jsonl: no column named text, " in line and line.endswith("name it with --text_column")


def test_broken_gzip(refusal, mlm_words, tmp_path):
    packed = gzip.compress(b"the old pump leaks in the cold morning\n" * 500)
    corpus = written(tmp_path / "corpus.txt.gz", packed[:-40])
    line = refusal(adapt.main, mlm_words(tmp_path / "out", f"--train_file={corpus}"))
    assert "corpus.txt.gz: broken or cut-off gzip" in line and line.endswith("fetch the file again")


def test_text_that_the_tokenizer_does_not_know(refusal, mlm_words, pair_words, tmp_path):
    corpus = written(tmp_path / "corpus.txt", [f"{CHINESE}{number}" for number in range(20)])
    line = refusal(adapt.main, mlm_words(tmp_path / "out", f"--train_file={corpus}"))
    assert "are unknown to it, more than 5%; take a model of the text's language" in line
    rows = [f"{CHINESE}{number},{CHINESE}{CHINESE}{number},{number % 2}" for number in range(40)]
    pairs = written(tmp_path / "zh.csv", [HEADER, *rows])
    assert "are unknown to it, more than 5%" in refusal(finetune.main, pair_words(f"--train_file={pairs}"))


def test_a_corpus_that_leaves_no_text_gives_no_tokenizer_either(refusal, tmp_path):
    corpus = written(tmp_path / "corpus.txt", "\n\n")
    cache = tmp_path / "cache"
    words = [f"--train_file={corpus}", "--model_type=bert", f"--token_cache_dir={cache}"]
    assert "no text is left" in refusal(adapt.main, [*words, f"--output_dir={tmp_path / 'out'}"])
    assert list(cache.iterdir()) == []


# --- the pairs


BAD_ROWS = {
    "none of the names": ("a,b,2", ["--class_names", "0", "1"], "pairs.csv:6: label '2' is none of 0, 1; fix the row"),
    "missing": ("a,b,", [], "pairs.csv:6: label is missing; fill it in or remove the row"),
    "out of range": ("a,b,7.5", ["--label_range", "0", "5"], "pairs.csv:6: label 7.5 is out of the range 0 to 5; fix"),
    "empty sentence": (" ,b,1", ["--strict"], "pairs.csv:6: sentence1 is empty; fill it in, or leave out --strict"),
}


@pytest.mark.parametrize("row, flags, expected", BAD_ROWS.values(), ids=BAD_ROWS)
def test_row(refusal, pair_words, pair_rows, tmp_path, row, flags, expected):
    pairs = written(tmp_path / "pairs.csv", with_row(pair_rows, 6, row))
    assert expected in refusal(finetune.main, pair_words(f"--train_file={pairs}", *flags))


BAD_PAIRS = {
    "missing": (None, [], "no such file or folder; check the spelling"),
    "empty": (b"", [], "pairs.csv: is empty (0 bytes); remove it"),
    "no column": (b"sentence1,other,label\na,b,0\n", [], "among sentence1, other, label; name it with --sentence2_col"),
    "odd delimiter": (
        b"a,b,0\nc,d,1\n",
        ["--delimiter=;"],
        "no column named 1 among 0; name it with --sentence2_column",
    ),
    "undecodable": (b"sentence1,sentence2,label\na,b,0\nc \xff,d,1\n", [], "pairs.csv:3:3: not UTF-8"),
    "NUL": (b"sentence1,sentence2,label\na,b,0\nc \0,d,1\n", [], "pairs.csv:3: a NUL character"),
    "too few": (b"sentence1,sentence2,label\na,b,0\nc,d,1\n", [], "; give more data, or a file of its own"),
}


@pytest.mark.parametrize("content, flags, expected", BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_pairs(refusal, pair_words, tmp_path, content, flags, expected):
    pairs = tmp_path / "pairs.csv" if content is None else written(tmp_path / "pairs.csv", content)
    assert expected in refusal(finetune.main, pair_words(f"--train_file={pairs}", *flags))


def test_a_header_where_none_was_said(refusal, pair_words):
    line = refusal(finetune.main, pair_words("--header=false"))
    assert "pairs.csv:1: label 'label' is none of the labels, this looks like a header" in line
    assert line.endswith("read it as one with --header, or fix the row")


def test_an_empty_sentence_is_counted_and_skipped(door, pair_words, pair_rows, tmp_path):
    pairs = written(tmp_path / "pairs.csv", with_row(pair_rows, 6, " ,b,1"))
    status, errors = door(finetune.main, pair_words(f"--train_file={pairs}"))
    assert status == 0
    assert "1 of 100 rows have an empty sentence and are skipped" in errors
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["pairs"]["train"]["empty_skipped"] == 1
    assert sum(record["pairs"]["pairs"].values()) == 99


@pytest.fixture
def given_splits(pair_rows, tmp_path):
    """Flags for a training and a validation file that share their first row."""
    train = written(tmp_path / "train.csv", [HEADER, *pair_rows[:60]])
    validation = written(tmp_path / "validation.csv", [HEADER, pair_rows[0], *pair_rows[60:]])
    return [f"--train_file={train}", f"--validation_file={validation}"]


def test_leak_between_given_splits(refusal, door, pair_words, given_splits):
    line = refusal(finetune.main, pair_words(*given_splits))
    assert "leak between splits: 1 pair of train in 1 rows of validation" in line
    assert "train.csv:2 and " in line and "validation.csv:2" in line and "accept them with --allow_leaks" in line
    status, errors = door(finetune.main, pair_words(*given_splits, "--allow_leaks"))
    assert status == 0
    assert "leak between splits, accepted by --allow_leaks: 1 pair of train" in errors


def test_test_file_with_a_label_that_training_lacks(refusal, pair_words, pair_rows, tmp_path):
    train = written(tmp_path / "train.csv", [HEADER, *pair_rows[:60]])
    validation = written(tmp_path / "validation.csv", [HEADER, *pair_rows[60:]])
    test = written(tmp_path / "test.csv", [HEADER, "this heavy lid,at full load,0", "on the,second floor,2"])
    files = [f"--train_file={train}", f"--validation_file={validation}", f"--test_file={test}"]
    line = refusal(finetune.main, pair_words(*files))
    assert line.endswith("test.csv:3: label '2' is none of 0, 1; fix the row or give --class_names")


PREDICT_FILES = {
    "empty sentence": ("sentence1,sentence2\na,b\nc,\n", "to_score.csv:3: sentence2 is empty; fill it in or remove"),
    "missing column": ("sentence1,other\na,b\n", "among sentence1, other; name it with --sentence2_column"),
    "missing": (None, "to_score.csv: no such file or folder"),
}


@pytest.mark.parametrize("content, expected", PREDICT_FILES.values(), ids=PREDICT_FILES)
def test_predict_file_is_looked_at_before_training(refusal, pair_words, tmp_path, content, expected):
    path = tmp_path / "to_score.csv"
    if content is not None:
        written(path, content)
    flags = ["--do_train", "--do_eval", "--do_predict", f"--predict_file={path}"]
    assert expected in refusal(finetune.main, pair_words(*flags))


# --- the checkpoint


def edited(folder: Path, file: str, **settings) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def drop_layer(weights):
    for name in [name for name in weights if ".layer.1." in name]:
        del weights[name]


def add_layer(weights):
    for name in [name for name in weights if ".layer.1." in name]:
        weights[name.replace(".layer.1.", ".layer.2.")] = weights[name].clone()


def spoil_weights(weights):
    weights["bert.encoder.layer.1.output.dense.weight"][3, 3] = float("nan")


def flip_byte(folder: Path, place: int) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_weights(folder: Path, file: str, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)


def without_token(folder: Path, name: str) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key != name}))


def widen_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"new{number}": len(vocabulary) + number for number in range(5)}
    path.write_text(json.dumps(tokenizer))


def write_gpt2(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64)).save_pretrained(folder)


def index_elsewhere(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": {name: "../other/model.safetensors" for name in weights}}
    replace_weights(folder, "model.safetensors.index.json", json.dumps(index).encode())


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
DAMAGES = {
    "no config": (lambda at: (at / "config.json").unlink(), "holds no config.json; give the folder of a whole"),
    "no weights": (lambda at: (at / "model.safetensors").unlink(), "holds no weights (none of model.safetensors"),
    "no tokenizer": (lambda at: (at / "tokenizer.json").unlink(), "holds no tokenizer (none of tokenizer.json"),
    "config is no JSON": (lambda at: (at / "config.json").write_text("{"), "/config.json: not valid JSON"),
    "config is a list": (lambda at: (at / "config.json").write_text("[]"), "/config.json: holds a list, not an obj"),
    "config is empty": (
        lambda at: (at / "config.json").write_text("{}"),
        "/config.json: names no model_type; add one, such as",
    ),
    "no number": (lambda at: edited(at, "config.json", hidden_size="many"), "expected int, got str (value: 'many')"),
    "no heads": (lambda at: edited(at, "config.json", num_attention_heads=0), "the model cannot be loaded (ZeroDiv"),
    "unknown type": (lambda at: edited(at, "config.json", model_type="nosuch"), "model type `nosuch`"),
    "tokenizer is a list": (lambda at: (at / "tokenizer.json").write_text("[]"), "the tokenizer cannot be loaded"),
    "tokenizer without model": (lambda at: edited(at, "tokenizer.json", model=3), "the tokenizer cannot be loaded"),
    "flipped header": (lambda at: flip_byte(at, 10), "cannot be loaded (SafetensorError: "),
    "flipped length": (lambda at: flip_byte(at, 7), "header too large); fetch its files again"),
    "truncated": (truncate, "file not fully covered); fetch its files again"),
    "LFS pointer": (lambda at: (at / "model.safetensors").write_bytes(LFS_POINTER), "(SafetensorError: "),
    "HTML as pickle": (lambda at: replace_weights(at, "pytorch_model.bin", b"<html>"), "is a damaged pickle, or one"),
    "shards elsewhere": (index_elsewhere, "does not name weights in its own folder; give a whole checkpoint"),
    "BERT as RoBERTa": (lambda at: edited(at, "config.json", model_type="roberta"), "the checkpoint is of another arc"),
    "NaN": (lambda at: change_weights(at, spoil_weights), "layer.1.output.dense.weight hold NaN or infinity; take"),
    "layers missing": (lambda at: change_weights(at, drop_layer), "16 encoder weights are missing, such as bert.enc"),
    "layers too many": (lambda at: change_weights(at, add_layer), "16 encoder weights have no place in the model"),
    "other size": (lambda at: edited(at, "config.json", hidden_size=64), "(32,) in the weights and (64,) by config"),
    "no padding token": (lambda at: without_token(at, "pad_token"), "the tokenizer has no padding token; add"),
    "vocabulary too large": (widen_vocabulary, "embeddings; give the model's own tokenizer with --tokenizer_name"),
}


@pytest.fixture
def checkpoint(tiny_bert, tmp_path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.mark.parametrize("damage, expected", DAMAGES.values(), ids=DAMAGES)
def test_checkpoint(refusal, mlm_words, pair_words, checkpoint, tmp_path, damage, expected):
    damage(checkpoint)
    flag = f"--model_name_or_path={checkpoint}"
    for main, words in ((adapt.main, mlm_words(tmp_path / "out", flag)), (finetune.main, pair_words(flag))):
        line = refusal(main, words)
        assert expected in line
        assert f"error: {checkpoint}" in line


def test_checkpoint_that_has_no_masked_language_model(refusal, mlm_words, checkpoint, tmp_path):
    write_gpt2(checkpoint)
    line = refusal(adapt.main, mlm_words(tmp_path / "out", f"--model_name_or_path={checkpoint}"))
    assert line.endswith("a gpt2 model is none for MaskedLM; take an encoder such as bert, roberta, modernbert")


def test_tokenizer_without_mask_token(refusal, mlm_words, checkpoint, tmp_path):
    without_token(checkpoint, "mask_token")
    line = refusal(adapt.main, mlm_words(tmp_path / "out", f"--model_name_or_path={checkpoint}"))
    assert line.endswith("the tokenizer has no mask token; give the tokenizer of a masked-language model")


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("form", ["zip", "raw"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_not_run(refusal, mlm_words, pair_words, checkpoint, tmp_path, form):
    marker = tmp_path / "marker"
    replace_weights(checkpoint, "pytorch_model.bin", pickle.dumps(RunsCode(marker)))
    if form == "zip":
        torch.save({"bert.embeddings.word_embeddings.weight": RunsCode(marker)}, checkpoint / "pytorch_model.bin")
    flag = f"--model_name_or_path={checkpoint}"
    for main, words in ((adapt.main, mlm_words(tmp_path / "out", flag)), (finetune.main, pair_words(flag))):
        assert "one that would run code, which is never done" in refusal(main, words)
    assert not marker.exists()
    with suppress(RuntimeError):  # the trap does work
        torch.load(checkpoint / "pytorch_model.bin", weights_only=False)
    assert marker.exists()


NAMES = {
    "no folder": ("./nowhere", "./nowhere: no such folder; check the spelling and the working directory"),
    "a file": (__file__, "is a file; give the folder of the checkpoint"),
    "no package": ("package:nosuch_package/model", "no package nosuch_package is installed; install it with pip"),
}


@pytest.mark.parametrize("name, expected", NAMES.values(), ids=NAMES)
def test_model_name(refusal, mlm_words, pair_words, tmp_path, name, expected):
    flag = f"--model_name_or_path={name}"
    for main, words in ((adapt.main, mlm_words(tmp_path / "out", flag)), (finetune.main, pair_words(flag))):
        assert expected in refusal(main, words)


# --- the output folder


def test_output_folder_of_another_run(refusal, door, mlm_words, pair_words, tmp_path):
    status, errors = door(adapt.main, mlm_words(tmp_path / "out", "--max_steps=1"))
    assert status == 0, errors
    line = refusal(adapt.main, mlm_words(tmp_path / "out", "--max_steps=1", "--seed=7"))
    assert "run.json there is of another run (seed: 42 -> 7); give another --output_dir" in line
    assert "run.json there is of another run (stage: mlm -> pairs" in refusal(finetune.main, pair_words())
    (tmp_path / "out" / "run.json").write_text("[]")
    assert "run.json: is no record of a run; remove the file" in refusal(finetune.main, pair_words())


def test_output_folder_of_something_else(refusal, mlm_words, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "out")
    line = refusal(adapt.main, mlm_words(tmp_path / "out"))
    assert "holds config.json of something else; give another --output_dir, or --overwrite_output_dir" in line


@pytest.mark.parametrize("below", ["", "/runs/mlm"], ids=["itself", "above"])
def test_output_folder_that_is_a_file(refusal, mlm_words, pair_words, tmp_path, below):
    written(tmp_path / "out", "a note")
    expected = f"error: {tmp_path / 'out'}: is a file; give a folder as --output_dir"
    out = f"{tmp_path / 'out'}{below}"
    assert refusal(adapt.main, mlm_words(out)) == expected
    assert refusal(finetune.main, pair_words(f"--output_dir={out}")) == expected


def test_output_folder_that_cannot_be_written(refusal, mlm_words, pair_words, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and allowed(path, mode))  # root may all
    expected = "closed: may not be written; give another --output_dir, or change its permissions"
    assert expected in refusal(adapt.main, mlm_words(closed / "out"))
    assert expected in refusal(finetune.main, pair_words(f"--output_dir={closed / 'out'}"))
    words = mlm_words(tmp_path / "out", f"--token_cache_dir={closed}")
    assert "closed: may not be written; give another --token_cache_dir" in refusal(adapt.main, words)
    assert list(closed.iterdir()) == []


def test_scores_alone_refuse_their_output_folder_and_model_too(refusal, door, pair_words, tiny_pairs, tmp_path):
    status, errors = door(finetune.main, pair_words())
    assert status == 0, errors
    written(tmp_path / "note", "a note")
    words = ["--do_predict", f"--predict_file={tiny_pairs}", f"--model_name_or_path={tmp_path / 'out'}"]
    assert "note: is a file; give a folder" in refusal(finetune.main, [*words, f"--output_dir={tmp_path / 'note'}"])
    (tmp_path / "out" / "model.safetensors").unlink()
    assert "holds no weights" in refusal(finetune.main, [*words, f"--output_dir={tmp_path / 'scores'}"])
    assert not (tmp_path / "scores").exists()


def test_scores_alone_need_a_fine_tuned_model_and_pairs(refusal, tiny_bert, tiny_pairs, tmp_path):
    words = ["--do_predict", f"--model_name_or_path={tiny_bert}", f"--output_dir={tmp_path / 'out'}"]
    assert "--do_predict: no pairs to score; give --predict_file" in refusal(finetune.main, words)
    line = refusal(finetune.main, [*words, f"--predict_file={tiny_pairs}"])
    assert "holds no run.json of a fine-tuned model; give a folder that run_pair_cls.py wrote" in line


# --- flags and recipes


FLAGS = {
    "unknown": ("--learnin_rate=1", "command line: unknown flag 'learnin_rate'; did you mean learning_rate?"),
    "no number": ("--learning_rate=fast", "invalid float value: 'fast'; --help lists all flags"),
    "NaN": ("--learning_rate=nan", "--learning_rate nan is out of range; give 0 or more"),
    "no boolean": ("--do_train=perhaps", "Truthy value expected: got perhaps"),
    "seed": ("--seed=-1", "--seed -1 is out of range; give 0 or more"),
    "batch": ("--per_device_train_batch_size=0", "batch_size 0 is out of range; give 1 or more"),
    "accumulation": ("--gradient_accumulation_steps=0", "_steps 0 is out of range; give 1 or more"),
    "samples": ("--max_train_samples=-1", "--max_train_samples -1 is out of range; give 1 or more"),
    "length above": ("--max_seq_length=100", "--max_seq_length 100 is more than the model's 64 positions; lower it"),
    "length below": ("--max_seq_length=2", "--max_seq_length 2 leaves no room beside"),
    "dropout": ("--hidden_dropout_prob=2", "--hidden_dropout_prob 2.0 is no probability; give 0 <= p < 1"),
    "reporter": ("--report_to=nosuch", "nosuch is not supported"),
    "code": ("--trust_remote_code", "code from a checkpoint is never run; use a built-in architecture"),
    "checkpoint": ("--resume_from_checkpoint=nosuch", "nosuch: no whole checkpoint"),
}


@pytest.mark.parametrize("flag, expected", FLAGS.values(), ids=FLAGS)
def test_flag(refusal, mlm_words, pair_words, tmp_path, flag, expected):
    assert expected in refusal(adapt.main, mlm_words(tmp_path / "out", flag))
    assert expected in refusal(finetune.main, pair_words(flag))


PAIR_FLAGS = {
    "architecture": ("--architecture=tri_encoder", "invalid choice: 'tri_encoder' (choose from 'cross_encoder', "),
    "outputs": ("--num_labels=5", "--num_labels 5: binary labels need 2 or 1; leave it out"),
    "share": ("--test_split_percentage=60", "--test_split_percentage 60.0 is out of range; give 0 < p < 50"),
    "range": ("--label_range=5", "--label_range [5.0]: give the lowest and the highest score, such as 0 5"),
    "split seed": ("--split_seed=-1", "--split_seed -1 is out of range; give 0 or more"),
}


@pytest.mark.parametrize("flag, expected", PAIR_FLAGS.values(), ids=PAIR_FLAGS)
def test_flag_of_stage_2(refusal, pair_words, flag, expected):
    assert expected in refusal(finetune.main, pair_words(flag))


MODELS_FROM_SCRATCH = {
    "no model": ([], "give --model_name_or_path (or --config_name), or --model_type"),
    "unknown type": (["--model_type=nosuch"], "--model_type nosuch: no architecture of transformers has this name"),
    "no encoder": (["--model_type=gpt2"], "--model_type gpt2: has no masked-language model"),
    "unknown setting": (["--model_type=bert", "--config_overrides=nosuch=3"], "--config_overrides 'nosuch=3': "),
    "no number": (["--model_type=bert", "--config_overrides=hidden_size=many"], "write name=value,name=value"),
    "tiny vocabulary": (["--model_type=bert", "--vocab_size=3"], "--vocab_size 3 is out of range; give 10 or more"),
}


@pytest.mark.parametrize("flags, expected", MODELS_FROM_SCRATCH.values(), ids=MODELS_FROM_SCRATCH)
def test_model_from_scratch(refusal, tiny_corpus, token_cache, tmp_path, flags, expected):
    words = [f"--train_file={tiny_corpus}", f"--token_cache_dir={token_cache}", f"--output_dir={tmp_path / 'out'}"]
    assert expected in refusal(adapt.main, [*words, *flags])


RECIPES = {
    "unknown flag": ("nonsense: 3\n", "recipe.yaml: unknown flag 'nonsense'; --help lists all flags"),
    "broken": ("a: b: c\n", "recipe.yaml:1: not valid YAML"),
    "list": ("- seed\n", "recipe.yaml: holds a list; a recipe is a mapping"),
    "twice": ("seed: 1\nseed: 2\n", "recipe.yaml:2: not valid YAML (seed is given twice); mend this line"),
    "empty value": ("seed:\n", "recipe.yaml: seed is empty; give it a value, or leave the line out"),
    "code": ("seed: !!python/object/apply:os.mkdir [marker]\n", "argument --seed: invalid int value: 'marker'"),
}


@pytest.mark.parametrize("text, expected", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("main", [adapt.main, finetune.main], ids=["adapt", "finetune"])
def test_recipe(refusal, tmp_path, monkeypatch, main, text, expected):
    monkeypatch.chdir(tmp_path)
    recipe = written(tmp_path / "recipe.yaml", text)
    assert expected in refusal(main, [recipe, f"--output_dir={tmp_path / 'out'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


PIPELINES = {
    "unknown key": ({"sedes": "[1]"}, "recipe.yaml: sedes is no key of this recipe; take base_model, mlm, "),
    "missing key": ({"pairs": None}, "recipe.yaml: pairs is missing; it needs base_model, mlm, "),
    "no mapping": ({"mlm": "[1]"}, "recipe.yaml: mlm must be a mapping of flags, one `flag: value` a line"),
    "seed twice": ({"seeds": "[1, 2, 1]"}, "recipe.yaml: a seed stands twice; equal runs add no evidence"),
    "seeds twice": ({"seeds": "[1]\nseeds: [2]"}, "(seeds is given twice); mend this line"),
    "seeds in words": ({"seeds": "many"}, "recipe.yaml: seeds must be whole numbers, such as [1, 2, 3]"),
    "empty model": ({"base_model": ""}, "recipe.yaml: base_model must be one name; write `base_model: NAME`"),
    "folder list": ({"output_dir": "[a, b]"}, "recipe.yaml: output_dir must be one name"),
    "flag of stage 1": ({"mlm": "{train_file: CORPUS, odd: 1}"}, "recipe.yaml: mlm: unknown flag 'odd'; --help"),
    "flag of stage 2": ({"pairs": "{train_file: PAIRS, odd: 1}"}, "recipe.yaml: pairs: unknown flag 'odd'; --help"),
    "value of stage 2": ({"pairs": "{train_file: PAIRS, seed: a}"}, "recipe.yaml: pairs: argument --seed: invalid"),
    "pairs missing": ({"pairs": "{train_file: nowhere.csv}"}, "nowhere.csv: no such file or folder; check"),
    "no pairs": ({"pairs": "{}"}, "no pairs: give --train_file"),
}


@pytest.mark.parametrize("changes, expected", PIPELINES.values(), ids=PIPELINES)
def test_pipeline_is_checked_whole_before_it_begins(
    refusal, tiny_bert, tiny_corpus, tiny_pairs, tmp_path, changes, expected
):
    keys = {"base_model": tiny_bert, "output_dir": str(tmp_path / "out")}
    keys |= {"mlm": "{train_file: CORPUS}", "pairs": "{train_file: PAIRS}", **changes}
    text = "".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None)
    text = text.replace("CORPUS", tiny_corpus).replace("PAIRS", str(tiny_pairs))
    recipe = written(tmp_path / "recipe.yaml", text)
    assert expected in refusal(command, ["pipeline", recipe])


COMMANDS = {
    "unknown": (["nosuch"], "error: nosuch: no such command; take one of pipeline, "),
    "no recipe": (["pipeline"], "error: pair_pkg pipeline: the following arguments are required: recipe; --help"),
    "unknown flag": (["pipeline", "a.yaml", "--odd"], "pair_pkg pipeline: unrecognized arguments: --odd; --help"),
    "recipe missing": (["pipeline", "a.yaml"], "error: a.yaml: this recipe cannot be read (No such file or direct"),
    "inspect what": (["inspect"], "pair_pkg inspect: the following arguments are required: --model, --text"),
    "inspect nothing": (["inspect", "--model=./no", "--text=a"], "error: ./no: no such folder; check the spelling"),
}


@pytest.mark.parametrize("words, expected", COMMANDS.values(), ids=COMMANDS)
def test_command(refusal, words, expected):
    assert expected in refusal(command, words)


# --- as the shell sees it


@pytest.mark.parametrize(
    "script, words, expected",
    [
        ("run_mlm.py", ["--train_file=nowhere.txt", "--model_name_or_path=./nowhere"], "nowhere.txt: no such file"),
        ("run_pair_cls.py", ["--train_file=nowhere.csv", "--model_name_or_path=./nowhere"], "nowhere.csv: no such"),
    ],
    ids=["stage 1", "stage 2"],
)
def test_script(tmp_path, script, words, expected):
    words = [sys.executable, str(ROOT / script), *words, "--output_dir=out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if expected in line and line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
