"""Write the sample data of this folder: ``python data/generate.py [--out DIR] [--seed 20]``."""

import argparse
import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

from documents import Document, build_documents, load_kinds
from language import load_words, split_sentences
from pairs import Pair, build_pairs, load_frames

HERE = Path(__file__).parent
SOURCE = HERE / "source"
JOINTS = {"en": " ", "zh": ""}  # what stands between two sentences
NUM_PAIRS = {"en": 1400, "zh": 1160}
NUM_DOCUMENTS = {"en": 460, "zh": 380}
NUM_GENERAL = {"en": 230, "zh": 235}


def main(argv: Sequence[str] | None = None) -> dict[str, int]:
    """Write ``corpus.jsonl``, ``general.txt`` and ``pairs.csv`` and return their counts; equal seeds, equal bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the files")
    parser.add_argument("--seed", type=int, default=20, help="seed of every draw")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)

    pairs, corpus, general = {}, {}, {}
    for language in JOINTS:
        rng = random.Random(f"{args.seed} {language}")  # seeded by a string: the same in every version of Python
        folder = SOURCE / language
        words, frames = load_words(folder / "words.txt"), load_frames(folder / "questions.txt")
        pairs[language] = build_pairs(frames, words, NUM_PAIRS[language], rng)
        asked = {text for pair in pairs[language] for text in (pair.sentence1, pair.sentence2)}
        kinds = load_kinds(folder / "articles.txt")
        corpus[language] = build_documents(kinds, frames, words, NUM_DOCUMENTS[language], asked, rng)
        words, kinds = load_words(folder / "general_words.txt"), load_kinds(folder / "general.txt")
        general[language] = build_documents(kinds, {}, words, NUM_GENERAL[language], set(), rng)

    save_pairs(args.out / "pairs.csv", pairs)
    save_corpus(args.out / "corpus.jsonl", corpus)
    save_general(args.out / "general.txt", general, random.Random(args.seed))
    return count(pairs, corpus, general)


def save_pairs(path: Path, pairs: dict[str, list[Pair]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sentence1", "sentence2", "label", "language", "kind"])
        for language, rows in pairs.items():
            writer.writerows([row.sentence1, row.sentence2, row.label, language, row.kind] for row in rows)


def save_corpus(path: Path, corpus: dict[str, list[Document]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for language, documents in corpus.items():
            for number, document in enumerate(documents, start=1):
                row = {"id": f"{language}-{number:04}", "language": language, "topic": document.topic}
                row["text"] = JOINTS[language].join(document.sentences)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def save_general(path: Path, general: dict[str, list[Document]], rng: random.Random) -> None:
    """One document a line, the languages shuffled: the head of the file holds both."""
    lines = [JOINTS[language].join(document.sentences) for language in general for document in general[language]]
    rng.shuffle(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def count(
    pairs: dict[str, list[Pair]], corpus: dict[str, list[Document]], general: dict[str, list[Document]]
) -> dict[str, int]:
    counts = {}
    for language, joint in JOINTS.items():
        for name, documents in (("corpus", corpus[language]), ("general", general[language])):
            counts[f"{name}_{language}_documents"] = len(documents)
            texts = (joint.join(document.sentences) for document in documents)
            counts[f"{name}_{language}_sentences"] = sum(len(split_sentences(text, language)) for text in texts)
        counts[f"pairs_{language}"] = len(pairs[language])
        counts[f"pairs_{language}_positive"] = sum(pair.label for pair in pairs[language])
    return counts


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
