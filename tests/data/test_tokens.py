"""The token store: the tokenizer's own ids, whole or not there, read once."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.tokens import (
    find_damage,
    load_or_build_store,
    load_store,
    num_ids,
    ordinary_ids,
    special_affixes,
    tokenizer_fingerprint,
)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "chess", "-", "我", "爱"]


@pytest.fixture
def piece_tokenizer():
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def word_tokenizer(num_words):
    vocabulary = {"[UNK]": 0} | {f"w{number}": number for number in range(1, num_words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def build(cache_dir, tokenizer, texts, source="corpus", **settings):
    accounting = {"documents_kept": len(texts)}
    return load_or_build_store(
        cache_dir, source, tokenizer, lambda: iter(texts), lambda: accounting, quiet=True, **settings
    )


def refuse():
    raise AssertionError("the corpus was read again")


def documents_of(store):
    return [store.ids[begin:end].tolist() for begin, end in zip(store.offsets, store.offsets[1:])]


def test_ids_are_the_tokenizers_own(tmp_path, tiny_tokenizer, tiny_documents):
    store = build(tmp_path, tiny_tokenizer, tiny_documents)
    assert documents_of(store) == tiny_tokenizer(tiny_documents, add_special_tokens=False)["input_ids"]
    assert store.num_documents == 200 and store.num_tokens == len(store.ids) == len(store.word_starts)
    assert store.accounting == {"documents_kept": 200, "tokens": store.num_tokens, "unknown_tokens": 0}


def test_chunks_leave_no_trace(tmp_path, tiny_tokenizer, tiny_documents, monkeypatch):
    whole = build(tmp_path / "a", tiny_tokenizer, tiny_documents)
    monkeypatch.setattr("pair_pkg.data.tokens.CHUNK_CHARACTERS", 100)
    chunked = build(tmp_path / "b", tiny_tokenizer, tiny_documents)
    assert documents_of(chunked) == documents_of(whole)
    assert np.array_equal(chunked.word_starts, whole.word_starts)


def test_known_answer(tmp_path, piece_tokenizer):
    store = build(tmp_path, piece_tokenizer, ["Playing chess", "", "chess-playing 我爱", "playing go"])
    assert store.ids.tolist() == [5, 6, 7, 7, 8, 5, 6, 9, 10, 5, 6, 1]
    assert store.word_starts.tolist() == [1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    assert store.offsets.tolist() == [0, 3, 3, 9, 12]
    assert store.accounting == {"documents_kept": 4, "tokens": 12, "unknown_tokens": 1}


def test_a_corpus_without_tokens(tmp_path, piece_tokenizer):
    store = build(tmp_path, piece_tokenizer, ["", " "])
    assert store.num_tokens == 0 and store.offsets.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("num_words", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_as_many_bytes_as_the_vocabulary_needs(tmp_path, num_words, dtype):
    store = build(tmp_path, word_tokenizer(num_words), [f"w1 w{num_words - 1}"])
    assert store.ids.dtype == dtype and store.ids.tolist() == [1, num_words - 1]


def test_the_cache_serves_without_reading(tmp_path, piece_tokenizer):
    built = build(tmp_path, piece_tokenizer, ["playing", "chess"])
    found = load_or_build_store(tmp_path, "corpus", piece_tokenizer, refuse, refuse)
    assert documents_of(found) == documents_of(built) and found.accounting == built.accounting


def cut(name, num_bytes):
    def damage(store_dir):
        path = store_dir / name
        path.write_bytes(path.read_bytes()[:num_bytes])

    return damage


DAMAGES = {
    "ids.bin has 2 bytes in place of 6": cut("ids.bin", 2),
    "word_starts.bin has 0 bytes in place of 3": cut("word_starts.bin", 0),
    "word_starts.bin cannot be read": lambda store_dir: (store_dir / "word_starts.bin").unlink(),
    "offsets.npy is damaged": cut("offsets.npy", 130),
    "offsets.npy ends at 1 in place of 3": lambda store_dir: np.save(store_dir / "offsets.npy", np.array([0, 1, 1])),
    "store.json cannot be read": lambda store_dir: (store_dir / "store.json").unlink(),
    "store.json or": cut("store.json", 9),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_damaged_store_is_built_anew_with_a_line(tmp_path, piece_tokenizer, caplog, words):
    whole = documents_of(build(tmp_path, piece_tokenizer, ["playing", "", "chess"]))
    assert not caplog.messages
    (store_dir,) = tmp_path.iterdir()
    DAMAGES[words](store_dir)
    assert words in find_damage(store_dir)
    assert documents_of(build(tmp_path, piece_tokenizer, ["playing", "", "chess"])) == whole
    (line,) = caplog.messages
    assert str(store_dir) in line and words in line and "anew" in line
    assert find_damage(store_dir) is None and len(list(tmp_path.iterdir())) == 1


def test_a_store_is_flushed_before_it_has_its_name(tmp_path, piece_tokenizer, monkeypatch):
    flushed = []

    def flush(path):
        flushed.append((path.name, any(tmp_path.glob("tokens-*"))))

    monkeypatch.setattr("pair_pkg.data.once.flush", flush)
    build(tmp_path, piece_tokenizer, ["chess"])
    files = {"ids.bin", "word_starts.bin", "offsets.npy", "store.json"}
    assert {name for name, has_its_name in flushed if not has_its_name} > files
    assert flushed[-1] == (tmp_path.name, True)  # the name itself


def test_other_content_another_tokenizer_or_a_demand_builds_anew(tmp_path, piece_tokenizer, tiny_tokenizer):
    build(tmp_path, piece_tokenizer, ["playing"])
    assert build(tmp_path, piece_tokenizer, ["chess"], source="other").ids.tolist() == [7]
    assert build(tmp_path, tiny_tokenizer, ["pump"]).num_tokens == len(tiny_tokenizer.tokenize("pump"))
    assert build(tmp_path, piece_tokenizer, ["chess"], overwrite=True).ids.tolist() == [7]
    assert tokenizer_fingerprint(piece_tokenizer) != tokenizer_fingerprint(tiny_tokenizer)


@pytest.mark.parametrize("where", ["reading", "counting"])
def test_an_exception_leaves_nothing(tmp_path, piece_tokenizer, where):
    def texts():
        yield "playing"
        if where == "reading":
            raise KeyboardInterrupt

    def count():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_build_store(tmp_path, "corpus", piece_tokenizer, texts, count, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_another_machine_finished_meanwhile_is_taken(tmp_path, piece_tokenizer):
    build(tmp_path / "elsewhere", piece_tokenizer, ["chess"])
    (theirs,) = (tmp_path / "elsewhere").iterdir()
    cache_dir = tmp_path / "cache"

    def texts():
        shutil.move(theirs, cache_dir)
        yield "chess"

    store = load_or_build_store(cache_dir, "corpus", piece_tokenizer, texts, dict, quiet=True)
    assert store.ids.tolist() == [7] and len(list(cache_dir.iterdir())) == 1


def test_of_two_runs_at_a_time_one_tokenizes(tmp_path, piece_tokenizer, caplog):
    reads = []

    def texts():
        reads.append(1)
        while "waiting" not in caplog.text:
            time.sleep(0.01)
        yield "chess"

    def run():  # threads stand for processes: each has a lock of its own
        return load_or_build_store(tmp_path, "corpus", piece_tokenizer, texts, dict, quiet=True, overwrite=True)

    with caplog.at_level("INFO", "pair_pkg"), ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(lambda _: run(), range(2)))
    assert [store.ids.tolist() for store in stores] == [[7], [7]] and reads == [1]
    assert len(list(tmp_path.iterdir())) == 1  # no lock is left


@pytest.mark.parametrize("fails", [False, True])
def test_the_tokenizers_truncation_and_padding_are_put_aside_and_back(tmp_path, piece_tokenizer, fails):
    def texts():
        yield "playing chess playing chess"
        yield "chess"
        if fails:
            raise RuntimeError

    piece_tokenizer("playing", truncation=True, max_length=2, padding="max_length")
    backend = piece_tokenizer.backend_tokenizer
    before = backend.truncation, backend.padding
    try:
        store = load_or_build_store(tmp_path, "corpus", piece_tokenizer, texts, dict, quiet=True)
        assert not fails and documents_of(store) == [[5, 6, 7, 5, 6, 7], [7]]
    except RuntimeError:
        assert fails
    assert before[0]["max_length"] == 2 and before[1]["length"] == 2
    assert (backend.truncation, backend.padding) == before


def test_a_tokenizer_in_use_elsewhere_has_the_same_fingerprint(piece_tokenizer):
    before = tokenizer_fingerprint(piece_tokenizer)
    piece_tokenizer("playing chess", truncation=True, max_length=2, padding="max_length")
    assert tokenizer_fingerprint(piece_tokenizer) == before


def test_stores_are_memory_mapped(tmp_path, piece_tokenizer):
    build(tmp_path, piece_tokenizer, ["chess"])
    (store_dir,) = tmp_path.iterdir()
    assert isinstance(load_store(store_dir).ids, np.memmap)


def test_affixes(tiny_tokenizer, piece_tokenizer):
    first, last = tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id
    assert special_affixes(tiny_tokenizer) == ([first], [last])
    assert special_affixes(piece_tokenizer) == ([], [])


def test_a_vocabulary_with_gaps(tmp_path):
    vocabulary = {"[UNK]": 0, "[MASK]": 1, "loan": 5, "##s": 70_000}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", mask_token="[MASK]")
    assert num_ids(tokenizer) == 70_001
    assert ordinary_ids(tokenizer).tolist() == [5, 70_000]
    store = build(tmp_path, tokenizer, ["loans"])
    assert store.ids.tolist() == [5, 70_000] and store.ids.dtype == np.uint32
