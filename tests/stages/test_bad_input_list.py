"""The bad inputs that docs/reliability.md lists, a fixture for each: refused in a line, or told, or taken as it is.

"Refused" is one line with the place and the cure, exit status 2, and an output folder as it was. "Told" is a line of a
log, and where it can be counted the count in the record. "Taken" is read as it was meant.
"""

import errno
import io
import json
import os
import shutil
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pair_pkg.data.pairs import load_pairs
from pair_pkg.errors import EXIT_DISK_FULL
from pair_pkg.modeling.loading import load_tokenizer
from pair_pkg.records import read_record, write_json
from pair_pkg.stages import adapt, corpus, finetune
from pair_pkg.stages.corpus import training_source
from pair_pkg.stages.pairs_data import load_splits

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
HEADER = "sentence1,sentence2,label"
CHINESE = "糖尿病患者应该注意饮食"
HOSTILE = "the pump 👩\u200d🔧 שלום \u202etxt"
REFUSED, TOLD, TAKEN = "refused", "told", "taken"


@dataclass
class Desk:
    """What a case is made of: a folder, whole documents and rows, a whole model, and the words of both doors."""

    folder: Path
    documents: list[str]
    rows: list[str]
    bert: str
    mlm_words: object
    patch: pytest.MonkeyPatch
    run_before: object

    def path(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def mlm(self, content, name="corpus.txt", *flags):
        path = content if isinstance(content, Path) else self.path(name, content)
        return adapt.main, self.mlm_words(self.folder / "out", f"--train_file={path}", "--max_steps=1", *flags)

    def pairs(self, content, name="pairs.csv", *flags):
        path = content if isinstance(content, Path) else self.path(name, content)
        flags = ("--max_steps=1", "--save_strategy=no", "--bf16=false", "--use_cpu=true", *flags)
        words = [f"--model_name_or_path={self.bert}", f"--output_dir={self.folder / 'out'}", f"--train_file={path}"]
        return finetune.main, [*words, *flags]

    def table(self, *more, rows=None, header=HEADER):
        """A table of whole rows with some more behind them."""
        return "\n".join([header, *(self.rows if rows is None else rows), *more]) + "\n"

    def texts(self, end="\n"):
        return end.join(self.documents) + end

    def model(self, damage, *flags):
        folder = Path(shutil.copytree(self.bert, self.folder / "model", dirs_exist_ok=True))
        damage(folder)
        return self.mlm(self.texts(), "corpus.txt", f"--model_name_or_path={folder}", *flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "out"


@pytest.fixture
def desk(tmp_path, tiny_documents, tiny_bert, mlm_words, monkeypatch, finished, door):
    texts = [text.replace(",", " ") for text in tiny_documents]
    rows = [f"{first},{second},{row % 2}" for row, (first, second) in enumerate(zip(texts[:80:2], texts[1:80:2]))]

    def run_before(**changes):
        """A finished run in the output folder, whose record says other settings; it is trained once."""
        if not finished.exists():
            main, words = made.mlm(made.texts())
            status, errors = door(main, words)
            assert status == 0, errors
            shutil.move(tmp_path / "out", finished)
        shutil.copytree(finished, tmp_path / "out", dirs_exist_ok=True)
        record = read_record(tmp_path / "out")
        write_json(tmp_path / "out/run.json", {**record, "identity": {**record["identity"], **changes}})

    made = Desk(tmp_path, tiny_documents[:60], rows, tiny_bert, mlm_words, monkeypatch, run_before)
    return made


# --- what is expected of a case


def refused(build, said):
    def check(desk, door, refusal, caplog):
        line = refusal(*build(desk))
        assert said in line and "; " in line, line

    return REFUSED, check


def loaded(build, check_data, outcome=TAKEN):
    """Parsed by the door, and read as it reads; the rest of a run knows nothing of the case."""

    def check(desk, door, refusal, caplog):
        main, words = build(desk)
        if main is adapt.main:
            flags = adapt.parse(words)
            source = training_source(flags.corpus, None)
            data = source.store(load_tokenizer(flags.model.model_name_or_path), None, True).accounting
        else:
            data = load_splits(finetune.parse(words).pairs)
        check_data(desk, data, caplog.text)

    return outcome, check


def told(build, check_data):
    return loaded(build, check_data, TOLD)


def ran(build, said, outcome):
    def check(desk, door, refusal, caplog):
        status, errors = door(*build(desk))
        assert status == 0 and said in errors, errors

    return outcome, check


def documents(*more, duplicates=0):
    """The documents, with some more behind them, and no character more or less."""

    def check(desk, data, log):
        texts = [*desk.documents, *more]
        assert (data["documents_kept"], data["characters"]) == (len(texts), sum(map(len, texts)))
        assert data["duplicates"] == duplicates

    return check


def num_rows(more):
    def check(desk, data, log):
        assert data.accounting["train"]["rows"] == len(desk.rows) + more

    return check


def audit(**expected):
    def check(desk, data, log):
        assert {name: data.accounting["train"][name] for name in expected} == expected

    return check


def keeps_words(desk, data, log):
    pairs, _, _ = load_pairs([str(desk.folder / "pairs.csv")], labelled=True)
    assert (pairs.sentence1[-3:], pairs.sentence2[-3:]) == (["NA", "null", "007"], ["null", "007", "NA"])


def names(*expected):
    def check(desk, data, log):
        assert data.scheme.names == list(expected)

    return check


def scores(low, high):
    def check(desk, data, log):
        assert (data.scheme.kind, data.scheme.low, data.scheme.high) == ("scores", low, high)

    return check


def logged(*parts):
    def check(desk, data, log):
        assert all(part in log for part in parts), log

    return check


# --- how a case is made


def zipped(desk):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("corpus.txt", "the old pump\n")
    return desk.mlm(file.getvalue())


def folder_of_nothing(desk):
    (desk.folder / "texts").mkdir()
    return desk.mlm(desk.folder / "texts")


def pipe(desk):
    os.mkfifo(desk.folder / "corpus.txt")
    return desk.mlm(desk.folder / "corpus.txt")


def link_to_nothing(desk):
    (desk.folder / "corpus.txt").symlink_to("gone.txt")
    return desk.mlm(desk.folder / "corpus.txt")


def hundred_megabytes(desk):
    path = desk.folder / "corpus.txt"
    with open(path, "wb") as file:
        file.write(b"the old pump\n")
        for _ in range(100):
            file.write(b"no end " * 150_000)
    return desk.mlm(path)


def written_to_while_read(desk):
    read = corpus.read_documents

    def read_and_write(paths, **settings):
        for number, document in enumerate(read(paths, **settings)):
            if number == 5:
                with open(paths[0], "a") as file:
                    file.write("one more line\n")
            yield document

    desk.patch.setattr(corpus, "read_documents", read_and_write)
    return desk.mlm(desk.texts(), "corpus.txt", f"--token_cache_dir={desk.folder / 'cache'}")


def closed(*parts, path=None):
    """As if a file or folder could not be opened; root may open all, so the question is answered for it."""

    def build(desk):
        place, allowed = desk.folder / path, os.access
        made = desk.mlm(desk.texts(), "corpus.txt", *(f"--output_dir={place / 'out'}" for _ in parts))
        if parts:
            place.mkdir()
        desk.patch.setattr(os, "access", lambda asked, mode: Path(asked) != place and allowed(asked, mode))
        return made

    return build


def jsonl(*lines, name="corpus.jsonl"):
    return lambda desk: desk.mlm("".join(f"{line}\n" for line in lines), name)


def more(*rows, flags=()):
    """Whole rows, with these behind them."""
    return lambda desk: desk.pairs(desk.table(*rows), "pairs.csv", *flags)


def only(content, *flags):
    return lambda desk: desk.pairs(content, "pairs.csv", *flags)


def relabelled(*labels, flags=()):
    """The rows with these labels by turns."""

    def build(desk):
        rows = [f"{row.rsplit(',', 1)[0]},{labels[at % len(labels)]}" for at, row in enumerate(desk.rows)]
        return desk.pairs(desk.table(rows=rows), "pairs.csv", *flags)

    return build


def beside(*rows, **files):
    """A validation file of rows of its own, or of these rows."""

    def build(desk):
        validation = desk.path("validation.csv", files.get("content", desk.table(*rows, rows=desk.rows[25:])))
        train = desk.table("the old pump leaks,a small valve sticks,1", rows=desk.rows[:25])
        return desk.pairs(train, "train.csv", f"--validation_file={validation}")

    return build


def rare_label(desk):
    rows = [f"{row.rsplit(',', 1)[0]},{int(at == 7)}" for at, row in enumerate(desk.rows)]
    validation = desk.path("validation.csv", desk.table("the pump,a lid,1", "one meter,two valves,0", rows=[]))
    return desk.pairs(desk.table(rows=rows), "train.csv", f"--validation_file={validation}")


def decomposed(desk):
    first = "the café meter, ＡＢＣ".replace(",", "")
    other = unicodedata.normalize("NFD", first).replace("ＡＢＣ", "ABC")
    return desk.pairs(desk.table(f"{first},on the second floor,1", f"{other},on the second floor,1"))


def change_weights(change):
    def damage(at):
        path = at / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def without(part):
    def change(weights):
        for name in [name for name in weights if part in name]:
            del weights[name]

    return change


def spoil(weights):
    weights["bert.encoder.layer.1.output.dense.weight"][3, 3] = float("nan")


def settings(file, change):
    def damage(at):
        path = at / file
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def more_words(tokenizer):
    words = tokenizer["model"]["vocab"]
    words |= {f"new{number}": len(words) + number for number in range(5)}


def content(change):
    def damage(at):
        path = at / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return damage


def gone(file):
    return lambda desk: desk.model(lambda at: (at / file).unlink())


def another(**changes):
    """The same command where a run with another value stands."""

    def build(desk):
        desk.run_before(**changes)
        return desk.mlm(desk.texts())

    return build


def other_data(desk):
    desk.run_before()
    return desk.mlm("\n".join(desk.documents[:50]) + "\n")


def output_file(desk):
    desk.path("out", "a note")
    return desk.mlm(desk.texts())


def full_disk():
    def check(desk, door, refusal, caplog):
        def no_space(*paths):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        main, words = desk.mlm(desk.texts())
        desk.patch.setattr(os, "replace", no_space)
        status, errors = door(main, words)
        assert status == EXIT_DISK_FULL and "Traceback" not in errors
        assert errors.splitlines()[-1].startswith("error: the disk is full: free some space")
        assert not [path for path in (desk.folder / "out").rglob("*") if path.is_file()]

    return REFUSED, check


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LEAK = "leak between splits: 1 pair of train in 1 rows of validation"
LIST = {
    "missing": [refused(lambda d: d.mlm(Path("nowhere.txt")), "nowhere.txt: no such file or folder; check")],
    "empty": [refused(lambda d: d.mlm(b""), "corpus.txt: is empty (0 bytes); remove it")],
    "blank lines only": [refused(lambda d: d.mlm(" \n\n\t\n"), "corpus.txt: no text is left of 3 documents; check")],
    "BOM": [loaded(lambda d: d.mlm("\ufeff" + d.texts()), documents())],
    "CRLF or lone CR": [loaded(lambda d, end=end: d.mlm(d.texts(end)), documents()) for end in ("\r\n", "\r")],
    "NUL": [refused(lambda d: d.mlm(b"the old pump\na bad \0 line\n"), "corpus.txt:2: a NUL character")],
    "invalid UTF-8 (file:line:byte)": [
        refused(lambda d: d.mlm(b"the old pump\n" * 9 + b"a bad \xff\xfe line\n"), "corpus.txt:10:7: not UTF-8")
    ],
    "GBK/GB18030": [loaded(lambda d: d.mlm(d.texts().encode("gb18030")), documents())],
    "UTF-16": [loaded(lambda d: d.mlm(d.texts().encode("utf-16")), documents())],
    "lone surrogates": [refused(jsonl('{"text": "\\ud800"}'), "corpus.jsonl:1: half of a surrogate pair, not a char")],
    "U+2028": [loaded(lambda d: d.mlm(d.texts() + "the\u2028pump\n"), documents("the\u2028pump"))],
    "one 100 MB line": [refused(hundred_megabytes, "corpus.txt:2: line is longer than 67,108,864 bytes; break it")],
    "no final newline": [loaded(lambda d: d.mlm(d.texts()[:-1]), documents())],
    "directory, FIFO, broken link": [
        refused(folder_of_nothing, "texts: no file of .txt, .csv"),
        refused(pipe, "corpus.txt: is a pipe, socket or device, not a regular file; write"),
        refused(link_to_nothing, "corpus.txt: a link to gone.txt, which does not exist; restore the target"),
    ],
    "archive under a text name": [refused(zipped, "corpus.txt: is a zip archive or an Office document, not plain")],
    "file that changes during the run": [refused(written_to_while_read, "corpus.txt: changed while it was read; run")],
    "unreadable": [refused(closed(path="corpus.txt"), "corpus.txt: may not be read; change its permissions")],
    "duplicate lines": [told(lambda d: d.mlm(d.texts() * 2), documents(duplicates=60))],
    "header only": [refused(only(HEADER), "pairs.csv:1: a header and no rows; add rows")],
    "column missing (found columns, nearest name)": [
        refused(only("sentence1,sentence3,label\na,b,0\n"), "among sentence1, sentence3, label; name it with"),
        refused(
            lambda d: d.pairs(d.table(), "pairs.csv", "--label_column=lable"),
            "'lable' among sentence1, sentence2, label; did you mean label?",
        ),
    ],
    "wrong delimiter": [
        refused(only("a;b;0\nc;d;1\n"), "pairs.csv:1: one comma-separated field, but it holds semicol")
    ],
    "duplicate header": [
        refused(only("label,sentence1,label\na,b,0\n"), "pairs.csv:1: column 'label' stands twice in")
    ],
    "quoted newline": [loaded(more('"a pump\nleaks","the ""valve""",1'), num_rows(1))],
    "unclosed quote": [refused(more('"a,b,1'), "pairs.csv:42: a quoted field is not closed")],
    "extra field": [refused(more("a,b,1,c"), "pairs.csv:42: 4 fields where the first row has 3; complete the row")],
    "short row": [refused(more("a,b"), "pairs.csv:42: 2 fields where the first row has 3; complete the row")],
    '"NA" and "null" and "007" kept as text': [loaded(more("NA,null,1", "null,007,0", "007,NA,1"), keeps_words)],
    "broken JSON line": [refused(jsonl('{"text": "a"}', '{"text": '), "corpus.jsonl:2: broken JSON")],
    "key missing or null": [
        refused(jsonl('{"text": "a", "id": 1}', '{"text": "b"}'), "corpus.jsonl:2: key 'id' is missing; give every"),
        refused(jsonl('{"text": "a"}', '{"text": null}'), "corpus.jsonl:2: the text is null, not a string; mend"),
    ],
    "duplicate key": [
        refused(jsonl('{"text": "a", "text": "b"}'), "corpus.jsonl:1: broken JSON (duplicate key 'text')")
    ],
    "array or lines": [
        loaded(lambda d: d.mlm(json.dumps([{"text": text} for text in d.documents]), "corpus.json"), documents()),
        loaded(lambda d: jsonl(*(json.dumps({"text": text}) for text in d.documents))(d), documents()),
        refused(jsonl('{"text": "a"}', '{"text": "b"}', name="corpus.json"), "name a file of one object a line .jsonl"),
    ],
    "scalar rows": [refused(jsonl("3"), "corpus.jsonl:1: a row is not an object but 3; write it as")],
    "yes/no": [loaded(relabelled("yes", "no"), names("no", "yes"))],
    "1.0 and 0.5": [loaded(relabelled("1.0", "0.5", "0.0"), scores(0, 1))],
    "NaN": [refused(more("a,b,NaN"), "pairs.csv:42: label is nan (not a finite number); fix or remove the row")],
    "out of range": [
        refused(
            relabelled("0.5", "7.5", flags=("--label_range", "0", "5")),
            "pairs.csv:3: label 7.5 is out of the range 0 to 5; fix",
        )
    ],
    "negative": [
        loaded(relabelled("-0.5", "0.75"), scores(-1, 1)),
        refused(
            relabelled("-7.5", "0.5"), "pairs.csv:2: scores from -7.5 to 0.5 fit no usual range; give --label_range"
        ),
    ],
    "one class": [refused(relabelled("1"), "pairs.csv:2: only one label, '1'; add rows or mend --label_column")],
    "ints with one output": [
        loaded(relabelled("0", "3", "5", flags=("--label_range", "0", "5")), scores(0, 5)),
        refused(
            relabelled("0", "3", "5"), "labels are 3 whole numbers from 0 to 5, classes or scores; give --label_ra"
        ),
        refused(relabelled("0", "1", "2", flags=("--num_labels=1",)), "--num_labels 1: "),
    ],
    "mixed types": [refused(more("a,b,maybe"), "pairs.csv:42: label 'maybe' is text where others are numbers; fix")],
    "strong imbalance": [told(rare_label, logged("only 1 of 40 rows have the label '1': look at F1"))],
    "both texts the same": [told(more("the pump,the pump,1"), audit(identical_sentences=1))],
    "same pair with two labels": [
        told(
            more("the pump,a lid,1", "the pump,a lid,0"),
            logged("1 pair with more than one label, in 2 rows, such as ", "conflicts.csv"),
        )
    ],
    "both orders present": [told(more("the pump,a lid,1", "a lid,the pump,1"), audit(duplicate_pairs=1))],
    "leaks (exact, normalised, swapped)": [
        refused(beside("the old pump leaks,a small valve sticks,1"), LEAK),
        refused(beside("The OLD  pump leaks,a small valve ｓticks,1"), LEAK),
        refused(beside("a small valve sticks,the old pump leaks,1"), LEAK),
    ],
    "one row": [refused(only(f"{HEADER}\na,b,1\n"), "pairs.csv:2: only one label, '1'; add rows")],
    "empty evaluation file": [refused(beside(content=b""), "validation.csv: is empty (0 bytes); remove it")],
    "fewer rows than a batch times ranks": [
        ran(more(flags=("--per_device_train_batch_size=64", "--frozen_baseline=false")), "step 1, validation: ", TAKEN)
    ],
    "longer than the positions": [
        ran(
            more(f"{'the old pump ' * 50},a lid,1", flags=("--frozen_baseline=false",)),
            "are cut to --max_seq_length 64",
            TOLD,
        )
    ],
    "nothing after tokenization": [
        refused(lambda d: d.mlm("\u200b\n\u200e\n" * 9), "corpus.txt: the tokenizer leaves no token of 2 doc")
    ],
    "nothing maskable": [
        ran(lambda d: d.mlm("水\n泵\n阀\n门\n", "corpus.txt", "--line_by_line"), "validation: loss ", TAKEN)
    ],
    "NFC/NFD/NFKC, full width": [told(decomposed, audit(duplicate_pairs=1))],
    "emoji, ZWJ, right-to-left, U+202E": [loaded(lambda d: d.mlm(f"{d.texts()}{HOSTILE}\n"), documents(HOSTILE))],
    "unknown share above 5 %": [
        refused(
            lambda d: d.mlm("".join(f"{CHINESE}{row}\n" for row in range(20))),
            "are unknown to it, more than 5%; take a model of the text's language",
        )
    ],
    "tokenizer ids above the vocabulary": [
        refused(
            lambda d: d.model(settings("tokenizer.json", more_words)),
            "embeddings; give the model's own tokenizer with --tokenizer_name",
        )
    ],
    "no mask or pad token": [
        refused(
            lambda d, token=token: d.model(settings("tokenizer_config.json", lambda s: s.pop(token))),
            f"the tokenizer has no {what} token",
        )
        for token, what in (("mask_token", "mask"), ("pad_token", "padding"))
    ],
    "config, vocabulary, layers or weights missing": [
        refused(gone("config.json"), "model: holds no config.json; give the folder of a whole checkpoint"),
        refused(gone("tokenizer.json"), "model: holds no tokenizer (none of tokenizer.json"),
        refused(gone("model.safetensors"), "model: holds no weights (none of model.safetensors"),
        refused(lambda d: d.model(change_weights(without(".layer.1."))), "model: 16 encoder weights are missing, such"),
    ],
    "NaN weights": [
        refused(lambda d: d.model(change_weights(spoil)), "layer.1.output.dense.weight hold NaN or infinity")
    ],
    "other architecture": [
        refused(
            lambda d: d.model(settings("config.json", lambda s: s.update(model_type="roberta"))),
            "the checkpoint is of another architecture than its config.json says",
        )
    ],
    "truncated, HTML or git-lfs-pointer weights": [
        refused(lambda d: d.model(content(lambda whole: whole[: len(whole) // 2])), "the model cannot be loaded"),
        refused(lambda d: d.model(content(lambda whole: b"<html>")), "the model cannot be loaded"),
        refused(lambda d: d.model(content(lambda whole: LFS)), "the model cannot be loaded"),
    ],
    "output folder read-only, a file, or another run's": [
        refused(closed("out", path="closed"), "closed: may not be written; give another --output_dir, or change"),
        refused(output_file, "out: is a file; give a folder as --output_dir"),
        refused(another(stage="pairs"), "run.json there is of another run (stage: pairs -> mlm)"),
    ],
    "changed config, data or world size": [
        refused(another(seed=7), "run.json there is of another run (seed: 7 -> 42); give another --output_dir"),
        refused(other_data, "run.json there is of another run ("),
        refused(another(world_size=2), "run.json there is of another run (world_size: 2 -> 1)"),
    ],
    "disk full": [full_disk()],
}


CASES = {
    f"{name} {number}" if number else name: case for name, cases in LIST.items() for number, case in enumerate(cases)
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input(case, desk, door, refusal, caplog):
    _, check = case
    check(desk, door, refusal, caplog)


def test_the_list_of_the_page_is_the_list_of_the_fixtures():
    """Each line of the page's table has its fixture, which shows what the line says."""
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("## Bad input, one by one") :]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    table = {name.strip(): outcome.strip() for name, outcome in lines if not name.strip().startswith(":")}
    assert table == {name: ", ".join(dict.fromkeys(outcome for outcome, _ in cases)) for name, cases in LIST.items()}
    assert len(table) == 63
