"""Corpora of any size, from the documents of a real one."""

import json
from collections.abc import Sequence
from pathlib import Path


def write_corpus(texts: Sequence[str], path: Path, megabytes: float) -> Path:
    """A JSONL corpus of about ``megabytes`` (10**6 bytes), the texts repeated; a counter in front makes each differ."""
    left, number = megabytes * 1e6, 0
    with open(path, "wb") as file:
        while left > 0:
            line = json.dumps({"text": f"{number} {texts[number % len(texts)]}"}, ensure_ascii=False) + "\n"
            left -= file.write(line.encode())
            number += 1
    return path
