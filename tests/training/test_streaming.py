"""Stage 1 on a stream: it learns, keeps nothing, and goes on to the same bits; what needs a whole corpus is refused."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from pair_pkg.data.stream import Mark, RowStream, StreamSampler
from pair_pkg.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InputError, run_door
from pair_pkg.records import read_json, read_record
from pair_pkg.stages import adapt, mlm_trainer
from pair_pkg.training.streaming import TrainingStream
from pair_pkg.training.trainer import StageTrainer
from tests.data.test_stream import build, numbered

ROOT = Path(__file__).parents[2]
NUM_DOCUMENTS = 140  # 20 to validate on; the rest is some 70 rows in several blocks: 14 steps of 8 pass an epoch's end
STREAM = ("--streaming", "--stream_validation=20", "--stream_buffer=2000", "--max_steps=14", "--masking=whole_word",
          "--mlm_probability_start=0.3", "--attention_probs_dropout_prob=0.1", "--learning_rate=1e-3",
          "--save_strategy=steps", "--save_steps=4", "--eval_steps=6", "--per_device_eval_batch_size=16")  # fmt: skip


class KilledAt(TrainerCallback):
    """Ends the run behind a step, as a kill does: nothing handles it."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **settings):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def run(mlm_words, monkeypatch, tmp_path, tiny_documents):
    """``run(name, *flags, killed_at=)``: stage 1 on a stream of three files; the exit status."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(
            "\n".join(tiny_documents[number:NUM_DOCUMENTS:3]) + "\n", encoding="utf-8"
        )

    def run_stage(name, *flags, killed_at=None):
        callbacks = [] if killed_at is None else [KilledAt(killed_at)]
        monkeypatch.setattr(mlm_trainer, "StageTrainer", functools.partial(StageTrainer, callbacks=callbacks))
        return run_door(adapt.main, mlm_words(tmp_path / name, f"--train_file={folder}", *STREAM, *flags))

    return run_stage


@pytest.fixture
def seen(monkeypatch):
    """The ids of all rows that trainings take, batch by batch."""
    batches = []
    read = TrainingStream.build_sampler

    def build_sampler(self, checkpoint):
        sampler = read(self, checkpoint)
        rows_of = StreamSampler.__iter__

        class Recorded(StreamSampler):
            def __iter__(self):
                for batch in rows_of(self):
                    batches.append([row.ids.tolist() for row in batch])
                    yield batch

        sampler.__class__ = Recorded
        return sampler

    monkeypatch.setattr(TrainingStream, "build_sampler", build_sampler)
    return batches


def test_it_learns_and_keeps_nothing_of_the_corpus(run, seen, tmp_path, capfd):
    cache = tmp_path / "cache"
    assert run("out", f"--token_cache_dir={cache}", "--learning_rate=3e-3", "--save_strategy=no") == 0
    assert not cache.exists()
    record = read_record(tmp_path / "out")
    assert record["metrics"]["eval_perplexity"] < 0.9 * record["metrics"]["before"]["eval_perplexity"]
    corpus = record["corpus"]
    assert (corpus["shards"], corpus["dealt_by"], corpus["validation_documents"]) == (3, "shard", 20)
    assert "a stream of 3 shards, dealt out to processes by shard; nothing is kept" in capfd.readouterr().out
    assert len(seen) == 14 and all(len(batch) == 8 for batch in seen)
    assert "masked_slices" not in record["metrics"]  # the frequencies of all tokens are not known


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folders of runs that nothing cut off and the batches that they took, by their flags."""
    return {}, tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(run, seen, finished):
    """``whole(*flags)``: the folder and the batches of a run that nothing cut off."""
    runs, parent = finished

    def find(*flags):
        if flags not in runs:
            seen.clear()
            assert run(parent / str(len(runs)), *flags) == 0
            runs[flags] = parent / str(len(runs)), seen.copy()
        return runs[flags]

    return find


# Flags, the step behind which the run is killed, and of the checkpoint before it: micro-batches and epoch.
CUTS = {
    "behind a save": ([], 5, 4, 0),
    "behind the end of an epoch": ([], 13, 12, 1),
    "accumulated": (["--per_device_train_batch_size=3", "--gradient_accumulation_steps=3"], 7, 12, 0),
    "a worker": (["--dataloader_num_workers=1"], 6, 4, 0),
}


