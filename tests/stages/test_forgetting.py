"""Against forgetting: general text measured and replayed, the pull to the base, weights between base and adapted."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from pair_pkg.errors import InputError
from pair_pkg.records import read_record
from pair_pkg.stages import adapt

TRAINED = ("--max_steps=4", "--learning_rate=3e-3", "--eval_steps=4")


@pytest.fixture
def general_file(tmp_path, tiny_documents):
    path = tmp_path / "general.txt"
    path.write_text("\n".join(f"{text} twice" for text in tiny_documents[:60]) + "\n", encoding="utf-8")
    return str(path)


def test_general_text_is_measured_before_and_after_and_replayed_by_share(mlm_words, tmp_path, general_file, capsys):
    metrics = {}
    for share in (0, 0.25):
        out = tmp_path / str(share)
        flags = [f"--replay_file={general_file}", f"--replay_share={share}"]
        metrics[share] = adapt.main(mlm_words(out, *TRAINED, *flags))
        record = read_record(out)
        rows = record["corpus"]["train_rows"]
        assert record["corpus"]["mixed_rows"] == ({"general": round(rows / 3)} if share else {})
        assert record["general"]["documents_kept"] == 60
    assert metrics[0]["before"]["eval_general_perplexity"] == metrics[0.25]["before"]["eval_general_perplexity"]
    assert metrics[0]["eval_general_perplexity"] != metrics[0.25]["eval_general_perplexity"]
    assert "perplexity of general text:" in capsys.readouterr().out
    plain = adapt.main(mlm_words(tmp_path / "plain", *TRAINED))
    assert plain["eval_loss"] == metrics[0]["eval_loss"]  # measuring changes nothing


def test_movement_is_told_by_layer_and_the_pull_shortens_it(mlm_words, tmp_path):
    moved = [
        adapt.main(mlm_words(tmp_path / f"pull{pull}", *TRAINED, f"--l2_sp={pull}"))["weight_movement"]
        for pull in (0, 10)
    ]
    assert list(moved[0]) == ["embeddings", "layer 1", "layer 2", "head"]
    assert all(moved[1][part] < moved[0][part] for part in ("embeddings", "layer 1", "layer 2"))


def test_the_merged_checkpoint_lies_between(mlm_words, tmp_path, tiny_bert):
    adapted, merged = tmp_path / "adapted", tmp_path / "merged"
    adapt.main(mlm_words(adapted, *TRAINED))
    metrics = adapt.main(mlm_words(merged, *TRAINED, "--merge_alpha=0.5"))
    sweep = metrics["merge"]["sweep"]
    assert metrics["merge"]["alpha"] == 0.5 and list(sweep) == ["0.0", "0.5", "1.0"]
    assert sweep["0.5"]["perplexity"] == pytest.approx(metrics["eval_perplexity"])
    base = AutoModelForMaskedLM.from_pretrained(tiny_bert).state_dict()
    ends, middle = load_file(adapted / "model.safetensors"), load_file(merged / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    torch.testing.assert_close(middle[name], (base[name] + ends[name]) / 2)
    head = "cls.predictions.transform.dense.weight"
    assert torch.equal(middle[head], ends[head])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replay_share=0.1"], "give --replay_file with it"),
        (["--merge_alpha=1.5"], "--merge_alpha 1.5 is out of range"),
        (["--merge_alpha", "0.25", "0.5"], "--pair_file"),
        (["--l2_sp=0.1", "--lora_rank=2"], "--lora_rank freezes"),
        (["--l2_sp=-1"], "--l2_sp -1.0 is out of range"),
    ],
)
def test_a_mistake_is_one_line(mlm_words, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    assert not (tmp_path / "out" / "model.safetensors").exists()
