"""Chunks of texts as tokens, in their order: by a thread beside the reader, by processes once there is much of it.

Cutting texts and numbering words holds Python's lock for half of the time, and so does reading: more threads bring
little. A process is handed a chunk and hands back its tokens, while this one reads and cleans for all of them.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.words import TokenizedTexts, WordTokenizer

logger = logging.getLogger("pair_pkg")

Tokenize = Callable[[Sequence[str]], TokenizedTexts]

# 60 MB of MedQuAD (2026-11-28): reading, cleaning and handing out take 1.1 CPU seconds, tokenizing 2.4 in a thread and
# 3.4 in two processes, each of which has its own words to learn, 0.35 s to start and 160 MB of memory. So two cores
# gain nothing from processes, and four of them keep one reader busy.
CHARACTERS_ALONE = 32_000_000  # of a corpus, before processes are started: fewer are nearly done by then
MAX_PROCESSES = 4
SERVE = "import sys; sys.path[:] = {path!r}; from pair_pkg.data.word_processes import serve; serve()"


def tokenize_chunks(
    chunks: Iterable[Sequence[str]], state: dict[str, Any], chinese: ChineseWords | None = None
) -> Iterator[TokenizedTexts]:
    """The tokens of each chunk by the tokenizer of a state (see ``WordTokenizer``), while the next ones are read.

    Who tokenizes a chunk changes nothing in its tokens. A tokenizer that takes its texts whole stays in this process:
    its own threads are on all cores.
    """
    own = WordTokenizer(state, chinese)
    num_processes = min(num_cores() - 1, MAX_PROCESSES)
    may_divide = own.cuts_texts and num_processes > 1
    ahead: deque[Future[TokenizedTexts]] = deque()
    with ExitStack() as stack:
        submit, most_ahead, num_characters = _threads([own.tokenize], stack), 1, 0
        for chunk in chunks:
            if may_divide and num_characters > CHARACTERS_ALONE:
                may_divide, most_ahead = False, num_processes + 1
                processes = [stack.enter_context(WordProcess(state, chinese)) for _ in range(num_processes)]
                submit = _threads([process.tokenize for process in processes], stack)
            num_characters += sum(map(len, chunk))
            ahead.append(submit(chunk))
            if len(ahead) > most_ahead:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class WordProcess:
    """A ``WordTokenizer`` in a process of its own, which ends when this one does, however it does.

    It is started without the caller's program, which may be of any kind. Where it ends by itself (memory ran out, a
    person stopped it) its work is done in this process, with a warning.
    """

    def __init__(self, state: dict[str, Any], chinese: ChineseWords | None):
        self._settings = (state, chinese)
        self._own: WordTokenizer | None = None  # once the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},  # the other cores have processes
            start_new_session=True,  # a Ctrl-C is for this process, which then lets go of that one
        )
        self._requests, self._answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)

    def __enter__(self) -> "WordProcess":
        with suppress(OSError):  # it has ended already, which the first chunk finds
            self._send(self._settings)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()  # it holds nothing
        self._process.wait()
        self._answers.close()
        with suppress(OSError):  # what it had not read
            self._requests.close()

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """The tokens of a chunk; one caller at a time."""
        if self._own is None:
            try:
                self._send(texts)
                return pickle.load(self._answers)
            except (OSError, EOFError, pickle.UnpicklingError):
                self._process.kill()
                status = self._process.wait()
                logger.warning("a process that tokenizes ended (status %s); its share is done here", status)
                self._own = WordTokenizer(*self._settings)
        return self._own.tokenize(texts)

    def _send(self, message: Any) -> None:
        pickle.dump(message, self._requests, pickle.HIGHEST_PROTOCOL)
        self._requests.flush()


def serve() -> None:
    """What a ``WordProcess`` runs: chunks come in, tokens go out, until there is nobody to ask."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whoever prints must not do so among the answers
    try:
        words = WordTokenizer(*pickle.load(requests))
        while True:
            pickle.dump(words.tokenize(pickle.load(requests)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # no flush of what nobody reads


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(workers: Sequence[Tokenize], stack: ExitStack) -> Callable[[Sequence[str]], Future[TokenizedTexts]]:
    """How chunks are handed to whichever worker is idle; at the stack's end chunks that wait are given up."""
    idle: SimpleQueue[Tokenize] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def tokenize(chunk: Sequence[str]) -> TokenizedTexts:
        worker = idle.get()
        try:
            return worker(chunk)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(len(workers))
    stack.callback(pool.shutdown, cancel_futures=True)
    return lambda chunk: pool.submit(tokenize, chunk)
