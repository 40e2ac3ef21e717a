"""Runs by date: every run below a folder once, with what it came to."""

import pytest

from pair_pkg.errors import InputError
from pair_pkg.records import read_record, write_json
from pair_pkg.stages import history


def date(folder, written_at, **changes):
    record = read_record(folder)
    write_json(folder / "run.json", {**record, "written_at": written_at, **changes})


def test_runs_stand_by_date_with_counts_and_accuracy(pairs_run, mlm_run, tmp_path, capsys):
    metrics = {"test": {"correct": 918, "total": 2000, "accuracy": 0.459}}
    date(pairs_run("runs/b/pairs"), "2026-04-21T10:15:00+00:00", metrics=metrics)
    date(mlm_run("runs/mlm"), "2026-04-20T09:00:00+00:00")
    date(pairs_run("runs/a/scores", "scores"), "2026-04-22T09:00:00+00:00", metrics={"test": {"spearman": 0.8431}})
    date(pairs_run("runs/late"), "2026-04-23T09:00:00+00:00", status="running")
    rows = history.main([str(tmp_path / "runs"), str(tmp_path / "runs" / "b")])
    assert [row["result"] for row in rows] == [
        "perplexity 812.50 -> 41.25",
        "918/2000 = 0.459",
        "Spearman correlation 0.843",
        "not finished",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[3].split() == [
        "2026-04-21",
        "10:15",
        "pairs",
        "918/2000",
        "=",
        "0.459",
        str(tmp_path / "runs/b/pairs"),
    ]


def test_nothing_found_and_nothing_there(tmp_path, capsys):
    assert history.main([str(tmp_path)]) == [] and "no run stands below" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such folder"):
        history.main([str(tmp_path / "nothing")])
