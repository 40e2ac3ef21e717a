"""What was pushed, loaded by its name as anybody would: by other processes, over the Xet path and the LFS path."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.records import read_record, write_record
from pair_pkg.stages import push

PAIRS = [("the old pump leaks", "the pump is leaking"), ("a small valve sticks", "旧水泵漏水"), ("the lid", "the lid")]
LOADS = """
import json, sys
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

pairs = json.loads(sys.argv[1])
first, second = zip(*pairs)
tokenizer = AutoTokenizer.from_pretrained("someone/cross")
model = AutoModelForSequenceClassification.from_pretrained("someone/cross").eval()
with torch.no_grad():
    logits = model(**tokenizer(first, second, padding=True, return_tensors="pt")).logits
sentences = SentenceTransformer("someone/bi", device="cpu")
rows = [sentences.encode(list(column)) for column in (first, second)]
masked = AutoModelForMaskedLM.from_pretrained("someone/mlm").eval()
ids = AutoTokenizer.from_pretrained("someone/mlm")(first[0], return_tensors="pt")
with torch.no_grad():
    filled = masked(**ids).logits[0, 1]
cross = CrossEncoder("someone/cross", device="cpu")
print(json.dumps({
    "auto": (logits[:, 1] - logits[:, 0]).tolist(),
    "cross_encoder": cross.predict(pairs, activation_fn=torch.nn.Identity()).tolist(),
    "cosines": (rows[0] * rows[1]).sum(1).tolist(),
    "filled": filled.tolist(),
}))
"""


@pytest.fixture
def pushed(with_xet, no_waiting, tiny_cross_encoder, tiny_bi_encoder, tiny_bert, tmp_path):
    """The three kinds of models on the stand-in, and their folders here."""
    cross = {**read_record(tiny_cross_encoder), "stage": "pairs"}
    kinds = {
        "cross": (tiny_cross_encoder, cross),
        "bi": (tiny_bi_encoder, {**cross, "architecture": "bi_encoder", "max_seq_length": 128}),
        "mlm": (tiny_bert, {"stage": "mlm"}),
    }
    for name, (source, record) in kinds.items():
        shutil.copytree(source, tmp_path / name)
        write_record(tmp_path / name, {**record, "status": "finished"})
        push.main([str(tmp_path / name), f"someone/{name}"])
    return with_xet, tmp_path


@pytest.mark.slow  # a process that imports everything, for each path
@pytest.mark.parametrize("by_xet", [True, False], ids=["xet", "lfs"])
def test_what_was_pushed_loads_by_its_name_and_scores_as_here(pushed, by_xet, tmp_path_factory):
    hub, folders = pushed
    if not by_xet:
        hub.objects, hub.xet.hashes = hub.xet.contents, {}  # the same objects, as a Hub that knows no Xet gives them
    home = tmp_path_factory.mktemp("home")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS"))
    }
    address = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": hub.token, "NO_PROXY": "127.0.0.1,localhost"}
    hub.requests.clear()
    done = subprocess.run(
        [sys.executable, "-c", LOADS, json.dumps(PAIRS)],
        env={**kept, **address, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    assert any(path.startswith("/cas/") for _, path, *_ in hub.requests) == by_xet

    first, second = map(list, zip(*PAIRS))
    margins = load_scorer(str(folders / "cross")).score(first, second)
    np.testing.assert_allclose(there["auto"], margins, atol=1e-5)
    np.testing.assert_allclose(np.diff(there["cross_encoder"])[:, 0], margins, atol=1e-5)
    np.testing.assert_allclose(there["cosines"], load_scorer(str(folders / "bi")).score(first, second), atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folders / "mlm")
    model = AutoModelForMaskedLM.from_pretrained(folders / "mlm").eval()
    filled = model(**tokenizer(first[0], return_tensors="pt")).logits[0, 1].detach().numpy()
    np.testing.assert_allclose(there["filled"], filled, atol=1e-5)
