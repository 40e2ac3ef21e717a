"""Concepts with interchangeable names, and the texts that are filled from them."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")  # {part} or {part.does}
SENTENCE_END = {"en": re.compile(r"(?<=[.!?])\s+"), "zh": re.compile(r"(?<=[。！？])")}
VOICES = {
    "I": {},
    "you": {"I": "you", "my": "your", "me": "you"},
    "they": {"I": "they", "my": "their", "me": "them"},
}


@dataclass(frozen=True)
class Concept:
    """One meaning: its names, the concepts it needs beside it (none: any), and facts about it."""

    key: str
    names: tuple[str, ...]
    scope: frozenset[str]
    kind: str
    block: int  # concepts of one section and block are look-alikes
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)


Words = dict[str, list[Concept]]  # a section's name -> its concepts, in the order of the file
Meaning = dict[str, Concept]  # a slot's name -> the concept that it stands for


def load_words(path: Path) -> Words:
    """Read a table of concepts; the head of ``source/en/words.txt`` describes the format."""
    words: Words = {}
    section, kind, block = "", "", 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            block += 1
        elif line.startswith("["):
            section, kind = line.strip("[]"), ""
            words[section] = []
        elif line.startswith("~"):
            kind = line[1:]
        elif line.startswith(" "):
            name, forms = line.strip().split(": ", 1)
            words[section][-1].facts[name] = tuple(forms.split(" | "))
        else:
            words[section].append(parse_concept(line, kind, block))
    return words


def parse_concept(line: str, kind: str, block: int) -> Concept:
    """Read ``key @ scope: name | name``, or a bare name.

    >>> parse_concept("lid @ kettle: lid | cover", "part", 0).names
    ('lid', 'cover')
    """
    head, colon, names = line.partition(": ")
    key, _, scope = head.partition(" @ ")
    return Concept(key, tuple((names if colon else line).split(" | ")), frozenset(scope.split()), kind, block)


def load_sections(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read ``[name]`` and the lines below it, empty lines inside included."""
    name, lines = "", []
    for line in [*path.read_text(encoding="utf-8").splitlines(), "[]"]:
        if line.startswith("["):
            if name:
                yield name, lines
            name, lines = line.strip("[]"), []
        elif not line.startswith("#"):
            lines.append(line)


def slots_of(text: str) -> list[str]:
    """The slots of a text, each once, in order.

    >>> slots_of("The {part} of a {product} {part.does}.")
    ['part', 'product']
    """
    return list(dict.fromkeys(match[1] for match in SLOT.finditer(text)))


def section_of(slot: str) -> str:
    """``task2`` is a second concept of the section ``task``."""
    return slot.rstrip("0123456789")


def fits(concept: Concept, others: Meaning) -> bool:
    return not concept.scope or any(other.key in concept.scope for other in others.values())


def is_sound(meaning: Meaning) -> bool:
    """True where each concept finds beside it one that it needs."""
    return all(fits(concept, meaning) for concept in meaning.values())


def narrow(words: Words, only: frozenset[str]) -> Words:
    """Limit the sections that hold a concept of ``only`` to such concepts; leave the others as they are."""
    return {
        section: [concept for concept in concepts if concept.key in only] or concepts
        for section, concepts in words.items()
    }


def draw_meaning(slots: list[str], words: Words, rng: random.Random) -> Meaning:
    """Draw one concept for each slot so that all of them go together.

    Sections are drawn in the order of the words file, where a concept stands below those it needs. A numbered
    slot comes last: a second concept of a section, another than the first.
    """
    wanted = with_nested(slots, words)
    plain = sorted({section_of(slot) for slot in wanted}, key=list(words).index)
    while True:
        meaning: Meaning = {}
        for slot in plain:
            meaning[slot] = rng.choice([concept for concept in words[slot] if fits(concept, meaning)] or words[slot])
        if is_sound(meaning):
            break
    for slot in sorted(wanted - set(plain)):
        first = meaning[section_of(slot)]
        meaning[slot] = rng.choice([c for c in words[section_of(slot)] if c is not first and fits(c, meaning)])
    return meaning


def with_nested(slots: list[str], words: Words) -> set[str]:
    """Add the slots that stand inside names, such as the product in a task."""
    concepts = [concept for slot in set(slots) for concept in words[section_of(slot)]]
    return {*slots, *(inner for concept in concepts for name in concept.names for inner in slots_of(name))}


def fill(template: str, meaning: Meaning, rng: random.Random, voice: str = "I") -> str:
    """Put a name, or a fact, into each slot of a template; a name that stands there already is avoided."""
    used: set[str] = set()

    def name(match: re.Match) -> str:
        slot, fact = match.groups()
        concept = meaning[slot]
        forms = concept.facts[fact] if fact else concept.names
        form = rng.choice([form for form in forms if form not in used] or list(forms))
        used.add(form)
        return form if fact or slot == "remedy" else speak(form, voice)

    while SLOT.search(template):  # names may hold slots: "descale the {product}"
        template = SLOT.sub(name, template)
    return polish(template)


def speak(form: str, voice: str) -> str:
    """Turn a customer's words around.

    >>> speak("cancel my order", "you")
    'cancel your order'
    """
    return re.sub(r"\b(I|my|me)\b", lambda match: VOICES[voice].get(match[0], match[0]), form)


def polish(text: str) -> str:
    """Mend the article before a vowel and begin each sentence with a capital.

    >>> polish("a air fryer is here. it works.")
    'An air fryer is here. It works.'
    """
    text = re.sub(r"\b([Aa]) (?=(?!one|uni|use)[aeiou]|[AE])", r"\1n ", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def split_sentences(text: str, language: str) -> list[str]:
    """Cut a text of this data behind its closing marks (it holds no abbreviation with a full stop)."""
    return [sentence for sentence in SENTENCE_END[language].split(text) if sentence]
