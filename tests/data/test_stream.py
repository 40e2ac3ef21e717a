"""Rows of a stream: each document is one process's and read once in an epoch, and every place can be gone on from."""

import tracemalloc
from collections import Counter
from itertools import islice

import datasets
import numpy as np
import pytest

from pair_pkg.data.corpus import Document
from pair_pkg.data.rows import cut_windows, rows_packed
from pair_pkg.data.shards import FileShards, HubShards, read_head
from pair_pkg.data.stream import Mark, Position, RowStream, StreamSampler
from pair_pkg.data.tokens import TokenStore
from pair_pkg.errors import InputError


class Lists:
    """Shards of texts; a text is the numbers of its tokens."""

    def __init__(self, *shards):
        self.shards = shards

    def __len__(self):
        return len(self.shards)

    def documents(self, shard, first=0):
        for number, text in enumerate(self.shards[shard][first:], start=first):
            yield Document(text, f"{shard}:{number}")


def numbered(*sizes, seed=0):
    """Shards of so many documents; every token of them is another number."""
    draw, first, shards = np.random.default_rng(seed), 0, []
    for size in sizes:
        shard = []
        for length in draw.integers(1, 12, size).tolist():
            shard.append(" ".join(map(str, range(first, first + length))))
            first += length
        shards.append(shard)
    return Lists(*shards)


def tokens_of(shards):
    return [int(token) for shard in shards.shards for text in shard for token in text.split()]


def tokenize(texts):
    ids = [[int(token) for token in text.split()] for text in texts]
    starts = np.array([place == 0 for part in ids for place in range(len(part))], dtype=bool)
    flat = np.array([token for part in ids for token in part], dtype=np.uint32)
    return TokenStore(flat, starts, np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(int), {})


def cut(store):
    return rows_packed(*cut_windows(store.offsets, np.arange(store.num_documents), 8), 2, 10)


def build(shards, process_index=0, num_processes=1, **changes):
    settings = {"name": "test", "shards": shards, "tokenize": tokenize, "cut": cut, "seed": 3, "buffer_characters": 120}
    settings["clean"] = lambda documents: [document.text for document in documents if document.text.strip()]
    return RowStream(**(settings | changes), process_index=process_index, num_processes=num_processes)


def tokens_by_epoch(stream, num_epochs):
    """The tokens of the first epochs as rows have them."""
    found = [[] for _ in range(num_epochs)]
    for block in stream.blocks(Position()):
        if block.position.epoch >= num_epochs:
            return found
        found[block.position.epoch].extend(token for row in block.read(0) for token in row.ids.tolist())


DIVISIONS = [((9, 4, 7, 1), 1), ((9, 4, 7, 11), 2), ((9, 4, 7, 3, 5), 3), ((30,), 2), ((9, 8), 3)]


@pytest.mark.parametrize(("sizes", "num_processes"), DIVISIONS)
def test_an_epoch_has_every_token_once_over_all_processes(sizes, num_processes):
    shards = numbered(*sizes)
    shares = [tokens_by_epoch(build(shards, rank, num_processes), 3) for rank in range(num_processes)]
    orders = []
    for epoch in range(3):
        together = [token for share in shares for token in share[epoch]]
        assert Counter(together) == Counter(tokens_of(shards))
        assert all(share[epoch] for share in shares)
        orders.append(together)
    assert orders[0] != orders[1] != orders[2]


def test_a_row_comes_back_in_the_next_epoch_at_other_places():
    rows = list(islice((row for block in build(numbered(40)).blocks(Position()) for row in block.read(0)), 90))
    places = [place for row in rows for start, n in zip(row.starts, row.lengths) for place in range(start, start + n)]
    tokens = [token for row in rows for token in row.ids.tolist()]
    assert len(set(places)) == len(places) == len(tokens) > len(set(tokens))
    other = next(build(numbered(40), 1, 2).blocks(Position()))
    assert not set(places) & set(range(other.first_place, other.first_place + 1000))


def test_what_is_held_back_is_in_no_epoch():
    shards = numbered(5, 6, 7)
    documents, held_back = read_head(shards, 8)
    assert held_back == {0: 5, 1: 3} and [document.text for document in documents] == [
        *shards.shards[0],
        *shards.shards[1][:3],
    ]
    first, second = tokens_by_epoch(build(shards, held_back=held_back), 2)
    rest = tokens_of(Lists(shards.shards[1][3:], shards.shards[2]))
    assert sorted(first) == sorted(second) == rest


