"""A folder that is a Hub Space as it is: the page's program, this package, the model, and the index if there is one."""

import importlib.metadata
import json
import shutil
import sys
import tempfile
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData, get_token

from pair_pkg import __version__
from pair_pkg.errors import InputError
from pair_pkg.hub.staging import stage_model
from pair_pkg.modeling.sentence_folder import fingerprint_encoder
from pair_pkg.search.index_folder import copy_index, read_manifest, refuse_other_model
from pair_pkg.stages.terminal import announce

PACKAGE = Path(__file__).parents[1]
MODEL, INDEX, ENCODER = "model", "index", "encoder"
# What this package asks for (setup.cfg); a Space brings gradio by itself, as its README names it.
REQUIREMENTS = (
    "torch", "transformers", "huggingface_hub", "datasets", "accelerate", "evaluate", "sentence-transformers", "peft",
    "faiss-cpu", "tokenizers", "safetensors", "numpy", "pyarrow", "scipy", "scikit-learn", "matplotlib", "jinja2",
    "pyyaml", "charset-normalizer", "filelock", "psutil", "tqdm", "shtab", "rjieba", "rensa", "lazy_loader",
)  # fmt: skip
APP = '''"""A page to try a model, written by pair_pkg {version}. Run it with: python app.py"""

import os
import sys
from pathlib import Path

from pair_pkg.__main__ import command

os.chdir(Path(__file__).parent)
sys.argv[1:1] = {words}
raise SystemExit(command())
'''
LARGE_FILES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in ("safetensors", "faiss", "npy"))
CARD = """---
{card_data}
---

# {title}

Two sentences and what the model says of them{neighbours}. `python app.py` starts the page, here as on a Space.
The model lies in `{model}/`; the program is pair_pkg {version}.
"""


def write_space(folder: Path, model_dir: str, index_dir: str | None, encoder: str | None, top_k: int) -> Path:
    """Write a Space of a finished model into a new or empty folder, which is returned; nothing is uploaded.

    The model and the encoder go by the allow-list of ``push``, searched for secrets; an index goes with all its texts.
    Raises ``InputError``, and then leaves no folder that was not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not empty; give --write_space a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as building:
        place = Path(building, folder.name)
        place.mkdir()
        title = Path(model_dir).resolve().name
        words = ["serve", "--model", MODEL, "--host", "0.0.0.0", "--top_k", str(top_k)]
        _stage(Path(model_dir), place / MODEL)
        if index_dir is not None and encoder is not None:
            words += ["--index", INDEX, "--encoder", _add_index(place, Path(index_dir), Path(encoder), Path(model_dir))]
        (place / "app.py").write_text(APP.format(version=__version__, words=json.dumps(words)), encoding="utf-8")
        (place / "requirements.txt").write_text("".join(map(_pinned, REQUIREMENTS)), encoding="utf-8")
        (place / ".gitattributes").write_text(LARGE_FILES, encoding="utf-8")
        _card(title, with_index=index_dir is not None).save(place / "README.md")
        shutil.copytree(PACKAGE, place / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
    texts = f", with the {read_manifest(folder / INDEX)['rows']:,} texts of the index" if index_dir else ""
    announce(
        f"written to {folder}: a Space{texts}; try it with: python {folder / 'app.py'}",
        f"upload it with: hf upload OWNER/NAME {folder} --repo-type space",
    )
    return folder


def _stage(model_dir: Path, target: Path) -> None:
    target.mkdir()
    token = get_token()
    stage_model(model_dir, target, f"# {model_dir.resolve().name}\n", (token,) if token else ())


def _add_index(place: Path, index_dir: Path, encoder: Path, model_dir: Path) -> str:
    """Copy the index, and its bi-encoder where that is not the model; gives the name of the latter's folder.

    A staged model's settings are written anew, so that its fingerprint is another than in the index, which is told.
    """
    refuse_other_model(read_manifest(index_dir), index_dir, str(encoder), fingerprint_encoder(str(encoder)))
    name = MODEL if encoder.resolve() == model_dir.resolve() else ENCODER
    if name == ENCODER:
        _stage(encoder, place / ENCODER)
    copy_index(index_dir, place / INDEX, name, fingerprint_encoder(str(place / name)))
    return name


def _pinned(name: str) -> str:
    """A line of requirements: the version that this model was tried with here, without its build."""
    return f"{name}=={importlib.metadata.version(name).partition('+')[0]}\n"


def _card(title: str, with_index: bool) -> SpaceCard:
    data = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=importlib.metadata.version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        colorFrom="blue",
        colorTo="gray",
    )
    neighbours = ", and the nearest sentences of an index" if with_index else ""
    text = CARD.format(card_data=data.to_yaml(), title=title, neighbours=neighbours, model=MODEL, version=__version__)
    return SpaceCard(text, ignore_metadata_errors=False)
