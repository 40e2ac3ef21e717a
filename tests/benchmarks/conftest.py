"""What the runs of benchmarks on a toy scale read."""

import pytest

from benchmarks.corpora import write_corpus


@pytest.fixture
def toy_corpus(tmp_path):
    texts = [f"the {word} washer cleans {word} shirts, and the {word} dryer dries them" for word in "abcdefgh"]
    return str(write_corpus(texts * 5, tmp_path / "toy.jsonl", megabytes=0.1))
