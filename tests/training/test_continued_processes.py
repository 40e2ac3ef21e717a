"""Several processes at both doors: divided weights, and runs that as many, more or fewer processes continue."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification

from pair_pkg.data.batches import epoch_order
from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.records import read_json
from pair_pkg.stages import adapt

# 31 rows in steps of 8: an epoch is 4 steps, its last one of 7 rows. The cut falls into the second epoch.
NUM_STEPS, CUT = 8, 5
SETTINGS = ("--hidden_dropout_prob=0", "--attention_probs_dropout_prob=0", "--max_train_samples=31",
            f"--max_steps={NUM_STEPS}", "--learning_rate=1e-3", "--adam_epsilon=1e-6", "--disable_tqdm")  # fmt: skip
EIGHT_BY_TWO, EIGHT_BY_FOUR = "--per_device_train_batch_size=4", "--per_device_train_batch_size=2"
ALLOWED = ("--allow_changed", "world_size", "per_device_train_batch_size", "gradient_accumulation_steps")
PAIR_RUNS = {"cross_encoder": (), "bi_encoder": ("--architecture=bi_encoder", "--loss=contrastive")}


@pytest.fixture(scope="module")
def pair_words(tiny_bert, tiny_pairs, tmp_path_factory):
    """``pair_words(output_dir, "--flag", ...)``: the words of a small run of stage 2."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    others = [second for _, second in tiny_pairs[7:]]
    rows = [f"{a},{b if n % 2 else others[n]},{n % 2}" for n, (a, b) in enumerate(tiny_pairs[:80])]
    path.write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n", encoding="utf-8")
    common = [f"--model_name_or_path={tiny_bert}", f"--train_file={path}", "--max_seq_length=48", "--bf16=false",
              "--use_cpu", "--logging_steps=1", "--save_strategy=no", "--per_device_train_batch_size=8"]  # fmt: skip
    return lambda folder, *more: [f"--output_dir={folder}", *common, *SETTINGS, *more]


@pytest.fixture(scope="module")
def folder(run_forked, fsdp_environment, mlm_words, pair_words, tmp_path_factory):
    """Folder of all runs of this file, by name."""
    place = tmp_path_factory.mktemp("runs")

    def mlm(name, *flags, part="", **more):
        words = mlm_words(place / name, *SETTINGS, *flags)
        return {"door": "run_mlm.py", "words": words, "rows": str(place / f"{name}{part}"), **more}

    def pairs(name, architecture, *flags, **more):
        words = pair_words(place / f"{architecture}, {name}", *PAIR_RUNS[architecture], *flags)
        return {"door": "run_pair_cls.py", "words": words, **more}

    one = [mlm("whole"), mlm("1 to 2", stop_at=CUT), *(pairs("whole", kind) for kind in PAIR_RUNS)]
    one.append(mlm("other rows", stop_at=CUT))
    one.append(mlm("other rows", "--per_device_train_batch_size=16", *ALLOWED, part=", continued"))
    two = [mlm("2 to 1", EIGHT_BY_TWO, stop_at=CUT), mlm("1 to 2", EIGHT_BY_TWO, *ALLOWED, part=", continued")]
    accumulated = "--gradient_accumulation_steps=2"
    divided = [
        mlm("divided", EIGHT_BY_TWO),
        mlm("divided, cut", EIGHT_BY_TWO, stop_at=CUT),
        mlm("divided, cut", EIGHT_BY_TWO),
        mlm("divided, 2 to 4", EIGHT_BY_TWO, stop_at=CUT),
        mlm("divided, left", EIGHT_BY_TWO, stop_at=CUT),
        *(pairs("divided", kind, EIGHT_BY_TWO, stop_at=CUT) for kind in PAIR_RUNS),
        *(pairs("divided", kind, EIGHT_BY_TWO) for kind in PAIR_RUNS),
    ]
    saved = (EIGHT_BY_TWO, "--save_strategy=steps", "--save_steps=2")
    said = run_forked(
        {"processes": 2, "environment": fsdp_environment, "runs": [mlm("divided, died", *saved, die_at=CUT)]},
        {"processes": 2, "environment": fsdp_environment, "runs": [mlm("divided, died", *saved)]},
        {"processes": 1, "runs": one},
        {"processes": 2, "runs": two},
        {"processes": 1, "runs": [mlm("2 to 1", EIGHT_BY_TWO, accumulated, *ALLOWED, part=", continued")]},
        {"processes": 2, "environment": fsdp_environment, "runs": divided},
        {"processes": 4, "environment": fsdp_environment, "runs": [mlm("divided, 2 to 4", EIGHT_BY_FOUR, *ALLOWED)]},
    )
    (place / "said").write_text(said)
    return place


