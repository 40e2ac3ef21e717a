"""Stage 1 from its command line to what it leaves in its folder."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, BertForMaskedLM

from pair_pkg.errors import EXIT_BAD_INPUT, InputError, run_door
from pair_pkg.records import read_record, write_record
from pair_pkg.stages import adapt

TRAINED = ("--max_steps=3", "--learning_rate=1e-3", "--eval_steps=2")


def log_of(output_dir):
    return json.loads(Path(output_dir, "log_history.json").read_text())


@pytest.fixture
def validation_file(tmp_path, tiny_documents):
    path = tmp_path / "validation.txt"
    path.write_text("\n".join(f"{text} ok" for text in tiny_documents[:30]) + "\n", encoding="utf-8")
    return str(path)


# What a run leaves.


def test_perplexity_falls_and_everything_is_written(mlm_words, tmp_path, capsys):
    out = tmp_path / "out"
    metrics = adapt.main(mlm_words(out, "--num_train_epochs=2", "--learning_rate=3e-3", "--eval_strategy=epoch"))
    assert metrics["eval_perplexity"] < 0.8 * metrics["before"]["eval_perplexity"]
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    assert "eval_accuracy" not in metrics
    record = read_record(out)
    assert record["status"] == "finished" and record["metrics"] == metrics and record["global_step"] == 30
    log = log_of(out)
    assert log[0]["step"] == 0 and log[0]["eval_perplexity"] == metrics["before"]["eval_perplexity"]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 15, 30]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 31))
    assert (out / "history.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.rglob("training_args.bin"))
    before, after = metrics["before"]["eval_perplexity"], metrics["eval_perplexity"]
    assert f"{before:,.2f} before, {after:,.2f} after" in capsys.readouterr().out


def test_the_accounting_adds_up(mlm_words, tmp_path, tiny_documents, tiny_bert, capsys):
    adapt.main(mlm_words(tmp_path / "out", *TRAINED))
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokens = sum(map(len, tokenizer(tiny_documents, add_special_tokens=False)["input_ids"]))
    corpus = read_record(tmp_path / "out")["corpus"]
    assert corpus["documents_read"] == corpus["documents_kept"] == 200
    assert corpus["characters"] == sum(map(len, tiny_documents))
    assert corpus["tokens"] == corpus["train_tokens"] + corpus["validation_tokens"] == tokens
    inputs = corpus["train_tokens"] + 2 * corpus["train_windows"]
    assert corpus["row_fill_fraction"] == pytest.approx(inputs / (48 * corpus["train_rows"]))
    assert f"tokens: {tokens:,} = " in capsys.readouterr().out


def test_empty_and_double_documents_are_counted(mlm_words, tmp_path, tiny_documents):
    path = tmp_path / "double.txt"
    path.write_text("\n".join([*tiny_documents[:20], "", *tiny_documents[:5]]) + "\n", encoding="utf-8")
    adapt.main(mlm_words(tmp_path / "out", f"--train_file={path}", "--document_per=line", *TRAINED))
    corpus = read_record(tmp_path / "out")["corpus"]
    assert [corpus[name] for name in ("documents_read", "empty", "duplicates", "documents_kept")] == [26, 1, 5, 20]


def test_the_result_loads_in_plain_transformers_with_the_bases_pooler(mlm_words, tmp_path, tiny_bert):
    out = tmp_path / "out"
    adapt.main(mlm_words(out, *TRAINED, "--save_strategy=steps", "--save_steps=3"))
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert).bert
    for folder in (out, out / "checkpoint-3"):
        model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert type(model) is BertForMaskedLM and not info["missing_keys"]
        classifier = AutoModelForSequenceClassification.from_pretrained(folder).bert
        for name, value in base.pooler.state_dict().items():
            assert torch.equal(classifier.pooler.state_dict()[name], value)
        assert not torch.equal(classifier.embeddings.word_embeddings.weight, base.embeddings.word_embeddings.weight)
    assert AutoTokenizer.from_pretrained(out).tokenize("the old pump")


def test_the_same_command_gives_the_same_model(mlm_words, tmp_path):
    for name in ("a", "b"):
        adapt.main(mlm_words(tmp_path / name, *TRAINED))
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b
    adapt.main(mlm_words(tmp_path / "c", *TRAINED, "--seed=7"))
    assert (tmp_path / "c" / "model.safetensors").read_bytes() != a


# Ways to ask.


def test_from_scratch_with_a_tokenizer_learnt_from_the_corpus(tiny_corpus, token_cache, tmp_path):
    out = tmp_path / "out"
    shape = "hidden_size=32,num_hidden_layers=2,num_attention_heads=4,intermediate_size=64"
    words = ["--model_type=bert", f"--config_overrides={shape}", "--vocab_size=200", f"--train_file={tiny_corpus}",
             f"--output_dir={out}", f"--token_cache_dir={token_cache}", "--max_seq_length=48", "--use_cpu",
             "--per_device_train_batch_size=8", "--num_train_epochs=2", "--learning_rate=3e-3"]  # fmt: skip
    metrics = adapt.main(words)
    assert metrics["eval_perplexity"] < 0.8 * metrics["before"]["eval_perplexity"]
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer) <= 200
    assert tokenizer("pump")["input_ids"][0] == tokenizer.cls_token_id
    assert adapt.main(words) == metrics  # finished: the tokenizer was found again


def test_a_dry_run_says_the_cost_and_writes_nothing(mlm_words, tmp_path, capsys):
    out = tmp_path / "out"
    cost = adapt.main(mlm_words(out, "--dry_run", "--num_train_epochs=2", "--gradient_accumulation_steps=2"))
    assert not out.exists()
    assert cost["steps"] == 16 and cost["seconds"] > 0 and cost["peak_bytes"] > 0  # 15 batches make 8 steps an epoch
    lines = capsys.readouterr().out.splitlines()
    assert sum("[CLS]" in line and " -> " in line for line in lines) == 3
    assert lines[-1] == "dry run: nothing was trained and nothing written"
    metrics = adapt.main(mlm_words(out, "--num_train_epochs=2", "--gradient_accumulation_steps=2"))
    assert read_record(out)["global_step"] == cost["steps"] and metrics["eval_loss"]


def test_a_dry_run_from_scratch_writes_nothing(tiny_corpus, tmp_path):
    words = ["--model_type=bert", "--config_overrides=hidden_size=32,num_hidden_layers=1,num_attention_heads=2",
             "--vocab_size=150", f"--train_file={tiny_corpus}", f"--output_dir={tmp_path / 'out'}", "--use_cpu",
             f"--token_cache_dir={tmp_path / 'cache'}", "--max_seq_length=32", "--dry_run"]  # fmt: skip
    adapt.main(words)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_accuracy_on_demand(mlm_words, tmp_path):
    metrics = adapt.main(mlm_words(tmp_path / "out", *TRAINED, "--prediction_loss_only=false"))
    hits = metrics["eval_accuracy"] * metrics["eval_predicted_tokens"]
    assert 0 <= metrics["eval_accuracy"] <= 1 and hits == pytest.approx(round(hits))
    assert "eval_accuracy" in metrics["before"]


@pytest.mark.parametrize(("epochs", "steps"), [("0.5", 8), ("1.4", 21)])
def test_fractions_of_epochs(mlm_words, tmp_path, epochs, steps):
    adapt.main(mlm_words(tmp_path / "out", f"--num_train_epochs={epochs}", "--eval_steps=100"))
    assert read_record(tmp_path / "out")["global_step"] == steps  # of 15 an epoch, rounded up


def test_a_recipe_with_a_flag_over_it(mlm_words, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    settings = [word.removeprefix("--").replace("=", ": ", 1) for word in mlm_words(tmp_path / "out", *TRAINED)]
    recipe.write_text("\n".join(settings) + "\n")
    adapt.main([str(recipe), "--learning_rate=5e-4"])
    record = read_record(tmp_path / "out")
    assert record["identity"]["learning_rate"] == 5e-4 and record["global_step"] == 3


def test_evaluation_alone(mlm_words, tmp_path):
    metrics = adapt.main(mlm_words(tmp_path / "out", "--do_eval"))
    trained = adapt.main(mlm_words(tmp_path / "trained", *TRAINED))
    assert metrics["eval_perplexity"] == trained["before"]["eval_perplexity"] and "before" not in metrics
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_training_alone(mlm_words, tmp_path):
    metrics = adapt.main(mlm_words(tmp_path / "out", "--do_train", "--max_steps=3"))
    assert not any(name.startswith("eval") for name in metrics)
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("architecture", ["distilbert", "electra"])
def test_an_architecture_without_a_flat_forward_is_trained_all_the_same(mlm_words, tmp_path, tiny_bert, architecture):
    shapes = {
        "distilbert": "dim=32,n_layers=2,n_heads=4,hidden_dim=64",
        "electra": "hidden_size=32,embedding_size=32,num_hidden_layers=2,num_attention_heads=4,intermediate_size=64",
    }
    words = [word for word in mlm_words(tmp_path / "out") if not word.startswith("--model_name_or_path")]
    new = [
        f"--model_type={architecture}",
        f"--config_overrides={shapes[architecture]}",
        f"--tokenizer_name={tiny_bert}",
    ]
    metrics = adapt.main([*words, *new, "--num_train_epochs=2", "--learning_rate=3e-3", "--eval_strategy=epoch"])
    assert metrics["eval_perplexity"] < 0.9 * metrics["before"]["eval_perplexity"]


# The library's own examples, with a local model and local files in place of the Hub's.


def example(tiny_bert, output_dir, token_cache, *more):
    common = "--per_device_train_batch_size 8 --per_device_eval_batch_size 8 --do_train --do_eval"
    ours = ["--token_cache_dir", token_cache, "--max_steps", "2", "--use_cpu"]
    return ["--model_name_or_path", tiny_bert, *more, *common.split(), "--output_dir", str(output_dir), *ours]


@pytest.mark.parametrize("extra", [[], ["--line_by_line"], ["--pad_to_max_length", "--line_by_line"]], ids=str)
def test_the_librarys_examples_on_files(tiny_bert, tiny_corpus, validation_file, token_cache, tmp_path, extra):
    files = ["--train_file", tiny_corpus, "--validation_file", validation_file, *extra]
    metrics = adapt.main(example(tiny_bert, tmp_path / "out", token_cache, *files))
    record = read_record(tmp_path / "out")
    assert record["corpus"]["documents_kept"] == 230 and metrics["eval_loss"] > 0
    assert (record["corpus"]["train_rows"] == record["corpus"]["train_windows"]) == bool(extra)


@pytest.mark.parametrize("splits", [["train", "validation"], ["train"]], ids=str)
def test_the_librarys_example_on_a_hub_data_set(tiny_bert, tiny_documents, token_cache, tmp_path, monkeypatch, splits):
    parts = {"train": tiny_documents[:150], "validation": tiny_documents[150:]}
    asked = []

    def load_dataset(name, config_name, split, **settings):
        asked.append((name, config_name, split))
        return datasets.Dataset.from_dict({"text": parts[split]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *names, **settings: splits)
    version = SimpleNamespace(config_id="wikitext-2-raw-v1", hash=str(len(splits)))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names, **settings: version)
    hub = ["--dataset_name", "wikitext", "--dataset_config_name", "wikitext-2-raw-v1"]
    adapt.main(example(tiny_bert, tmp_path / "out", token_cache, *hub))
    assert asked == [(hub[1], hub[3], split) for split in splits]
    corpus = read_record(tmp_path / "out")["corpus"]
    assert corpus["documents_kept"] == (200 if len(splits) == 2 else 150)


# What a user can mend is one line.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_seq_length=65"], "more than the model's 64 positions"),
        (["--train_file=nowhere.txt"], "nowhere.txt"),
        (["--model_type=bert"], "--model_name_or_path"),
        (["--mlm_probability=0"], "--mlm_probability 0"),
        (["--dataset_name=wikitext"], "two corpora"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(mlm_words, tmp_path, capsys, flags, message):
    assert run_door(adapt.main, mlm_words(tmp_path / "out", *flags)) == EXIT_BAD_INPUT
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_a_corpus_in_a_foreign_script_is_refused(mlm_words, tmp_path):
    path = tmp_path / "greek.txt"
    path.write_text("η παλιά αντλία στάζει\nτο νέο φίλτρο δουλεύει\nη μικρή βαλβίδα κολλάει\n", encoding="utf-8")
    with pytest.raises(InputError, match="are unknown to it"):
        adapt.main(mlm_words(tmp_path / "out", f"--train_file={path}", *TRAINED))


def test_a_single_document_cannot_be_split(mlm_words, tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("the old pump leaks\n", encoding="utf-8")
    with pytest.raises(InputError, match="--validation_file"):
        adapt.main(mlm_words(tmp_path / "out", f"--train_file={path}", *TRAINED))


# What is predicted.


def test_modes_train_are_told_apart_and_evaluated_alike(mlm_words, tmp_path):
    dictionary, terms = tmp_path / "words.txt", tmp_path / "terms.txt"
    dictionary.write_text("旧水泵 30 n\n备用软管\n", encoding="utf-8")
    terms.write_text("old pump\n滤网\n", encoding="utf-8")
    runs = {
        "token": [],
        "words": ["--masking=whole_word", f"--word_dictionary={dictionary}"],
        "spans": ["--masking=span", f"--term_list={terms}", "--mlm_probability_start=0.4"],
    }
    results = {name: adapt.main(mlm_words(tmp_path / name, *TRAINED, *flags)) for name, flags in runs.items()}
    assert len({result["before"]["eval_perplexity"] for result in results.values()}) == 1
    assert len({result["eval_perplexity"] for result in results.values()}) == 3
    record = read_record(tmp_path / "spans")
    assert record["masking"] == {
        "masking": "span", "term_list": str(terms), "term_weight": 3.0, "mlm_probability_start": 0.4
    }  # fmt: skip
    terms.write_text("old pump\n", encoding="utf-8")
    with pytest.raises(InputError, match="term_list: .* another --output_dir"):
        adapt.main(mlm_words(tmp_path / "spans", *TRAINED, *runs["spans"]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--word_dictionary=words.txt"], "give --masking whole_word with it"),
        (["--term_weight=2"], "give --term_list with it"),
        (["--term_list=nowhere.txt"], "nowhere.txt"),
        (["--mlm_probability_start=1.5"], "--mlm_probability_start 1.5 is no share"),
        (["--masking=words"], "invalid choice: 'words'"),
    ],
)
def test_a_mistake_about_masks_is_one_line(mlm_words, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))


def test_a_run_of_spans_with_a_falling_rate_continues_to_the_bit(mlm_words, tmp_path):
    flags = [
        "--masking=span",
        "--mlm_probability_start=0.4",
        "--max_steps=6",
        "--save_strategy=steps",
        "--save_steps=3",
    ]
    adapt.main(mlm_words(tmp_path / "whole", *flags))
    adapt.main(mlm_words(tmp_path / "broken", *flags))
    broken = tmp_path / "broken"
    for name in ("model.safetensors", "checkpoint-6"):
        path = broken / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_record(broken, {**read_record(broken), "status": "running"})
    adapt.main(mlm_words(broken, *flags))
    assert (broken / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


# What it did to the model.


def test_the_page_tells_slices_guesses_and_movement(mlm_words, tmp_path, capsys):
    terms = tmp_path / "terms.txt"
    terms.write_text("pump\nvalve\n滤网\n", encoding="utf-8")
    out = tmp_path / "out"
    flags = ["--num_train_epochs=4", "--learning_rate=1e-2", "--eval_steps=100", f"--term_list={terms}"]
    metrics = adapt.main(mlm_words(out, *flags, "--prediction_loss_only=false"))
    base, adapted = metrics["masked_slices"]["base"], metrics["masked_slices"]["adapted"]
    assert adapted["all"]["tokens"] == metrics["eval_predicted_tokens"] == base["all"]["tokens"]
    assert adapted["all"]["accuracy_at_1"] == pytest.approx(metrics["eval_accuracy"], abs=1e-3)
    assert adapted["all"]["accuracy_at_5"] > base["all"]["accuracy_at_5"]
    assert 0 < adapted["domain terms"]["tokens"] < adapted["all"]["tokens"]
    page = (out / "adaptation.md").read_text(encoding="utf-8")
    assert "| domain terms |" in page and "| layer 2 |" in page and "____" in page
    assert metrics["fill_mask"] == read_record(out)["metrics"]["fill_mask"]
    assert "domain terms" in capsys.readouterr().out
    adapt.main(mlm_words(tmp_path / "without", *TRAINED, "--no_report_slices"))
    assert "masked_slices" not in read_record(tmp_path / "without")["metrics"]


# New words.


def test_new_words_are_mined_added_and_saved(mlm_words, tmp_path, tiny_documents, tiny_bert):
    corpus = tmp_path / "corpus.txt"
    lines = [f"{text} pumphouse valvehose" for text in tiny_documents if text.isascii()]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    flags = [f"--train_file={corpus}", "--extend_vocab=2", "--new_words_warmup_steps=2", *TRAINED]
    adapt.main(mlm_words(out, *flags))
    told = read_record(out)["vocabulary"]
    assert told["words"] == 2 and told["tokens_per_word"]["after"] < told["tokens_per_word"]["before"]
    rows = [line.split("\t") for line in (out / "new_words.tsv").read_text(encoding="utf-8").splitlines()]
    assert {row[0] for row in rows} == {"word", "pumphouse", "valvehose"}
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForMaskedLM.from_pretrained(out)
    (number,) = tokenizer("pumphouse", add_special_tokens=False)["input_ids"]
    assert model.config.vocab_size == BertForMaskedLM.from_pretrained(tiny_bert).config.vocab_size + 2
    assert number >= model.config.vocab_size - 2
    edited = tmp_path / "edited.tsv"
    edited.write_text("word\tcount\npumphouse\t9\n", encoding="utf-8")
    adapt.main(mlm_words(tmp_path / "edited", f"--train_file={corpus}", f"--new_words={edited}", *TRAINED))
    assert read_record(tmp_path / "edited")["vocabulary"]["words"] == 1


def test_at_first_only_new_rows_move(mlm_words, tmp_path, tiny_bert):
    words = tmp_path / "words.txt"
    words.write_text("pumphouse\n", encoding="utf-8")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the old pumphouse leaks\na small pumphouse hums\n", encoding="utf-8")
    out = tmp_path / "out"
    flags = [f"--train_file={corpus}", f"--new_words={words}", "--keep_duplicates", "--mlm_probability=0.9"]
    adapt.main(mlm_words(out, *flags, *TRAINED, "--weight_decay=0.1"))
    base, after = BertForMaskedLM.from_pretrained(tiny_bert), BertForMaskedLM.from_pretrained(out)
    layers = [model.bert.encoder.state_dict() for model in (base, after)]
    assert all(torch.equal(values, layers[1][name]) for name, values in layers[0].items())


def test_terms_are_mined_against_general_text(mlm_words, tmp_path, tiny_documents):
    general = tmp_path / "general.txt"
    general.write_text("the old door is open\nthe cold rain\nin the morning\n" * 100, encoding="utf-8")
    flags = ["--mine_terms=5", f"--replay_file={general}", "--keep_duplicates", "--masking=whole_word"]
    metrics = adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    terms = (tmp_path / "out" / "terms.txt").read_text(encoding="utf-8").splitlines()
    assert len(terms) == 5 and "the" not in terms
    assert metrics["masked_slices"]["adapted"]["domain terms"]["tokens"] > 0
    with pytest.raises(InputError, match="--mine_terms compares the corpus with general text"):
        adapt.main(mlm_words(tmp_path / "without", *TRAINED, "--mine_terms=5"))
