"""``inspect`` and the command line's front page."""

import numpy as np
import pytest

from pair_pkg.__main__ import main
from pair_pkg.errors import InputError


def test_inspect_shows_tokens_types_and_masked_rows(tiny_bert, capsys):
    encoding = main(["inspect", "--model", tiny_bert, "--text", "the old pump leaks", "--pair", "水泵"])
    printed = capsys.readouterr().out
    assert encoding["token_type_ids"][0] == 0 and encoding["token_type_ids"][-1] == 1
    for word in ("[CLS]", "[SEP]", "水", "pump", "mask_token [MASK]", "masked rows", "->"):
        assert word in printed


def test_inspect_writes_and_draws_layers(tiny_bert, tmp_path):
    words = ["inspect", "--model", tiny_bert, "--text", "the old pump leaks", "--pair", "水泵"]
    with pytest.raises(InputError, match="name the file with --output, such as layers.npz"):
        main([*words, "--output_attentions"])
    encoding = main([*words, "--output_attentions", "--output", str(tmp_path / "layers.npz")])
    layers = np.load(tmp_path / "layers.npz", allow_pickle=False)
    assert layers["input_ids_0"].tolist() == encoding["input_ids"] and "hidden_states_0" not in layers
    assert layers["attentions_0"].shape == (2, 4, *[len(encoding["input_ids"])] * 2)
    assert (tmp_path / "layers.png").stat().st_size > 1000


def test_an_unknown_command_names_the_known_ones(capsys):
    with pytest.raises(InputError, match="take one of pipeline, .*inspect"):
        main(["pipelin"])
    main([])
    assert "python -m pair_pkg COMMAND" in capsys.readouterr().out
