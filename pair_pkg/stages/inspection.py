"""``python -m pair_pkg inspect``: what a tokenizer makes of a text, and how its rows are masked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.batches import Item
from pair_pkg.data.rows import cut_windows, rows_line_by_line
from pair_pkg.data.tokens import TokenStore, ordinary_ids, special_affixes
from pair_pkg.errors import InputError
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.preview import preview_rows
from pair_pkg.modeling.loading import load_tokenizer, resolve_package
from pair_pkg.report.tables import format_table
from pair_pkg.stages.layers_output import open_layers
from pair_pkg.stages.terminal import CommandParser, announce

NUM_MASKED_ROWS = 3


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Print the tokens of a text or a pair, the special tokens and masked rows; returns the encoding."""
    options = build_parser().parse_args(argv)
    wanted = {"hidden_states": options.output_hidden_states, "attentions": options.output_attentions}
    if any(wanted.values()) and (options.output is None or Path(options.output).suffix != ".npz"):
        raise InputError("--output_hidden_states, --output_attentions: name the file with --output, such as layers.npz")
    tokenizer = load_tokenizer(resolve_package(options.model))
    encoding = tokenizer(options.text, options.pair, return_token_type_ids=True, return_special_tokens_mask=True)
    announce(_token_table(tokenizer, encoding), "", _special_tokens(tokenizer))
    if tokenizer.mask_token_id is not None:
        announce("", f"masked rows of epochs 0 to {NUM_MASKED_ROWS - 1}, {{shown -> to predict}}:")
        announce(*masked_rows(tokenizer, options.text, options.seed))
    layers = open_layers(resolve_package(options.model), **wanted)
    if layers:
        layers.write(Path(options.output), [options.text], options.pair)
    return dict(encoding)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg inspect", description="Show how a text becomes tokens and masks.")
    parser.add_argument("--model", required=True, help="folder or Hub name of a checkpoint or tokenizer")
    parser.add_argument("--text", required=True, help="the text, or the first sentence of a pair")
    parser.add_argument("--pair", help="the second sentence")
    parser.add_argument("--seed", type=int, default=42, help="seed of the masks (default: 42)")
    parser.add_argument("--output_hidden_states", action="store_true", help="write those of every layer to --output")
    parser.add_argument("--output_attentions", action="store_true", help="write them to --output, and draw them (png)")
    parser.add_argument("--output", help="file of hidden states and attentions: .npz; the picture stands beside it")
    return parser


def masked_rows(tokenizer: PreTrainedTokenizerFast, text: str, seed: int) -> list[str]:
    """A text masked as the first epochs of training would mask it."""
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.uint32)
    if not len(ids):
        return ["(no token to mask)"]
    offsets = np.array([0, len(ids)])
    store = TokenStore(ids, np.ones(len(ids), dtype=bool), offsets, {})
    ordinary = ordinary_ids(tokenizer)
    dataset = MaskedRows(
        store,
        rows_line_by_line(*cut_windows(offsets, np.array([0]), len(ids))),
        Masking(seed, tokenizer.mask_token_id, ordinary),
        special_affixes(tokenizer),
        tokenizer.pad_token_id or 0,
        flat=True,
    )
    return preview_rows(dataset, tokenizer, [Item(0, epoch) for epoch in range(NUM_MASKED_ROWS)])


def _token_table(tokenizer: PreTrainedTokenizerFast, encoding: dict[str, list[int]]) -> str:
    columns = ("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask")
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    rows = [[token, *values] for token, *values in zip(tokens, *(encoding[column] for column in columns))]
    return format_table(["token", "id", "type", "mask", "special"], rows, "lrrrr")


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> str:
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return "special tokens: " + ", ".join(
        f"{name} {token} = {tokenizer.convert_tokens_to_ids(token)}" for name, token in named.items()
    )
