"""Labelled question pairs: paraphrases in other words, and look-alikes that differ in one thing."""

import random
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from language import SLOT, Concept, Meaning, Words, draw_meaning, is_sound, load_sections, narrow, polish, slots_of

SAME_TEMPLATE_FRACTION = 0.4  # of the groups: only names differ, so word overlap is high in both labels
CROSSED_FRACTION = 0.8  # of the groups: a look-alike is worded as differently as a paraphrase
RENAME_FRACTION = 0.75  # of the slots in a paraphrase get another name
CASUAL_FRACTION = 0.05  # of the questions are typed without a capital and a closing mark
TYPO_FRACTION = 0.02


@dataclass(frozen=True)
class Frame:
    """One intent: its templates, what its look-alikes change, and the concepts it is limited to."""

    name: str
    templates: tuple[str, ...]
    differs: tuple[str, ...]
    only: frozenset[str]


@dataclass(frozen=True)
class Pair:
    sentence1: str
    sentence2: str
    label: int  # 1: one meaning
    kind: str  # what a look-alike changes, or how a paraphrase is made


def load_frames(path: Path) -> dict[str, Frame]:
    """Read frames; the head of ``source/en/questions.txt`` describes the format."""
    frames = {}
    for name, lines in load_sections(path):
        lists = {"differs": "", "only": ""}
        templates = []
        for line in filter(None, lines):
            head, _, rest = line.partition(": ")
            if head in lists:
                lists[head] = rest
            else:
                templates.append(line)
        frames[name] = Frame(name, tuple(templates), tuple(lists["differs"].split()), frozenset(lists["only"].split()))
    return frames


def build_pairs(frames: dict[str, Frame], words: Words, num_pairs: int, rng: random.Random) -> list[Pair]:
    """Draw groups of four questions, two meanings in two wordings each, and pair them: half of the labels are 1.

    No question stands in two groups, so a group is a connected component of four pairs.
    """
    pairs: list[Pair] = []
    known: set[str] = set()
    while len(pairs) < num_pairs:
        for frame in frames.values():
            group = draw_group(frame, frames, words, rng)
            texts = {text for pair in group for text in (pair.sentence1, pair.sentence2)}
            if len(texts) == 4 and not texts & known:
                known |= texts
                pairs += group
    return pairs[:num_pairs]


def draw_group(frame: Frame, frames: dict[str, Frame], words: Words, rng: random.Random) -> list[Pair]:
    """Two meanings that look alike, each worded twice: their two paraphrases and two of their look-alikes.

    The same wordings serve both meanings, so neither a word nor the overlap of words tells the label.
    Empty where the drawn meaning has no look-alike.
    """
    difference = rng.choice(frame.differs)
    other_frame = frames.get(difference, frame)
    slots = [slot for template in frame.templates + other_frame.templates for slot in slots_of(template)]
    words = narrow(narrow(words, frame.only), other_frame.only)
    meaning = draw_meaning(slots, words, rng)
    rival = meaning if difference in frames else change(meaning, difference, words, rng)
    if rival == meaning and other_frame is frame:
        return []
    kind = "intent" if difference in frames else meaning[difference].kind
    same_template = other_frame is frame and rng.random() < SAME_TEMPLATE_FRACTION
    first, second = rng.sample(frame.templates, 2)
    templates = [first, first if same_template else second]
    wordings = draw_wordings(meaning, rival, same_template, rng)
    nearest = nearest_templates(templates, other_frame) if other_frame is not frame else templates
    a, b = (casual(render(template, names), rng) for template, names in zip(templates, wordings[:2]))
    c, d = (casual(render(template, names), rng) for template, names in zip(nearest, wordings[2:]))
    alike = [(a, d), (b, c)] if rng.random() < CROSSED_FRACTION else [(a, c), (b, d)]
    made = "synonym" if same_template else "rewording"
    rows = [(a, b, 1, made), (c, d, 1, made), *((*texts, 0, kind) for texts in alike)]
    return [Pair(*rng.sample(row[:2], 2), *row[2:]) for row in rows]


def change(meaning: Meaning, slot: str, words: Words, rng: random.Random) -> Meaning:
    """Replace one concept by a look-alike: one of its block or, where it stands alone, of its section."""
    concept = meaning[slot]
    others = [other for other in words[slot] if other is not concept and is_sound({**meaning, slot: other})]
    near = [other for other in others if other.block == concept.block]
    return {**meaning, slot: rng.choice(near or others)} if others else meaning


def draw_wordings(meaning: Meaning, rival: Meaning, same_template: bool, rng: random.Random) -> list[dict[str, str]]:
    """Names for the four questions: two wordings of the meaning, then the same two of its rival."""
    slots = sorted(meaning)
    first = {slot: rng.choice(meaning[slot].names) for slot in slots}
    if same_template:
        rich = [slot for slot in slots if len(meaning[slot].names) > 1]
        renamed = rng.sample(rich, min(len(rich), rng.choice((1, 2))))
    else:
        renamed = [slot for slot in slots if rng.random() < RENAME_FRACTION]
    second = {slot: another(meaning[slot], first[slot], rng) if slot in renamed else first[slot] for slot in slots}
    rival_first, rival_second = dict(first), dict(second)
    for slot in slots:
        if rival[slot] is not meaning[slot]:
            rival_first[slot] = rng.choice(rival[slot].names)
            same_name = first[slot] == second[slot]
            rival_second[slot] = rival_first[slot] if same_name else another(rival[slot], rival_first[slot], rng)
    return [first, second, rival_first, rival_second]


def another(concept: Concept, name: str, rng: random.Random) -> str:
    """Another name of the concept, or the only one."""
    return rng.choice([other for other in concept.names if other != name] or [name])


def nearest_templates(templates: list[str], frame: Frame) -> list[str]:
    """For each template the one of another frame that looks most like it, no template twice."""
    chosen: list[str] = []
    for template in templates:
        free = [other for other in frame.templates if other not in chosen]
        chosen.append(max(free, key=lambda other: SequenceMatcher(None, template, other, autojunk=False).ratio()))
    return chosen


def render(template: str, names: dict[str, str]) -> str:
    while SLOT.search(template):
        template = SLOT.sub(lambda match: names[match[1]], template)
    return polish(template)


def casual(text: str, rng: random.Random) -> str:
    """Now and then leave out the capital and the closing mark, or swap two letters of a long word."""
    if rng.random() < CASUAL_FRACTION:
        text = text[0].lower() + text[1:] if text[1].islower() else text
        text = text.rstrip(".?!。？！")
    if rng.random() < TYPO_FRACTION:
        text = typo(text, rng)
    return text


def typo(text: str, rng: random.Random) -> str:
    """Swap two neighbouring letters inside a word of seven letters or more, if there is one."""
    spots = [word for word in text.split() if len(word) >= 7 and word.isascii() and word.isalpha() and word.islower()]
    if not spots:
        return text
    word = rng.choice(spots)
    place = rng.randrange(1, len(word) - 2)
    return text.replace(word, word[:place] + word[place + 1] + word[place] + word[place + 2 :], 1)
