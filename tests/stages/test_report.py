"""The page of runs: the numbers of their folders, nothing from outside, and no text that could be markup."""

import re
from html.parser import HTMLParser

import pytest

from pair_pkg.errors import InputError
from pair_pkg.records import read_record, write_json, write_record
from pair_pkg.stages import report

HOSTILE = [
    "<script>alert('x')</script>",
    '"><img src=https://evil.example/x.png onerror=alert(1)>',
    "{{ 7 * 7 }} </td></table><h1>mine</h1>",
    "safe\u202egnp.exe\x1b[31m",
    "$\\frac{1}{0}$ & <b>花呗</b>",
]
FETCHING = {"src", "href", "xlink:href", "action", "data", "srcset", "poster", "background", "formaction", "ping"}


class Document(HTMLParser):
    """What a page is made of: elements with attributes, headings, ids, and the text of each element name."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "use", "link", "img", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def names(self):
        return [tag for tag, _ in self.elements]

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def open_page(path):
    return Document(path.read_text(encoding="utf-8"))


def assert_self_contained(path):
    """No script, no request: every address is a place in the page itself, in attributes and in styles."""
    page, html = open_page(path), path.read_text(encoding="utf-8")
    assert not page.open, f"never closed: {page.open}"
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "img"} & set(page.names())
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in FETCHING & set(attributes):
            assert attributes[name].startswith("#") and attributes[name][1:] in ids, (tag, attributes[name])
        for address in re.findall(r"url\(([^)]*)\)", " ".join(filter(None, attributes.values()))):
            assert address.startswith("#") and address[1:] in ids, (tag, address)
    style = "".join(page.texts["style"])
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in html


def headings(page):
    return [int(tag[1]) for tag in page.names() if re.fullmatch("h[1-6]", tag)]


@pytest.mark.parametrize("kind", ["binary", "classes", "scores"])
def test_the_page_of_a_run_holds_its_numbers_and_needs_nothing_from_outside(kind, pairs_run, capsys):
    folder = pairs_run("run", kind)
    path = report.main([str(folder)])
    assert path == folder / "report.html" and str(path) in capsys.readouterr().out
    assert_self_contained(path)
    html, test = path.read_text(encoding="utf-8"), read_record(folder)["metrics"]["test"]
    if kind == "scores":
        assert f"{test['spearman']:.3f}" in html and "Scores against labels" in html
    else:
        assert f"{test['correct']}/90 = {test['correct'] / 90:.3f}" in html
        assert "Calibration" in html and "Decisions" in html
    assert ("Precision and recall" in html) == (kind == "binary")
    assert "someone/base-encoder" in html and "training time" in html and "1 min 1 s" in html


def test_the_answer_stands_before_everything_else(pipeline_run):
    folder, results = pipeline_run
    path = report.main([str(folder)])
    assert_self_contained(path)
    html = path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    body = html[html.index("<main>") :]
    assert body.index(results["sentence"]) < body.index("<nav") < body.index("<h2")
    assert "812.50 before adaptation" in html and "McNemar" in html
    page = open_page(path)
    assert {"Base against adapted", "Stage 2 from the adapted model"} <= set(page.texts["h2"])
    assert page.names().count("svg") > 10
    assert all(attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg")


def test_what_stage_1_did_to_the_model_is_on_its_page(mlm_run):
    folder = mlm_run("run")
    page, bare = ((folder / name) for name in ("report.html", "bare.html"))
    report.main([str(folder)])
    report.main([str(folder), "--no_texts", "--output", str(bare)])
    html = page.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert "12.5 %" in html and "37.5 %" in html and "0.5 (kept)" in html and "0.0125" in html
    assert "the [MASK] &lt;b&gt;leaks&lt;/b&gt;" in html
    assert "leaks" not in bare.read_text(encoding="utf-8")


def test_headings_begin_with_one_and_never_skip_a_level(pipeline_run, pairs_run, mlm_run):
    folder, _ = pipeline_run
    several = [str(folder), str(pairs_run("other", "scores")), str(mlm_run("third"))]
    levels = headings(open_page(report.main([*several, "--output", str(folder / "all.html")])))
    assert levels[0] == 1 and levels.count(1) == 1 and max(levels) == 4
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:]))


def test_hostile_texts_are_shown_and_do_nothing(pairs_run):
    folder = pairs_run("run", seed=9, texts=HOSTILE * 18)
    record = read_record(folder)
    record["base_model"] = HOSTILE[0]
    record["identity"]["<img src=x>"] = [HOSTILE[1]]
    write_record(folder, record)
    path = report.main([str(folder)])
    assert_self_contained(path)
    html = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html and "<img" not in html
    assert "{{ 7 * 7 }}" in html and "49" not in re.findall(r"<td>(\d+)</td>", html)
    assert "\u202e" not in html and "\\u202e" in html and "\x1b" not in html
    assert open_page(path).texts["h1"] == [f"Report: {folder}"]


def test_label_names_that_look_like_markup_or_formulas(pairs_run):
    folder = pairs_run("run")
    record = read_record(folder)
    for name, old in (("$x^{", "no"), ("<b>&", "yes")):
        record["labels"]["names"][record["labels"]["names"].index(old)] = name
        predictions = folder / "test_predictions.csv"
        predictions.write_text(
            predictions.read_text().replace(f",{old},", f",{name},").replace(f",{old}\n", f",{name}\n")
        )
    write_record(folder, record)
    path = report.main([str(folder)])
    assert_self_contained(path)
    assert "label $x^{" in path.read_text() and "label &lt;b&gt;&amp;" in path.read_text()


def test_no_texts_leaves_every_text_out(pairs_run):
    folder = pairs_run("run", seed=9, texts=[f"a private matter {n}" for n in range(90)])
    shown = report.main([str(folder)]).read_text()
    hidden = report.main([str(folder), "--no_texts"]).read_text()
    assert "a private matter" in shown and "is not tight" in shown
    assert "private" not in hidden and "tight" not in hidden
    assert "got most wrong" in hidden and "pairs.csv:" in hidden


def test_what_an_older_run_did_not_write_is_left_out(pairs_run):
    folder = pairs_run("run")
    record = read_record(folder)
    for name in ("intervals", "slices", "calibration", "decision", "baselines", "test_split"):
        del record["metrics"][name]
    for name in ("lineage", "pairs", "global_step", "threshold", "labels"):
        del record[name]
    write_record(folder, record)
    for name in ("log_history.json", "worst_pairs.csv", "test_predictions.csv"):
        (folder / name).unlink()
    path = report.main([str(folder)])
    html = path.read_text()
    assert_self_contained(path)
    assert f"{record['metrics']['test']['correct']}/90" in html
    for absent in ("interval", "Calibration", "Errors", "<svg", "None", "nan"):
        assert absent not in html


def test_a_run_that_is_not_finished_says_so(pairs_run):
    folder = pairs_run("run", status="running", metrics={})
    assert "This run is not finished" in report.main([str(folder)]).read_text()


def test_stage_1_tells_perplexity_corpus_and_speed(mlm_run):
    path = report.main([str(mlm_run("mlm"))])
    html = path.read_text()
    assert_self_contained(path)
    assert "fell from 812.50 to 41.25" in html and "answer good" in html
    assert "84,000" in html and "1,500" in html and "Validation perplexity" in html
    assert "rose from 2.00 to 3.00" in report.main([str(mlm_run("worse", 2.0, 3.0))]).read_text()


def test_runs_side_by_side_with_their_paired_difference(pairs_run, tmp_path):
    folders = [pairs_run("one", seed=3), pairs_run("two", seed=4)]
    output = tmp_path / "page" / "both.html"
    assert report.main([*map(str, folders), "--output", str(output)]) == output
    assert_self_contained(output)
    html = output.read_text().replace("\N{NO-BREAK SPACE}", " ")
    first, second = (read_record(folder)["metrics"]["test"]["accuracy"] for folder in folders)
    assert f"{100 * (second - first):+.1f} points" in html
    assert html.count("Side by side") == 2 and "different test pairs" not in html
    other = pairs_run("three", identity={"test_pairs": "else"})
    mixed = report.main([str(folders[0]), str(other), "--output", str(output)]).read_text()
    assert "different test pairs" in mixed


def test_the_same_folder_gives_the_same_page(pairs_run):
    folder = pairs_run("run")
    assert report.main([str(folder)]).read_text() == report.main([str(folder)]).read_text()


def test_folders_that_hold_no_run_are_refused_in_one_line(tmp_path, pairs_run):
    run = pairs_run("run")
    with pytest.raises(InputError, match="no such folder; give the --output_dir of a run"):
        report.main([str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="holds no run.json"):
        report.main([str(tmp_path)])
    with pytest.raises(InputError, match="is given twice"):
        report.main([str(run), f"{run}/", "--output", str(tmp_path / "x.html")])
    with pytest.raises(InputError, match="several runs: name the page with --output"):
        report.main([str(run), str(tmp_path)])
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / "results.json", {"settings": {}})
    with pytest.raises(InputError, match="is no answer of the pipeline"):
        report.main([str(tmp_path / "other")])
    with pytest.raises(InputError, match="cannot be written"):
        report.main([str(run), "--output", str(run / "run.json" / "page.html")])


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_both_themes_have_the_contrast_that_wcag_asks_of_text(pairs_run):
    html = report.main([str(pairs_run("run"))]).read_text()
    parts = html.split("@media print")[0].split("prefers-color-scheme: dark")
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in parts)
    assert light.keys() == dark.keys() >= {"page", "card", "ink", "muted", "blue", "vermillion", "green"}
    for theme in (light, dark):
        for ground in ("page", "card"):
            for text in ("ink", "muted", "blue", "vermillion", "green"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    assert luminance(light["page"]) > 0.8 and luminance(dark["page"]) < 0.05
