"""A changed setting of a run that goes on is refused by name, old -> new, or allowed key by key: every key there is."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from pair_pkg.errors import InputError
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.records import write_record
from pair_pkg.stages import adapt, finetune, lifecycle
from pair_pkg.training.arguments import StageTrainingArguments
from pair_pkg.training.checkpoints import DECISIVE_ARGUMENTS, RUNNING, Opened

# Key of the identity, and the words that change it ({other}: a folder of files that differ).
BEST = "--load_best_model_at_end --metric_for_best_model=loss"
SHARED = [
    ("model", "--model_name_or_path={other}/same"), ("model_fingerprint", "--model_name_or_path={other}/weights"),
    ("tokenizer", "--tokenizer_name={other}/tokenizer"), ("hidden_dropout_prob", "--hidden_dropout_prob=0.2"),
    ("attention_probs_dropout_prob", "--attention_probs_dropout_prob=0.2"),
    ("do_train", "--do_train=false --do_eval=true"),
    ("per_device_train_batch_size", "--per_device_train_batch_size=4"),
    ("gradient_accumulation_steps", "--gradient_accumulation_steps=2"), ("num_train_epochs", "--num_train_epochs=5"),
    ("max_steps", "--max_steps=9"), ("learning_rate", "--learning_rate=3e-4"),
    ("lr_scheduler_type", "--lr_scheduler_type=cosine"),
    ("lr_scheduler_kwargs", '--lr_scheduler_kwargs={{"num_cycles":2}}'), ("warmup_steps", "--warmup_steps=3"),
    ("optim", "--optim=adafactor"), ("optim_args", "--optim_args=a=1"), ("weight_decay", "--weight_decay=0.1"),
    ("adam_beta1", "--adam_beta1=0.8"), ("adam_beta2", "--adam_beta2=0.8"), ("adam_epsilon", "--adam_epsilon=1e-5"),
    ("max_grad_norm", "--max_grad_norm=0.5"), ("bf16", "--bf16=true"), ("seed", "--seed=7"),
    ("data_seed", "--data_seed=7"), ("neftune_noise_alpha", "--neftune_noise_alpha=5"),
    ("optim_target_modules", "--optim_target_modules=all-linear"), ("world_size", ""), ("fp16", ""),
    ("max_seq_length", "--max_seq_length=32"), ("layer_decay", "--layer_decay=0.9"),
    ("freeze_layers", "--freeze_layers=1"), ("lora_rank", "--lora_rank=2"),
    ("lora_alpha", "--lora_rank=2 --lora_alpha=3"), ("lora_dropout", "--lora_rank=2 --lora_dropout=0.1"),
    ("load_best_model_at_end", f"{BEST} --save_strategy=epoch --eval_strategy=epoch"),
]  # fmt: skip
PAIR = "--pair_file {other}/pairs.tsv"
STAGE_1 = [
    *SHARED, ("corpus", "--train_file={other}/corpus.txt"), ("corpus", "--document_per=blank_line"),
    ("corpus", "--encoding=utf-8"), ("corpus", "--keep_duplicates"), ("corpus", "--near_duplicates=0.8"),
    ("corpus", "--train_file={other}/corpus.jsonl --text_column=text"),
    ("validation", "--validation_file={other}/corpus.txt"), ("validation", "--validation_split_percentage=9"),
    ("line_by_line", "--line_by_line"), ("mlm_probability", "--mlm_probability=0.2"),
    ("max_train_samples", "--max_train_samples=20"), ("max_eval_samples", "--max_eval_samples=5"),
    ("do_eval", "--do_train=true --do_eval=false"), ("stop_by", "--stop_by=perplexity"),
    ("patience", "--stop_by=perplexity --patience=2"),
    ("config_overrides", "--model_name_or_path= --tokenizer_name={other}/tokenizer --model_type=bert "
     "--config_overrides=hidden_size=32,num_attention_heads=2"),
    ("masking", "--masking=whole_word"),
    ("word_dictionary", "--masking=whole_word --word_dictionary={other}/words.txt"),
    ("term_list", "--term_list={other}/words.txt"), ("term_weight", "--term_list={other}/words.txt --term_weight=3"),
    ("mine_terms", "--replay_file={other}/corpus.txt --mine_terms=5"),
    ("mlm_probability_start", "--mlm_probability_start=0.3"), ("objective", "--objective=tsdae"),
    ("objective_share", "--objective=tsdae --objective_share=0.4"),
    ("objective_pooling", "--objective=tsdae --objective_pooling=cls"),
    ("replay_file", "--replay_file={other}/corpus.txt"),
    ("replay_share", "--replay_file={other}/corpus.txt --replay_share=0.2"), ("l2_sp", "--l2_sp=0.01"),
    ("merge_alpha", "--merge_alpha=0.5"), ("pair_file", PAIR),
    ("pair_validation_file", f"{PAIR} --pair_validation_file {{other}}/held.tsv"),
    ("pair_test_file", f"{PAIR} --pair_test_file {{other}}/held.tsv"),
    ("pair_settings", PAIR + ' --pair_settings={{"split_seed":3}}'), ("select_top", f"{PAIR} --select_top=3"),
    ("include_pair_text", f"{PAIR} --include_pair_text"), ("transductive", f"{PAIR} --transductive"),
    ("pair_text_format", f"{PAIR} --include_pair_text --pair_text_format=pairs"),
    ("pair_text_share", f"{PAIR} --include_pair_text --pair_text_share=0.2"), ("extend_vocab", "--extend_vocab=3"),
    ("new_words", "--new_words={other}/words.txt"),
    ("new_words_warmup_steps", "--new_words={other}/words.txt --new_words_warmup_steps=2"),
    ("streaming", "--streaming --max_steps=9"),
    ("stream_buffer", "--streaming --max_steps=9 --stream_buffer=100"),
    ("stream_validation", "--streaming --max_steps=9 --stream_validation=10"),
]  # fmt: skip
BI = "--architecture=bi_encoder"
STAGE_2 = [
    *SHARED, ("architecture", BI), ("pooling", f"{BI} --pooling=cls"), ("loss", f"{BI} --loss=contrastive"),
    ("matryoshka_dims", f"{BI} --matryoshka_dims 16 32"), ("num_labels", "--num_labels=1"),
    ("head_norm", "--head_norm=batch"), ("symmetric", "--symmetric=false"), ("class_weights", "--class_weights=auto"),
    ("focal_gamma", "--focal_gamma=2"), ("decide_by", "--decide_by=f1"),
    ("wanted_precision", "--decide_by=precision --wanted_precision=0.8"), ("augment_graph", "--augment_graph"),
    ("text_normalization", "--text_normalization=none"), ("labels", "--train_file={other}/more.tsv"),
    ("train_pairs", "--max_train_samples=20"), ("validation_pairs", "--validation_split_percentage=30"),
    ("validation_pairs", "--max_eval_samples=5"), ("test_pairs", "--test_split_percentage=30"),
    ("train_pairs", "--split_seed=9"),
    ("test_pairs", "--test_file={other}/pairs.tsv --allow_leaks"),
    ("validation_pairs", "--validation_file={other}/pairs.tsv --allow_leaks"),
    ("fgm_epsilon", "--fgm_epsilon=0.5"), ("rdrop_alpha", "--rdrop_alpha=1"),
    ("weight_averaging", "--weight_averaging=ema"), ("ema_decay", "--weight_averaging=ema --ema_decay=0.8"),
    ("reinit_layers", "--reinit_layers=1"),
]  # fmt: skip
REFUSED = {"label_smoothing_factor"}  # in any run
# Flags of ours that decide on nothing in a run: where they lead to, how it is computed, what is told; or data, of which
# the identity has the content.
INDIFFERENT = {
    "dataset_name", "dataset_config_name", "pad_to_max_length", "preprocessing_num_workers",
    "encoding", "overwrite_cache", "token_cache_dir", "dry_run", "config_name", "cache_dir", "model_revision", "token",
    "trust_remote_code", "use_fast_tokenizer", "low_cpu_mem_usage", "dtype", "vocab_size", "select_by",
    "overwrite_output_dir", "allow_changed", "report_slices", "predict_file", "sentence1_column", "sentence2_column",
    "label_column", "header", "delimiter", "label_kind", "class_names", "label_range", "strict", "frozen_baseline",
    "seeds", "k_folds",
}  # fmt: skip


class Seen(Exception):
    """A run came as far as its folder, and is not to go on."""


@pytest.fixture(scope="module")
def other(tmp_path_factory, tiny_bert, tiny_corpus, tiny_pairs, tiny_documents):
    """A folder of a model, a tokenizer, corpora, words and pairs that are others."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("same", "weights"):
        shutil.copytree(tiny_bert, folder / name)
    weights = load_file(folder / "weights" / "model.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, folder / "weights" / "model.safetensors")
    shutil.copytree(tiny_bert, folder / "tokenizer")
    train_tokenizer(tiny_documents[:100], 280).save_pretrained(folder / "tokenizer")
    lines = Path(tiny_corpus).read_text(encoding="utf-8").splitlines()[:150]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (folder / "words.txt").write_text("pump\nvalve\n水泵\n", encoding="utf-8")
    parts = {"pairs": (tiny_pairs[:60], "01"), "held": (tiny_pairs[60:120], "01"), "more": (tiny_pairs[60:120], "yn")}
    for name, (part, labels) in parts.items():
        rows = [f"{left}\t{right}\t{labels[row % 2]}" for row, (left, right) in enumerate(part)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
    return folder


@pytest.fixture(params=["stage 1", "stage 2"])
def stage(request, other, tiny_bert, mlm_words, tmp_path):
    """Its module, the words of a run of it, and the changes."""
    if request.param == "stage 1":
        return adapt, mlm_words(tmp_path / "out", "--eval_strategy=steps", "--eval_steps=2"), STAGE_1
    words = [f"--model_name_or_path={tiny_bert}", f"--train_file={other / 'pairs.tsv'}", "--bf16=false", "--use_cpu",
             f"--output_dir={tmp_path / 'out'}"]  # fmt: skip
    return finetune, words, STAGE_2


def test_every_key_is_refused_by_name_and_allowed_by_name(stage, other, tmp_path, monkeypatch):
    module, words, changes = stage
    identities = []

    def note(args, identity, replace_other):
        identities.append((args, identity))
        raise Seen

    def identity_of(more):
        with pytest.raises(Seen):
            module.main([*words, *more.format(other=other).split()])
        return identities[-1]

    monkeypatch.setattr(module, "open_stage", note)
    _, before = identity_of("")
    write_record(tmp_path / "out", {"status": RUNNING, "identity": before})
    keys = set(before)
    for key, more in changes:
        with monkeypatch.context() as patch:
            if key == "world_size":
                patch.setattr(StageTrainingArguments, "world_size", property(lambda args: 2))
            args, after = identity_of(more)
        if key == "fp16":  # no processor trains in it
            after = {**after, "fp16": True}
        keys |= set(after)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        assert key in changed, more
        for name in changed:
            args.allow_changed = [allowed for allowed in changed if allowed != name]
            with pytest.raises(InputError) as refusal:
                lifecycle.open_stage(args, after, replace_other=False)
            assert f"{name}: {before.get(name)} -> {after.get(name)}" in str(refusal.value)
            assert str(refusal.value).count(" -> ") == 1 and "--allow_changed" in str(refusal.value)
        args.allow_changed = None
        with pytest.raises(InputError, match=" -> "):
            lifecycle.open_stage(args, after, replace_other=False)
        args.allow_changed = changed
        assert lifecycle.open_stage(args, after, replace_other=False) == Opened()
    assert keys - {key for key, _ in changes} - REFUSED == {"stage"}
    assert {*DECISIVE_ARGUMENTS} <= keys


def test_every_flag_of_ours_is_swept_or_known_to_decide_on_nothing(stage):
    module, _, changes = stage
    librarys = {item.name for item in dataclasses.fields(TrainingArguments)}
    ours = {item.name for kind in module.FLAG_TYPES for item in dataclasses.fields(kind)} - librarys
    swept = {word.partition("=")[0].removeprefix("--") for _, more in changes for word in more.split()}
    assert ours - swept - INDIFFERENT == set()


@pytest.mark.parametrize(
    "more",
    ["--metric_for_best_model=perplexity", "--greater_is_better=true", "--eval_steps=4", "--eval_delay=2",
     "--save_steps=8", "--save_strategy=epoch --eval_strategy=epoch"],
)  # fmt: skip
def test_what_chooses_the_best_model_decides_on_the_result_where_it_is_loaded(more, mlm_words, tmp_path, monkeypatch):
    identities = []

    def note(args, identity, replace_other):
        identities.append(identity.get("load_best_model_at_end"))
        raise Seen

    monkeypatch.setattr(adapt, "open_stage", note)
    common = "--eval_strategy=steps --eval_steps=2 --save_strategy=steps --save_steps=4 --metric_for_best_model=loss"
    words = mlm_words(tmp_path / "out", *common.split())
    more = more.split()
    for best, given in itertools.product(([], ["--load_best_model_at_end"]), ([], more)):
        with pytest.raises(Seen):
            adapt.main([*words, *best, *given])
    assert identities[:2] == [None, None] and None not in identities[2:] and identities[2] != identities[3]
