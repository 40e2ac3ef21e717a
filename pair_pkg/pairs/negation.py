"""Whether a text negates something: closed lists of English and Chinese negation words."""

import re
import unicodedata

# The closed-class cues of the Conan Doyle negation corpus (Morante and Blanco, *SEM 2012), with "cannot" and the
# usual spellings of n't; affixes (un-, -less) are left out, for no list tells "unhappy" from "united".
_ENGLISH = re.compile(
    r"\b(?:no|not|non|nor|never|neither|nobody|none|nothing|nowhere|without|cannot"
    r"|\w+n['\u2019]t|(?:do|does|did|is|are|was|were|wo|would|should|could|ca|have|has|had)nt)\b"
)
# Explicit negators of modern Chinese (Xiao and McEnery, Journal of Chinese Linguistics, 2008; Qiu et al., Journal of
# Chinese Information Processing, 2016), in both scripts.
_CHINESE = re.compile("[不没沒未无無非勿莫甭毋]|别(?=再|说|让|给|忘|担心|着急)")
# What those characters do without negating: questions of the form A-not-A (能不能, 有没有) or with a particle at the
# end (了没有), and words that hold the character.
_NOT_NEGATING = re.compile(
    r"(\w)[不没沒]\1"
    r"|[了过過][没沒]有?(?=\W*$)"
    "|差不多|(?<!\w)不[过過]|不但|不仅|不僅|不管|不论|不論|不断|不斷|不少|不错|不錯|不久|不同|不止|对不起|對不起"
    "|非常|除非|是非|非洲|未来|未來|无论|無論|无线|無線|无数|無數|莫名|莫非"
)


def negates(text: str) -> bool:
    """Whether a text has a word of negation; how often, and of what, is not told.

    >>> [negates(text) for text in ("It doesn't hurt", "Is it painful?", "还不了款", "能不能还款")]
    [True, False, True, False]
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return bool(_ENGLISH.search(folded) or _CHINESE.search(_NOT_NEGATING.sub(" ", folded)))