def batches_of(sampler):
    return [
        [(*(getattr(row, name).tolist() for name in ("ids", "starts", "lengths")), row.progress) for row in batch]
        for batch in sampler
    ]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_run_goes_on_from_every_batch(num_processes, tmp_path):
    """Blocks of a few rows, batches across them, and three ends of epochs."""
    shards = numbered(9, 4, 7)
    for rank in range(num_processes):
        stream = build(shards, rank, num_processes, buffer_characters=60)
        whole = StreamSampler(stream, 3, 24, Mark(num_processes))
        wanted = batches_of(whole)
        assert wanted[0] != wanted[1] and sum(map(len, wanted)) == 72
        for done in range(25):
            sampler = StreamSampler(stream, 3, 24, Mark(num_processes))
            list(islice(sampler, min(done + 4, 24)))  # as workers do, ahead of training
            sampler.mark(done // 2)
            sampler.mark(done).save(tmp_path, rank)
            begin = Mark.load(tmp_path, rank, num_processes)
            assert begin.num_rows == 3 * done
            again = StreamSampler(stream, 3, 24, begin, num_done=done)
            assert len(again) == 24 and batches_of(again.starting_at(done)) == wanted[done:]
        assert begin.position.epoch >= 2
        # the control: the block's beginning alone is no place to go on from
        wrong = begin.__class__(num_processes, begin.position.num_rows, begin.position, begin.digest)
        sampler = StreamSampler(stream, 3, 30, wrong, num_done=24)
        assert batches_of(sampler) != batches_of(StreamSampler(stream, 3, 30, begin, num_done=24))


def test_the_librarys_shuffle_loses_its_buffer():
    """Why blocks are shuffled here: ``datasets`` goes on without the rows that its buffer held."""
    rows = datasets.Dataset.from_dict({"n": list(range(40))}).to_iterable_dataset().shuffle(seed=1, buffer_size=10)
    whole = [row["n"] for row in rows]
    assert sorted(whole) == list(range(40))
    begun = [row["n"] for row in islice(rows, 15)]
    rows.load_state_dict(rows.state_dict())
    assert begun == whole[:15] and [row["n"] for row in rows] != whole[15:]


def test_another_number_of_processes_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no place in a stream"):
        Mark.load(tmp_path, 0, 1)
    Mark(2, 12, Position(1, 2, 3, 4, 5), "ab").save(tmp_path, 0)
    assert Mark.load(tmp_path, 0, 2) == Mark(2, 12, Position(1, 2, 3, 4, 5), "ab")
    for rank, number in ((0, 1), (2, 3)):
        with pytest.raises(InputError, match=rf"their number has changed \(2 -> {number}\); go on with 2"):
            Mark.load(tmp_path, rank, number)


def test_a_stream_that_has_changed_is_refused():
    shards = numbered(20, 20)
    sampler = StreamSampler(build(shards), 4, 10, Mark(1))
    list(islice(sampler, 5))
    begin = sampler.mark(5)
    changed = Lists(*([text.replace("7", "8") for text in shard] for shard in shards.shards))
    with pytest.raises(InputError, match=r"test: is not what this run has read before \(epoch 0, shard"):
        list(StreamSampler(build(changed), 4, 10, begin, num_done=5))


@pytest.mark.parametrize(
    ("shards", "process_index", "num_processes"),
    [(Lists([" ", ""]), 0, 1), (Lists(["1 2"], [" "]), 0, 2), (Lists(["1"]), 1, 2)],
)
def test_a_share_without_text_is_refused(shards, process_index, num_processes):
    share = f"share of process {process_index} of {num_processes}; give more text or fewer processes"
    with pytest.raises(InputError, match=share):
        next(build(shards, process_index, num_processes).blocks(Position()))


def test_memory_does_not_grow_with_the_stream():
    def peak(num_batches):
        stream = build(numbered(*[400] * 10), buffer_characters=4_000)
        tracemalloc.start()
        count = sum(len(batch) for batch in StreamSampler(stream, 8, num_batches, Mark(1)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 8 * num_batches
        return peak

    assert peak(1_000) < 1.5 * peak(100)


# --- where documents come from


def test_files_are_shards_that_are_read_from_any_document_on(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "b.jsonl").write_text('{"body": "four"}\n{"body": "five"}\n')
    shards = FileShards([tmp_path / "a.txt", tmp_path / "b.jsonl"], text_column="body")
    assert len(shards) == 2
    assert [document.text for document in shards.documents(0, 1)] == ["two", "three"]
    assert list(shards.documents(1, 1)) == [Document("five", f"{tmp_path / 'b.jsonl'}:2")]


def test_a_hub_split_is_read_from_any_row_of_a_shard_on(monkeypatch):
    rows = datasets.Dataset.from_dict({"id": list(range(7)), "content": list("abcdefg")})
    stream = rows.to_iterable_dataset(num_shards=3)

    def load_dataset(name, config, split, streaming, token):
        load_dataset.called_with = (name, config, split, streaming, token)
        return stream

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    shards = HubShards("org/name", "en", "train", None, "hf_token")
    assert load_dataset.called_with == ("org/name", "en", "train", True, "hf_token")
    assert len(shards) == 3
    assert [[document.text for document in shards.documents(shard)] for shard in range(3)] == [
        ["a", "b", "c"],
        ["d", "e"],
        ["f", "g"],
    ]
    assert list(shards.documents(1, 1)) == [Document("e", "org/name[train]: shard 1, row 2")]
    with pytest.raises(InputError, match=r"org/name\[train\]: no column 'txt'"):
        HubShards("org/name", None, "train", "txt", None)
    with pytest.raises(InputError, match=r"shard 0, row 1: the text is int 0"):
        next(HubShards("org/name", None, "train", "id", None).documents(0))


def test_a_hub_stream_without_known_columns_reads_them_from_its_first_row(monkeypatch):
    def rows(texts):
        yield from ({"text": text} for text in texts)

    def load(texts):
        stream = datasets.IterableDataset.from_generator(rows, gen_kwargs={"texts": texts})
        assert stream.features is None
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **settings: stream)
        return HubShards("org/name", None, "train", None, None)

    shards = load(["a", "b"])
    assert [document.text for shard in range(len(shards)) for document in shards.documents(shard)] == ["a", "b"]
    with pytest.raises(InputError, match=r"org/name\[train\]: no column named text"):
        load([])
