"""``python -m pair_pkg push DIR REPO``: a finished model to the Hub, private by default, scanned, and proven there."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, get_token

from pair_pkg.errors import InputError
from pair_pkg.hub.staging import CARD_NAME, stage_model
from pair_pkg.hub.upload import open_repository, push_files
from pair_pkg.records import read_json, read_record
from pair_pkg.report.card import build_card
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging
from pair_pkg.training.checkpoints import FINISHED


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, push, print; returns the repository's name, the commit and the files."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    fields = {"licence": options.license, "language": options.language, "base_model": options.base_model}
    if options.dry_run:
        return show(Path(options.model), options.repo, fields)
    return publish(Path(options.model), options.repo, private=not options.public, revision=options.revision, **fields)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg push", description="Publish a finished model: the model and its card alone.")
    parser.add_argument("model", metavar="DIR", help="folder of a finished run of either stage")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub, or NAME under your own account")
    parser.add_argument("--public", action="store_true", help="for everyone to see (default: private)")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    parser.add_argument("--license", help="licence of the model, such as apache-2.0 (default: none is stated)")
    parser.add_argument("--language", nargs="+", help="such as zh en (default: none is stated)")
    parser.add_argument("--base_model", help="its first ancestor's name on the Hub (default: the lineage's)")
    parser.add_argument("--dry_run", action="store_true", help="show what would be pushed, and push nothing")
    return parser


def publish(
    model_dir: Path,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Stage, open the repository, upload, compare. ``token``: None takes that of the environment or of the login.

    Raises ``InputError`` for what the user can mend, ``PushFailure`` where the Hub does not hold the model afterwards;
    the folder is not touched in any case.
    """
    token = token or get_token()
    if token is None:
        raise InputError("no token for the Hub: log in by `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as staging:
        files = _stage(model_dir, Path(staging), repo, token, fields)  # before anything is made on the Hub
        full_name = open_repository(repo, private=private, token=token)
        if full_name != repo:  # the card names the repository
            (Path(staging) / CARD_NAME).write_text(str(_card(model_dir, full_name, fields)), encoding="utf-8")
        sha = push_files(Path(staging), full_name, "Model by pair_pkg", token=token, revision=revision)
    announce(f"pushed to {full_name}: {len(files)} files as commit {sha}, each fetched back and the same")
    return {"repo": full_name, "commit": sha, "files": files}


def show(model_dir: Path, repo: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What ``publish`` would push, and the card; nothing leaves the machine."""
    with tempfile.TemporaryDirectory() as staging:
        files = _stage(model_dir, Path(staging), repo, get_token(), fields)
        card = (Path(staging) / CARD_NAME).read_text(encoding="utf-8")
    announce("would be pushed:", *(f"  {name}" for name in files), "", card, "dry run: nothing was pushed")
    return {"repo": repo, "commit": None, "files": files}


def _stage(model_dir: Path, staging: Path, repo: str, token: str | None, fields: dict[str, Any]) -> list[str]:
    return stage_model(model_dir, staging, str(_card(model_dir, repo, fields)), (token,) if token else ())


def _card(model_dir: Path, repo: str, fields: dict[str, Any]) -> ModelCard:
    record = read_record(model_dir)
    if record is None:
        what = "holds no run.json" if model_dir.is_dir() else "no such folder"
        raise InputError(f"{model_dir}: {what}; give the --output_dir of a finished run")
    if record.get("status") != FINISHED:
        raise InputError(f"{model_dir}: this run is not finished; run it to its end first")
    return card_of(model_dir, record, repo, **fields)


def card_of(model_dir: Path, record: Mapping[str, Any], repo: str, **fields: Any) -> ModelCard:
    """The card of the model in a folder, with examples in the words of its tokenizer."""
    settings_path = model_dir / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.is_file() else {}
    tokens = {name: settings.get(f"{name}_token") for name in ("mask", "sep")}
    # older files hold a token as an object
    tokens = {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()}
    return build_card(record, repo_id=repo, special_tokens=tokens, **fields)
