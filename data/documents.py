"""Documents of a corpus: beats that follow each other, each worded in one of several ways."""

import random
from dataclasses import dataclass
from pathlib import Path

from language import Words, draw_meaning, fill, load_sections, narrow, slots_of
from pairs import Frame

OPTIONAL_FRACTION = 0.65  # of the optional beats are kept
TRIES = 12  # to word a beat as no document before has worded it


@dataclass(frozen=True)
class Document:
    topic: str
    sentences: tuple[str, ...]  # a beat each; few hold two sentences


@dataclass(frozen=True)
class Kind:
    """A kind of document: its beats (lists of templates, led by a mark where optional), voice and limits."""

    name: str
    beats: tuple[tuple[str, ...], ...]
    voice: str
    only: frozenset[str]


def load_kinds(path: Path) -> list[Kind]:
    """Read kinds of documents; the head of ``source/en/articles.txt`` describes the format."""
    kinds = []
    for name, lines in load_sections(path):
        options = {"voice": "you", "only": ""}
        while lines[0].partition(": ")[0] in options:
            option, _, value = lines.pop(0).partition(": ")
            options[option] = value
        beats = [tuple(beat.splitlines()) for beat in "\n".join(lines).strip().split("\n\n")]
        kinds.append(Kind(name, tuple(beats), options["voice"], frozenset(options["only"].split())))
    return kinds


def build_documents(
    kinds: list[Kind], frames: dict[str, Frame], words: Words, num_documents: int, known: set[str], rng: random.Random
) -> list[Document]:
    """Word ``num_documents`` documents, the kinds in turn; texts in ``known`` are avoided, and new ones are added."""
    return [build_document(kinds[i % len(kinds)], frames, words, known, rng) for i in range(num_documents)]


def build_document(kind: Kind, frames: dict[str, Frame], words: Words, known: set[str], rng: random.Random) -> Document:
    """Word one document: all its beats speak about the same concepts, each time by another name."""
    choices = [expand(beat, frames, kind.voice) for beat in draw_beats(kind.beats, rng)]
    slots = [slot for choice in choices for template, _ in choice for slot in slots_of(template)]
    meaning = draw_meaning(slots, narrow(words, kind.only), rng)
    sentences = []
    for choice in choices:
        for _ in range(TRIES):
            template, voice = rng.choice(choice)
            text = fill(template, meaning, rng, voice)
            if text not in known:
                break
        known.add(text)
        sentences.append(text)
    return Document(kind.name, tuple(sentences))


def draw_beats(beats: tuple[tuple[str, ...], ...], rng: random.Random) -> list[tuple[str, ...]]:
    """Leave out optional beats (``?``) at times, and with each the beats that hang on it (``+``)."""
    drawn, is_kept = [], True
    for beat in beats:
        if beat[0] != "+":
            is_kept = beat[0] != "?" or rng.random() < OPTIONAL_FRACTION
        if is_kept:
            drawn.append(beat)
    return drawn


def expand(beat: tuple[str, ...], frames: dict[str, Frame], voice: str) -> list[tuple[str, str]]:
    """The templates of a beat, each with its voice: those of a frame, in the customer's, stand for ``@frame``."""
    templates: list[tuple[str, str]] = []
    for line in beat:
        if line.startswith("@"):
            templates += [(template, "I") for template in frames[line[1:]].templates]
        elif line not in ("?", "+"):
            templates.append((line, voice))
    return templates