@pytest.mark.parametrize(("flags", "step", "num_done", "epoch"), CUTS.values(), ids=CUTS)
def test_a_killed_run_continues_to_the_same_bits(run, same_run, seen, whole, tmp_path, flags, step, num_done, epoch):
    folder, batches = whole(*flags)
    seen.clear()
    assert run("cut", *flags, killed_at=step) == EXIT_INTERRUPTED
    mark = Mark.load(tmp_path / "cut" / f"checkpoint-{step // 4 * 4}", 0, 1)
    assert mark.position.epoch == epoch and mark.num_rows == sum(map(len, batches[:num_done]))
    seen.clear()
    assert run("cut", *flags) == 0
    assert seen == batches[num_done:]
    same_run(tmp_path / "cut", folder)


def test_without_its_place_a_run_continues_otherwise(run, same_run, whole, tmp_path, monkeypatch):
    """The control: from the stream's beginning the bits differ."""
    folder, _ = whole()
    assert run("cut", killed_at=5) == EXIT_INTERRUPTED
    monkeypatch.setattr(Mark, "load", lambda checkpoint, process_index, num_processes: Mark(num_processes))
    assert run("cut") == 0
    with pytest.raises(AssertionError):
        same_run(tmp_path / "cut", folder)


def test_a_changed_stream_is_refused_by_name(run, tmp_path, capfd):
    assert run("cut", killed_at=5) == EXIT_INTERRUPTED
    assert run("cut", "--stream_buffer=2500") == EXIT_BAD_INPUT
    assert "stream_buffer: 2000 -> 2500" in capfd.readouterr().err
    shard = tmp_path / "shards" / "1.txt"
    text = shard.read_text(encoding="utf-8")
    for number in range(3):  # as long as before, which nobody sees who does not read them
        shard = tmp_path / "shards" / f"{number}.txt"
        shard.write_text(shard.read_text(encoding="utf-8").replace("pump", "lump"), encoding="utf-8")
    assert run("cut") == EXIT_BAD_INPUT
    assert "is not what this run has read before (epoch 0, shard" in capfd.readouterr().err
    shard.write_text(text + "more\n", encoding="utf-8")
    assert run("cut") == EXIT_BAD_INPUT
    assert "corpus: " in capfd.readouterr().err


def test_documents_to_validate_on_are_not_trained_on(mlm_words, tmp_path, monkeypatch):
    """Nor others of their text: here every one stands twice."""
    corpus = tmp_path / "corpus.txt"
    texts = [f"the old pump leaks after {'very ' * number}long rain" for number in range(30)]
    corpus.write_text("\n".join([*texts, *texts, *(f"{text} ok" for text in texts)]) + "\n")
    read = []
    blocks = RowStream._build
    monkeypatch.setattr(RowStream, "_build", lambda self, texts, position: (
        read.extend(texts if position.epoch == 0 else []), blocks(self, texts, position))[1])  # fmt: skip
    flags = (f"--train_file={corpus}", "--streaming", "--max_steps=1", "--eval_strategy=no")
    adapt.main(mlm_words(tmp_path / "out", *flags, "--stream_validation=30", "--do_train"))
    assert sorted(read) == sorted(f"{text} ok" for text in texts)
    assert run_door(adapt.main, mlm_words(tmp_path / "few", *flags, "--stream_validation=91")) == EXIT_BAD_INPUT


def test_a_failure_names_its_rows_of_the_stream():
    args = SimpleNamespace(world_size=1, process_index=0, max_steps=20, per_device_train_batch_size=3,
                           gradient_accumulation_steps=2)  # fmt: skip
    stream = TrainingStream(build(numbered(9, 4), buffer_characters=60), args)
    list(stream.build_sampler(None))
    position = stream._mark(19).position
    assert position.epoch > 0
    named = f"rows 114 to 119 of its stream, behind document {position.document} of a shard of epoch {position.epoch}"
    assert stream.name_rows(19) == named


def test_a_dry_run_of_a_stream(mlm_words, tmp_path, capsys):
    adapt.main(mlm_words(tmp_path / "out", "--streaming", "--stream_validation=20", "--max_steps=7", "--dry_run"))
    out = capsys.readouterr().out
    assert "steps: 7 of about" in out and out.count(" -> ") > 3 and not (tmp_path / "out").exists()


REFUSED = {
    "--max_steps=-1": "a stream has no end, so training needs one; give --max_steps",
    "--validation_split_percentage=5": "give --stream_validation N",
    "--near_duplicates=0.8": "leave it out, or thin the corpus before",
    "--max_train_samples=10": "--max_steps bounds the run",
    "--extend_vocab=10": "extend the model on a kept part first",
    "--new_words=words.txt": "extend the model on a kept part first",
    "--eval_strategy=epoch": "give steps",
    "--save_strategy=epoch": "give steps",
    "--logging_strategy=epoch": "give steps",
    "--replay_file=REPLAY": "--replay_share asks for the corpus as a whole",
    "--mine_terms=5 --replay_file=REPLAY --replay_share=0": "give the terms as --term_list",
    "--pair_file=PAIRS --select_top=5": "select from files that are kept",
    "--pair_file=PAIRS --include_pair_text": "name the texts among the files",
    "--validation_file=REPLAY --stream_validation=5": "give one of them",
}


