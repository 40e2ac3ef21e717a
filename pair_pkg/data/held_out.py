"""Sentences that a corpus must not teach, because a model is to be judged by them: found in documents, and cut out."""

from collections.abc import Iterable, Iterator

from pair_pkg.data.corpus import CorpusAudit, Document
from pair_pkg.data.sentences import split_sentences
from pair_pkg.data.splits import normalize_text
from pair_pkg.records import fingerprint


class HeldOutTexts:
    """Texts of one or several sentences, told apart by ``normalize_text``."""

    def __init__(self, texts: Iterable[str]):
        keys = {tuple(map(normalize_text, split_sentences(text))) for text in texts} - {()}
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for key in sorted(keys, key=len, reverse=True):  # the longest is cut out where several begin alike
            self._by_first.setdefault(key[0], []).append(key)
        self.fingerprint = fingerprint(sorted(keys))

    def __len__(self) -> int:
        return sum(map(len, self._by_first.values()))

    def cut_from(self, text: str) -> tuple[str, int]:
        """The text without the held-out texts that stand in it as whole sentences, and how many those were.

        >>> HeldOutTexts(["Is it flu? Tell me."]).cut_from("Hello there. Is it  FLU? Tell me. Thank you.")
        ('Hello there. Thank you.', 1)
        """
        pieces = list(split_sentences(text))
        keys = list(map(normalize_text, pieces))
        kept: list[str] = []
        found = place = end = 0
        while place < len(pieces):
            length = self._length_at(keys, place)
            begin = text.index(pieces[place], end)
            if length:
                found += 1
                for piece in pieces[place : place + length]:
                    end = text.index(piece, end) + len(piece)
            else:
                after = text.index(pieces[place + 1], begin + len(pieces[place])) if place + 1 < len(pieces) else None
                kept.append(text[begin:after])
                end = begin + len(pieces[place])
            place += length or 1
        return ("".join(kept).strip(), found) if found else (text, 0)

    def _length_at(self, keys: list[str], place: int) -> int:
        """How many sentences from ``place`` on are a held-out text; 0 where none is."""
        for key in self._by_first.get(keys[place], ()):
            if tuple(keys[place : place + len(key)]) == key:
                return len(key)
        return 0


def drop_held_out(documents: Iterable[Document], held_out: HeldOutTexts, audit: CorpusAudit) -> Iterator[Document]:
    """The documents without held-out texts, which ``audit`` counts; a document of nothing else is left out."""
    for document in documents:
        text, found = held_out.cut_from(document.text)
        audit.held_out_texts += found
        audit.characters -= len(document.text) - len(text)
        if text:
            yield Document(text, document.place, document.id)
        else:
            audit.documents_kept -= 1
