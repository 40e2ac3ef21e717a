"""Long jobs: the same bytes whether they run through or are killed, and nothing of another job is taken up."""

import dataclasses

import numpy as np
import pytest
import torch

from pair_pkg.data.corpus import Document
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import encode_texts
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.processes import Processes
from pair_pkg.search import vector_job
from pair_pkg.search.vector_job import VectorJob, plan_rows

TEXTS = [f"the {word} pump number {number}" for number in range(30) for word in ("old", "new")] + ["the old pump"] * 5
DOCUMENTS = [Document(text, f"texts.txt:{line}") for line, text in enumerate([*TEXTS, "", TEXTS[3]], start=1)]


@pytest.fixture(scope="module")
def encoder(tiny_bi_encoder):
    return load_sentence_encoder(tiny_bi_encoder)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(vector_job, "CHUNK_ROWS", 8)


def run(job, documents=DOCUMENTS, on_texts=None):
    return job.run(documents, batch_tokens=64, dtype=torch.float32, on_texts=on_texts)


def test_a_plan_counts_and_finds_first_rows():
    plan = plan_rows([Document(text, text) for text in ("a", "b", "a", " ", "b", "")])
    assert plan.first_rows.tolist() == [0, 1, 0, 3, 1, 5]
    assert (plan.num_distinct, plan.num_empty, plan.first_empty) == (4, 2, " ")
    assert plan.fingerprint() != plan_rows([Document("a", "")]).fingerprint()


def test_rows_are_the_encoder_s_and_each_distinct_text_is_encoded_once(encoder, tmp_path):
    job = VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {})
    counted = []
    vectors = run(job, on_texts=counted.append)
    expected = encode_texts(encoder, [document.text for document in DOCUMENTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert np.array_equal(vectors[3], vectors[-1])
    assert sum(counted) == job.audit.texts == len({document.text for document in DOCUMENTS})
    job.finish(tmp_path / "v.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 9, 40])
def test_a_job_that_was_stopped_gives_the_same_bytes(encoder, tmp_path, after):
    whole = VectorJob(tmp_path / "whole.npy", plan_rows(DOCUMENTS), encoder, {})
    run(whole)
    done = 0

    def stop(count):
        nonlocal done
        done += count
        if done >= after:
            raise Killed

    with pytest.raises(Killed):
        run(VectorJob(tmp_path / "cut.npy", plan_rows(DOCUMENTS), encoder, {}), on_texts=stop)
    again = VectorJob(tmp_path / "cut.npy", plan_rows(DOCUMENTS), encoder, {})
    assert again.rows_done % 8 == 0 and (again.rows_done > 0) == (after > 8)
    assert again.texts_to_do() < whole.plan.num_distinct or after == 1
    run(again)
    assert again.partial.read_bytes() == whole.partial.read_bytes()
    assert dataclasses.asdict(again.audit) == dataclasses.asdict(whole.audit)


class OneAfterTheOther(Processes):
    """Processes that never have to wait, for each works when the one before is done."""

    def gather(self, value):
        return [value] * self.count


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_the_bytes_of_one_process(encoder, tmp_path, count):
    whole = VectorJob(tmp_path / "whole.npy", plan_rows(DOCUMENTS), encoder, {})
    run(whole)
    found = 0
    for index in range(count):
        job = VectorJob(tmp_path / "shared.npy", plan_rows(DOCUMENTS), encoder, {})
        processes = OneAfterTheOther(index, count)
        expected, counted = job.texts_to_do(processes), []
        job.run_share(DOCUMENTS, processes, batch_tokens=64, dtype=torch.float32, on_texts=counted.append)
        assert sum(counted) == expected > 0
        found += expected
    together = VectorJob(tmp_path / "shared.npy", plan_rows(DOCUMENTS), encoder, {})
    assert found == whole.plan.num_distinct and together.texts_to_do() == 0
    run(together, on_texts=lambda count: pytest.fail("encoded twice"))
    assert together.partial.read_bytes() == whole.partial.read_bytes()
    assert dataclasses.asdict(together.audit) == dataclasses.asdict(whole.audit)
    together.finish(tmp_path / "shared.npy")
    assert sorted(path.name for path in tmp_path.glob("shared*")) == ["shared.npy"]


def test_parts_without_a_state_are_not_taken_up(encoder, tmp_path):
    job = VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {})
    job.run_share(DOCUMENTS, OneAfterTheOther(0, 1), batch_tokens=64, dtype=torch.float32)
    job.state.unlink()
    again = VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {})
    counted = []
    run(again, on_texts=counted.append)
    assert sum(counted) == again.plan.num_distinct


def test_part_of_another_job_is_not_taken_up(encoder, tmp_path):
    run(VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {"dtype": "float32"}))
    with pytest.raises(InputError, match=r"dtype: float32 -> bfloat16\); give the same, or remove"):
        VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {"dtype": "bfloat16"})
    with pytest.raises(InputError, match="part of another run .texts: "):
        VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS[1:]), encoder, {"dtype": "float32"})


def test_texts_that_change_between_the_readings_are_refused(encoder, tmp_path):
    changed = [*DOCUMENTS[:10], Document("another text", "texts.txt:11"), *DOCUMENTS[11:]]
    with pytest.raises(InputError, match="texts.txt:9 to texts.txt:16: changed while it was read"):
        run(VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {}), changed)
    with pytest.raises(InputError, match="became fewer"):
        run(VectorJob(tmp_path / "w.npy", plan_rows(DOCUMENTS), encoder, {}), DOCUMENTS[:-1])


def test_a_model_that_gives_nan_is_told_with_the_text(encoder, tmp_path):
    broken = dataclasses.replace(encoder, head=torch.nn.Linear(128, 8))
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(InputError, match="texts.txt:1: its vector holds NaN"):
        run(VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), broken, {}))


def test_a_disk_without_room_is_refused_before_the_work(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_job.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="0.0 GiB are needed and 0.0 free; make room"):
        VectorJob(tmp_path / "v.npy", plan_rows(DOCUMENTS), encoder, {})