@pytest.mark.parametrize(("words", "cure"), REFUSED.items(), ids=REFUSED)
def test_what_needs_the_whole_corpus_is_refused_with_its_cure(
    mlm_words, tiny_corpus, tiny_pairs, tmp_path, words, cure
):
    pairs = tmp_path / "pairs.csv"
    rows = [f"{a},{b},{number % 2}" for number, (a, b) in enumerate(tiny_pairs)]
    pairs.write_text("sentence1,sentence2,label\n" + "\n".join(rows) + "\n")
    words = words.replace("REPLAY", tiny_corpus).replace("PAIRS", str(pairs)).split()
    with pytest.raises(InputError, match=cure) as caught:
        adapt.main(mlm_words(tmp_path / "out", "--streaming", "--max_steps=5", *words))
    assert words[0].split("=")[0] in str(caught.value) or "--replay_share" in str(caught.value) or len(words) > 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--stream_buffer=5", "--stream_validation=5"])
def test_flags_of_a_stream_need_one(mlm_words, tmp_path, flag):
    with pytest.raises(InputError, match="is of streams; give --streaming"):
        adapt.main(mlm_words(tmp_path / "out", flag))


TWO = """
import functools, json, os, shutil, sys
from pathlib import Path
import torch.distributed as dist
from pair_pkg.data.stream import RowStream
from pair_pkg.stages import adapt, mlm_trainer
from pair_pkg.processes import process_group_ends
from pair_pkg.training.trainer import StageTrainer
from tests.training.test_streaming import KilledAt

rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
read, build = {}, RowStream._build

def recorded(self, texts, position):
    read.setdefault(position.epoch, []).extend(texts)
    return build(self, texts, position)

with process_group_ends():
    for name, words, step in json.loads((folder / "runs.json").read_text()):
        read.clear()
        RowStream._build = recorded
        callbacks = [] if step is None else [KilledAt(step)]
        mlm_trainer.StageTrainer = functools.partial(StageTrainer, callbacks=callbacks)
        try:
            adapt.run(words)
        except KeyboardInterrupt:
            dist.barrier()
            if rank == 0:
                shutil.copytree(folder / name, folder / f"{name}-left")
            dist.barrier()
        (folder / f"{name}-{rank}.json").write_text(json.dumps(read))
"""


@pytest.mark.slow  # two processes that import everything, 25 s
def test_two_processes_share_the_stream_and_continue_to_the_same_bits(
    mlm_words, run, same_run, tmp_path, tiny_documents
):
    """DDP over gloo; three shards are dealt out whole, one is read by both, a document each in turn."""
    single = tmp_path / "one.txt"
    documents = tiny_documents[:NUM_DOCUMENTS]
    single.write_text("\n".join(documents) + "\n", encoding="utf-8")
    shards = {"shards": tmp_path / "shards", "one": single}
    common = [*STREAM, "--per_device_train_batch_size=4", "--ddp_backend=gloo"]
    runs = []
    for name, path in shards.items():
        parts = (("whole", None), ("cut", 13), ("cut", None))
        for part, step in parts[: 3 if name == "shards" else 1]:
            words = mlm_words(tmp_path / f"{name}-{part}", f"--train_file={path}", *common)
            runs.append((f"{name}-{part}", words, step))
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "two.py").write_text(TWO)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, tmp_path / "two.py", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in shards:
        parts = [read_json(tmp_path / f"{name}-whole-{rank}.json")["0"] for rank in range(2)]
        head = documents[:20] if name == "one" else documents[0:60:3]
        assert sorted([*parts[0], *parts[1]]) == sorted(set(documents) - set(head))
    same_run(tmp_path / "shards-cut", tmp_path / "shards-whole")
    marks = [Mark.load(tmp_path / "shards-cut-left" / "checkpoint-12", rank, 2) for rank in range(2)]
    assert [mark.num_rows for mark in marks] == [48, 48] and max(mark.position.epoch for mark in marks) >= 1
    left = [f"--output_dir={tmp_path / 'shards-cut-left'}", f"--train_file={tmp_path / 'shards'}"]
    for allowed, message in (
        ([], r"world_size: 2 -> 1"),
        (["--allow_changed", "world_size"], r"their number has changed \(2 -> 1\); go on with 2"),
    ):
        with pytest.raises(InputError, match=message):
            adapt.main(mlm_words("unused", *STREAM, "--per_device_train_batch_size=4", *left, *allowed))