def steps_of(folder, name, processes, accumulated=1):
    """The [epoch, row] of each optimizer step, those of a micro-step in the order of the processes."""
    parts = [read_json(folder / f"{name}-{rank}.json") for rank in range(processes)]
    batches = [sum(batch, []) for batch in zip(*parts, strict=True)]
    return [sum(batches[start : start + accumulated], []) for start in range(0, len(batches), accumulated)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "before", "behind", "accumulated"), [("1 to 2", 1, 2, 1), ("2 to 1", 2, 1, 2)])
def test_another_number_of_processes_goes_on_with_the_same_rows(folder, close_run, name, before, behind, accumulated):
    wanted = steps_of(folder, "whole", 1)
    assert [len(rows) for rows in wanted] == [8, 8, 8, 7, 8, 8, 8, 7]
    assert steps_of(folder, name, before) == wanted[:CUT]
    assert steps_of(folder, f"{name}, continued", behind, accumulated) == wanted[CUT:]
    close_run(folder / name, folder / "whole", NUM_STEPS)


@pytest.mark.slow
def test_divided_weights_are_saved_and_continued_bit_equal(folder, close_run, same_run):
    """FSDP, told to stop in the middle, and then left alone; the whole run is that of one process."""
    close_run(folder / "divided", folder / "whole", NUM_STEPS)
    same_run(folder / "divided, cut", folder / "divided")


@pytest.mark.slow
def test_divided_weights_are_continued_by_more_processes(folder, close_run):
    close_run(folder / "divided, 2 to 4", folder / "whole", NUM_STEPS)


@pytest.mark.slow
def test_the_death_of_a_process_is_told_in_a_line_and_the_others_end(folder, close_run):
    said = (folder / "said").read_text()
    assert "interrupted: another process of this launch ended; the same command goes on" in said
    assert "Traceback" not in said
    close_run(folder / "divided, died", folder / "whole", NUM_STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", PAIR_RUNS)
def test_divided_weights_of_pairs_end_as_whole_ones(folder, close_run, architecture):
    """Stage 2 under FSDP, told to stop and continued; what it leaves is a plain folder."""
    ours, whole = (folder / f"{architecture}, {name}" for name in ("divided", "whole"))
    close_run(ours, whole, NUM_STEPS)
    _, info = AutoModel.from_pretrained(ours, output_loading_info=True)
    assert not info["missing_keys"]
    if architecture == "bi_encoder":
        vectors = [SentenceTransformer(str(place), device="cpu").encode(["the old pump"]) for place in (ours, whole)]
        np.testing.assert_allclose(*vectors, rtol=0, atol=1e-5)
    else:
        _, info = AutoModelForSequenceClassification.from_pretrained(ours, output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.slow
def test_a_divided_optimizer_is_not_dropped_in_silence(folder, mlm_words, capfd):
    words = mlm_words(folder / "divided, left", *SETTINGS, EIGHT_BY_TWO, *ALLOWED)
    assert run_door(adapt.main, words) == EXIT_BAD_INPUT
    assert "divided_by: FSDP -> None" in capfd.readouterr().err
    assert run_door(adapt.main, [*words, "divided_by"]) == EXIT_BAD_INPUT
    assert "optimizer state was written by FSDP and cannot be read by a plain run" in capfd.readouterr().err


def test_one_process_divides_nothing_and_says_so(mlm_words, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as accelerate launch does
    assert run_door(adapt.main, mlm_words(tmp_path / "out", "--max_steps=1")) == EXIT_BAD_INPUT
    assert "FSDP divides weights between processes, and there is one" in capfd.readouterr().err


@pytest.mark.slow
def test_other_rows_in_a_step_go_on_by_steps_and_it_is_told(folder):
    """Behind step 5 of 8 rows, 39 rows in, a step has 16: it goes on as behind 5 such steps, two epochs and 16 in."""
    (first, *_) = steps_of(folder, "other rows, continued", 1)
    assert first == [[2, row] for row in epoch_order(31, seed=42, epoch=2)[16:31].tolist()]
    said = (folder / "said").read_text()
    assert (
        "had come to row 8 of epoch 1, and goes on behind step 5 at row 16 of epoch 2, so that 39 rows are passed"
        in said
    )
