"""``--push_to_hub`` in a stage: its own push, while training goes on and at the end, against the stand-in."""

import json
import shutil
import threading
from types import SimpleNamespace

import pytest

from pair_pkg.errors import InputError, run_door
from pair_pkg.hub import upload
from pair_pkg.records import read_record
from pair_pkg.stages import adapt, finetune, publishing

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def words(mlm_words, hub, tmp_path):
    flags = {"push_to_hub": "true", "hub_model_id": "tiny-pump", "hub_token": hub.token}
    flags |= {"save_strategy": "steps", "save_steps": 1, "eval_steps": 1, "max_steps": 2, "do_eval": "true"}
    return mlm_words(tmp_path / "out", "--do_train", *(f"--{name}={value}" for name, value in flags.items()))


def written(hub, folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and hub.token.encode() in path.read_bytes()]


def test_saves_and_the_result_are_pushed_and_nothing_else(words, hub, tmp_path, caplog):
    adapt.main(words)
    repository = hub.repositories["someone/tiny-pump"]
    assert repository["private"] and repository["messages"][-1] == "Model by pair_pkg"
    assert repository["messages"][0] == "Step 1, by pair_pkg"
    for files in repository["commits"][1:]:
        assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(files)
        assert not {name for name in files if name.endswith((".bin", ".pt", ".pth", ".png"))}
        assert "trainer_state.json" not in files and "log_history.json" not in files
    result = repository["commits"][-1]
    assert result["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert json.loads(result["run.json"])["stage"] == "mlm" and "before" in result["README.md"].decode()
    assert written(hub, tmp_path / "out") == []


@pytest.mark.slow  # two trainings
def test_a_hub_that_fails_during_training_does_not_stop_it_and_at_the_end_has_its_own_status(
    words, hub, tmp_path, capsys, mlm_words
):
    hub.faults = [("commit/", 403)]
    assert run_door(adapt.main, words) == 0
    printed = capsys.readouterr().err
    assert "step 1 was not pushed" in printed and "training goes on" in printed
    assert "during training" in printed and "1 failed" in printed
    hub.faults = [("commit/", 503)] * 1000
    other = [word.replace(str(tmp_path / "out"), str(tmp_path / "other")) for word in words]
    assert run_door(adapt.main, [*other, "--hub_strategy=end"]) == 69
    printed = capsys.readouterr().err
    assert f"python -m pair_pkg push {tmp_path / 'other'} someone/tiny-pump" in printed
    assert json.loads((tmp_path / "other" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("module", "limit", "told"),
    [
        (upload, "TIME_LIMIT", "step 1 was not pushed (uploading to someone/tiny-pump: gave up"),
        (publishing, "LONGEST_WAIT", "step 2 was not pushed (the last push is still under way after 0.2 s)"),
    ],
)
def test_a_hub_that_does_not_answer_holds_nothing_up_and_is_counted(
    hub, model_dir, tmp_path, monkeypatch, caplog, module, limit, told
):
    monkeypatch.setattr(module, limit, 0.2)
    monkeypatch.setattr(upload, "ATTEMPTS", 1)
    hub.repositories["someone/tiny-pump"] = {"private": True, "commits": [{}], "messages": []}
    asked, answered = threading.Event(), threading.Event()

    def never(go_on):
        asked.set()
        answered.wait(20)
        return go_on()

    hub.faults = [("/tree/", never)] * 100
    for step in (1, 2):
        shutil.copytree(model_dir, tmp_path / "out" / f"checkpoint-{step}")
    args = SimpleNamespace(
        output_dir=tmp_path / "out", hub_model_id="someone/tiny-pump", hub_token=hub.token, hub_revision=None
    )
    pusher = publishing.SavePusher(args, read_record(model_dir))
    pusher.on_save(args, SimpleNamespace(global_step=1), None)
    assert asked.wait(20)
    pusher.on_save(args, SimpleNamespace(global_step=2), None)
    pusher.on_train_end(args, SimpleNamespace(global_step=2), None)
    assert told in caplog.text
    assert "0 arrived, 1 failed, 1 were passed over because one was still under way" in caplog.text
    assert len(hub.repositories["someone/tiny-pump"]["commits"]) == 1
    hub.faults = []
    answered.set()
    pusher.thread.join()


def test_a_token_that_may_not_write_is_told_before_training(words, hub, tmp_path):
    words = [word.replace(hub.token, "hf_" + "other" * 8) for word in words]
    with pytest.raises(InputError, match="hf auth login"):
        adapt.main(words)
    assert not (tmp_path / "out").exists()


def test_an_ensemble_is_not_pushed(tmp_path):
    with pytest.raises(InputError, match="an ensemble, which is no model to push"):
        finetune.parse([f"--output_dir={tmp_path}", "--k_folds=3", "--push_to_hub", "--use_cpu"])


def test_a_run_that_is_finished_already_is_pushed_when_the_flag_is_added(hub, mlm_words, tmp_path):
    flags = ("--do_train", "--max_steps=1", "--save_strategy=no")
    adapt.main(mlm_words(tmp_path / "tiny-pump", *flags))
    assert hub.requests == []
    pushing = mlm_words(tmp_path / "tiny-pump", *flags, "--push_to_hub", f"--hub_token={hub.token}")
    adapt.main([*pushing, "--dry_run"])
    assert hub.requests == []
    adapt.main(pushing)
    repository = hub.repositories["someone/tiny-pump"]  # named after the folder
    assert repository["messages"] == ["Model by pair_pkg"] and repository["private"]
    assert repository["commits"][-1]["model.safetensors"] == (tmp_path / "tiny-pump/model.safetensors").read_bytes()


@pytest.mark.slow  # a training of stage 2
def test_stage_2_pushes_while_it_trains_at_its_end_and_afterwards(hub, tiny_bert, tiny_pairs, tmp_path, capsys):
    table = tmp_path / "pairs.csv"
    lines = [f"{first},{second},1" for first, second in tiny_pairs[:90]]
    lines += [f"{first},{tiny_pairs[number + 90][1]},0" for number, (first, _) in enumerate(tiny_pairs[90:])]
    table.write_text("sentence1,sentence2,label\n" + "\n".join(lines) + "\n")
    flags = {"model_name_or_path": tiny_bert, "train_file": table, "output_dir": tmp_path / "pairs", "max_steps": 2}
    flags |= {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no", "use_cpu": "true", "bf16": "false"}
    flags |= {"max_seq_length": 48, "push_to_hub": "true", "hub_token": hub.token, "hub_private_repo": "false"}
    words = [f"--{name}={value}" for name, value in flags.items()]
    hub.faults = [("/commit/", 403)]
    assert run_door(finetune.main, [*words, "--hub_model_id=someone/pairs"]) == 0
    printed = capsys.readouterr().err
    assert "step 2 was not pushed" in printed and "0 arrived, 1 failed" in printed
    repository = hub.repositories["someone/pairs"]
    assert repository["messages"] == ["Model by pair_pkg"] and not repository["private"]
    assert "decision.json" in repository["commits"][-1]

    hub.faults = [("repos/create", 503)] * 1000
    assert run_door(finetune.main, [*words, "--hub_model_id=someone/again"]) == 69
    assert f"python -m pair_pkg push {tmp_path / 'pairs'} someone/again" in capsys.readouterr().err
    hub.faults = []
    assert run_door(finetune.main, [*words, "--hub_model_id=someone/again"]) == 0
    there, again = (hub.repositories[f"someone/{name}"]["commits"][-1] for name in ("pairs", "again"))
    assert set(there) == set(again) and there["model.safetensors"] == again["model.safetensors"]


def test_what_the_librarys_flags_promise_and_is_not_done_is_told(hub, words, tmp_path, capsys):
    assert run_door(adapt.main, [*words, "--hub_strategy=all_checkpoints", "--hub_always_push"]) == 0
    printed = capsys.readouterr().err
    assert "--hub_strategy all_checkpoints: the states that a run is resumed from are pickles" in printed
    assert "--hub_always_push: a save during a push is passed over" in printed
    assert not [name for files in hub.repositories["someone/tiny-pump"]["commits"] for name in files if ".pt" in name]
