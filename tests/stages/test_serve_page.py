"""Every command of docs/serve.md runs, and its page is used in a real browser by typing and clicking."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pair_pkg.__main__ import main
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.records import read_record, write_record
from pair_pkg.stages import serve

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/serve.md"
ATTACK = "<img src=x onerror=\"document.title='hacked'\">"
STORED_ATTACK = ATTACK.replace('"', "'")
PATIENCE = 60_000  # milliseconds, for a machine that is busy


@pytest.fixture
def place(tmp_path, tiny_bi_encoder, tiny_cross_encoder, tiny_documents, monkeypatch):
    """A folder with the files and models that the page names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bi_encoder, "runs/bi")
    shutil.copytree(tiny_cross_encoder, "runs/pairs")
    record = read_record("runs/pairs")
    write_record("runs/bi", {**record, "architecture": "bi_encoder", "max_seq_length": 128})
    save_decision(Decision("binary", temperature=0.1, threshold=0.5, center=0.5), "runs/bi")
    texts = [
        *(text.replace('"', "") for text in tiny_documents[:20]),
        f"the old pump {ATTACK.replace(chr(34), chr(39))}",
    ]
    Path("texts.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """The hosts that this process looks up or connects to."""
    hosts = set()
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def noted_look_up(host, *rest, **settings):
        hosts.add(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *rest, **settings)

    def noted_connect(self, address):
        if self.family != socket.AF_UNIX:
            hosts.add(address[0])
        return connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", noted_look_up)
    monkeypatch.setattr(socket.socket, "connect", noted_connect)
    return hosts


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if not line.startswith("pip ")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Visit:
    """A browser's page at an address, and what it asked for and complained of."""

    def __init__(self, browser, url, scheme="light"):
        self.url, self.complaints, self.requests = url, [], []
        self.page = browser.new_page(color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def compare(self, first, second):
        self.page.get_by_label("Sentence 1").fill(first)
        self.page.get_by_label("Sentence 2").fill(second)
        self.page.get_by_role("button", name="Compare").click()
        self.page.wait_for_function("document.body.innerText.includes('[SEP]')")
        return {label: self.page.get_by_label(label).input_value() for label in ("Verdict", "How it was decided")}

    def find(self, sentence):
        self.page.get_by_role("tab", name="Neighbours").click()
        self.page.get_by_label("Sentence", exact=True).fill(sentence)
        self.page.get_by_role("button", name="Find").click()
        self.page.wait_for_function(r"/^-?\d\.\d{4}$/m.test(document.body.innerText)")  # a cosine
        return self.page.locator("body").inner_text()

    def close(self):
        """Nothing was asked of another host, nothing was obeyed, nothing complained."""
        assert self.page.title() == "pair_pkg" and self.page.locator("img[src=x]").count() == 0
        assert self.complaints == []
        assert {request for request in self.requests if not request.startswith((self.url, "data:", "blob:"))} == set()
        self.page.close()


def test_the_commands_of_the_page_run_and_the_page_answers(place, browser, asked, monkeypatch, capsys):
    visited = []

    def visit():
        url = re.findall(r"http://\S+", capsys.readouterr().out)[-1]
        scheme = "dark" if visited else "light"
        one = Visit(browser, url, scheme)
        said = one.compare(f"the old pump leaks {ATTACK}", "水泵漏水")
        shade = sum(
            map(int, re.findall(r"\d+", one.page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
        )
        assert shade < 150 if scheme == "dark" else shade > 600  # of 765
        tokens = one.page.locator("[aria-label='Tokens, as the model reads them'], .textfield").last.inner_text()
        found = (
            one.find(f"the old pump {STORED_ATTACK}") if one.page.get_by_role("tab", name="Neighbours").count() else ""
        )
        one.close()
        visited.append((said, tokens, found))

    monkeypatch.setattr(serve, "_wait", visit)
    for command in commands():
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pair_pkg"], command
        main([*words[3:], *(["--port", str(free_port())] if words[3] == "serve" else [])])
    assert len(visited) == 3 and (place / "space/app.py").is_file()
    assert {host for host in asked if host not in (None, "127.0.0.1", "localhost", "0.0.0.0", "::1")} == set()

    for (said, tokens, _), folder in zip(visited, ("runs/pairs", "runs/bi", "runs/pairs")):
        verdict = load_scorer(folder).predict_one(f"the old pump leaks {ATTACK}", "水泵漏水")
        assert said["Verdict"] == verdict.verdict and f"{verdict.probability:.3f}" in said["How it was decided"]
        assert {"[CLS]", "the", "pump", "[SEP]", "水"} <= set(tokens.split())
    assert visited[0][2] == "" and "probability" in visited[2][2]
    assert all(STORED_ATTACK in found for _, _, found in visited[1:])  # as text
    cosines = [len(re.findall(r"^-?\d\.\d{4}$", found, re.MULTILINE)) for _, _, found in visited]
    assert cosines == [0, 10, 5]  # --top_k 5


def test_an_empty_sentence_is_told(place, browser, monkeypatch, capsys):
    def visit():
        one = Visit(browser, re.findall(r"http://\S+", capsys.readouterr().out)[-1])
        one.page.get_by_role("button", name="Compare").click()
        one.page.get_by_text("Type a sentence in each box.").wait_for()
        one.page.close()

    monkeypatch.setattr(serve, "_wait", visit)
    main(["serve", "--model", "runs/pairs", "--port", str(free_port())])


def test_a_port_that_is_taken_is_told(place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(serve.InputError, match="give another port, such as"):
            main(["serve", "--model", "runs/pairs", "--port", str(other.getsockname()[1])])


def test_a_written_space_starts_by_itself_and_ends_by_a_signal(place, browser):
    main(["index", "texts.csv", "--model", "runs/bi", "--output", "index"])
    main(["serve", "--model", "runs/pairs", "--index", "index", "--write_space", "space"])
    elsewhere = place / "elsewhere"
    shutil.move("space", elsewhere)
    shutil.rmtree("runs"), shutil.rmtree("index")  # whatever it needs is with it
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    app = subprocess.Popen(
        [sys.executable, str(elsewhere / "app.py"), "--host", "127.0.0.1", "--port", str(free_port())], cwd=place,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = re.search(r"http://\S+", app.stdout.readline()).group()
        assert urllib.request.urlopen(url).status == 200
        one = Visit(browser, url)
        assert one.compare("the old pump leaks", "a small valve sticks")["Verdict"] in ("0", "1")
        assert "the old pump" in one.find("the old pump")
        one.close()
        app.send_signal(signal.SIGTERM)
        assert app.wait(timeout=60) == 0
    finally:
        app.kill()
        app.stdout.close()
