"""The card of a model on the Hub, from the record of its run: what it is, what it is worth, how to load it.

Only numbers, label names and names of models are told: no text of the data, and no path of this machine.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pair_pkg.columns import BI_ENCODER
from pair_pkg.pairs.metrics import BINARY
from pair_pkg.report.evaluation import SHOWN_METRICS
from pair_pkg.report.numbers import format_interval, format_value, metric_title
from pair_pkg.report.tables import markdown_table

TEMPLATE = Path(__file__).with_name("card.md")
MLM, CROSS, BI = "mlm", "cross-encoder", "bi-encoder"
TASKS = {MLM: "fill-mask", CROSS: "text-classification", BI: "sentence-similarity"}
HUB_TYPES = {"average_precision": "average_precision", "macro_f1": "f1", "mcc": "matthews_correlation"}
# Made up, never of the data: two that mean the same and one that does not, and one to fill.
EXAMPLES = {
    "en": ("The pump starts by itself.", "The pump begins to run on its own.", "The lid is blue.", "It {} again."),
    "zh": ("水泵自己启动了。", "水泵自动开始运转。", "盖子是蓝色的。", "水泵又{}了。"),
}
TOLD_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "weight_decay", "optim", "bf16", "seed",
    "mlm_probability", "loss", "pooling", "class_weights",
)  # fmt: skip


def build_card(
    record: Mapping[str, Any],
    *,
    repo_id: str,
    base_model: str | None = None,
    licence: str | None = None,
    language: list[str] | None = None,
    special_tokens: Mapping[str, str | None] | None = None,
) -> ModelCard:
    """The card of a finished run's model; what the record does not hold is left out.

    ``base_model`` names the model on the Hub that all began with; None takes it from the lineage, where that names one.
    ``special_tokens`` are the tokenizer's own, ``mask`` and ``sep``, for the examples of the Hub's widget.
    """
    kind = model_kind(record)
    base_model = base_model or hub_base(record)
    data = ModelCardData(
        language=language,
        license=licence,
        library_name="sentence-transformers" if kind == BI else "transformers",
        pipeline_tag=TASKS[kind],
        base_model=base_model,
        tags=["pair_pkg", *(["sentence-transformers", "cross-encoder"] if kind == CROSS else [])],
        model_name=repo_id.split("/")[-1],
        eval_results=list(_eval_results(record, kind)) or None,
        widget=_widget(kind, language or [], special_tokens or {}),
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=repo_id.split("/")[-1],
        summary=_summary(record, kind),
        loading=_loading(repo_id, kind),
        decision=_decision(record.get("metrics", {}).get("decision"), record),
        results=_results(record.get("metrics", {})),
        calibration=_calibration(record.get("metrics", {})),
        perplexity=_perplexity(record.get("metrics", {})),
        data=_data(record),
        lineage=_lineage(record, base_model),
        training=_training(record),
    )


def model_kind(record: Mapping[str, Any]) -> str:
    """What a run's folder holds: mlm, cross-encoder or bi-encoder."""
    if record.get("stage") == MLM:
        return MLM
    return BI if record.get("architecture") == BI_ENCODER else CROSS


def hub_base(record: Mapping[str, Any]) -> str | None:
    """The name on the Hub of the model that all began with, or None where it was a folder.

    >>> hub_base({"base_model": "runs/mlm", "lineage": {"base_model": "google/bert", "lineage": None}})
    'google/bert'
    >>> hub_base({"base_model": "/home/me/model", "lineage": None})
    """
    while record.get("lineage"):
        record = record["lineage"]
    name = record.get("base_model") or ""
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name)
    return name if is_name and not Path(name).exists() else None


def _widget(kind: str, language: list[str], special_tokens: Mapping[str, str | None]) -> list[dict[str, Any]] | None:
    """Examples for the box in which a visitor of the Hub tries the model; its one line for a cross-encoder holds both
    sentences with the tokenizer's separator between them."""
    examples = [EXAMPLES[name] for name in language if name in EXAMPLES] or [EXAMPLES["en"]]
    if kind == BI:
        return [{"source_sentence": first, "sentences": [same, other]} for first, same, other, _ in examples]
    token = special_tokens.get("mask" if kind == MLM else "sep")
    if token is None:
        return None
    if kind == MLM:
        return [{"text": gap.format(token)} for *_, gap in examples]
    return [{"text": f"{first} {token} {second}"} for first, *others, _ in examples for second in others]


def _eval_results(record: Mapping[str, Any], kind: str) -> Iterator[EvalResult]:
    """Every defined test metric with its interval, or the perplexity of stage 1."""
    metrics = record.get("metrics", {})
    if metrics.get("eval_perplexity") is not None:
        yield _eval_result(kind, "held-out documents", "perplexity", metrics["eval_perplexity"], None)
    intervals = metrics.get("intervals") or {}
    bounds = intervals.get("bounds", {}).get("model", {})
    for name in SHOWN_METRICS:
        value = (metrics.get("test") or {}).get(name)
        if value is not None:
            low, high = bounds.get(name, (None, None))
            interval = None if low is None else {"low": low, "high": high, "confidence": intervals["confidence"]}
            yield _eval_result(kind, f"{metrics['test_split']} pairs", name, value, interval)


def _eval_result(kind: str, dataset: str, name: str, value: float, interval: dict[str, float] | None) -> EvalResult:
    return EvalResult(
        task_type=TASKS[kind],
        dataset_type="private",
        dataset_name=dataset,
        metric_type=HUB_TYPES.get(name, name),
        metric_name=metric_title(name),
        metric_value=value,
        metric_args=interval and {"interval": interval},
    )


def _summary(record: Mapping[str, Any], kind: str) -> str:
    length = f" It reads up to {record['max_seq_length']} tokens." if record.get("max_seq_length") else ""
    if kind == MLM:
        return f"An encoder whose masked-language-model pretraining was continued on a corpus of one domain.{length}"
    labels = record["labels"]
    names = ", ".join(map(_code, labels["names"])) or f"{labels['low']:g} to {labels['high']:g}"
    way = "reads both sentences together" if kind == CROSS else "gives each sentence a unit vector, compared by cosine"
    return f"A {kind} for sentence pairs: it {way}. Labels: {names}.{length}"


def _loading(repo_id: str, kind: str) -> str:
    if kind == BI:
        return (
            "from sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("{repo_id}")\n'
            "vectors = model.encode([sentence1, sentence2])  # unit rows: their product is the cosine"
        )
    auto = "AutoModelForMaskedLM" if kind == MLM else "AutoModelForSequenceClassification"
    lines = (
        f"from transformers import {auto}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}")\nmodel = {auto}.from_pretrained("{repo_id}")'
    )
    if kind == CROSS:
        lines += (
            "\nlogits = model(**tokenizer(sentence1, sentence2, truncation=True, return_tensors='pt')).logits\n\n"
            "# or\nfrom sentence_transformers import CrossEncoder\n\n"
            f'CrossEncoder("{repo_id}").predict([(sentence1, sentence2)])'
        )
    return lines


def _decision(decision: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """How a score becomes a probability and a verdict, in words and numbers."""
    if decision is None:
        return ""
    if decision["kind"] != BINARY:
        return f"The probabilities are `softmax(logits / {decision['temperature']:.6g})`; the highest one decides."
    margin = "the logit margin (the one logit, or the second less the first)"
    score = "the cosine" if model_kind(record) == BI else margin
    formula = f"sigmoid((score - {decision['center']:.6g}) / {decision['temperature']:.6g})"
    symmetric = record.get("settings", {}).get("symmetric")
    orders = " of both orders of the pair, averaged" if symmetric else ""
    return (
        f"`probability = {formula}`, where the score is {score}{orders}. The label is "
        f"{_code(record['labels']['names'][1])} from a probability of **{decision['threshold']:.4f}** on. Both were "
        "fitted on validation pairs; `decision.json` holds all digits."
    )


def _results(metrics: Mapping[str, Any]) -> str:
    """The model beside the baselines, with intervals where there are any."""
    if not metrics.get("test"):
        return ""
    figures = {"model": metrics["test"], **metrics.get("baselines", {})}
    intervals = metrics.get("intervals")
    header = [f"{metrics['test_split']} pairs", *map(metric_title, figures)]
    if intervals:
        header.insert(2, f"{100 * intervals['confidence']:g} % interval")
    rows = []
    for name in SHOWN_METRICS:
        if name not in metrics["test"]:
            continue
        row = [metric_title(name), *(format_value(name, part.get(name)) for part in figures.values())]
        if intervals:
            row.insert(2, format_interval(name, *intervals["bounds"]["model"].get(name, (None, None))))
        rows.append(row)
    return markdown_table(header, rows, "l" + "r" * (len(header) - 1))


def _calibration(metrics: Mapping[str, Any]) -> str:
    part = metrics.get("calibration", {}).get(metrics.get("test_split"))
    if not part:
        return ""
    before, after = part["before"]["ece"], part["after"]["ece"]
    return f"Expected calibration error: {before:.3f} before calibration, {after:.3f} after."


def _perplexity(metrics: Mapping[str, Any]) -> str:
    after, before = metrics.get("eval_perplexity"), metrics.get("before", {}).get("eval_perplexity")
    if after is None:
        return ""
    change = f"{before:,.2f} before, " if before is not None else ""
    return f"Perplexity of held-out documents: {change}{after:,.2f} after."


def _data(record: Mapping[str, Any]) -> str:
    counts = record.get("corpus") or record.get("pairs", {}).get("pairs", {})
    rows = [[name.replace("_", " "), f"{value:,}"] for name, value in counts.items() if isinstance(value, int)]
    return markdown_table(["what", "count"], rows, "lr") if rows else "Not recorded."


def _lineage(record: Mapping[str, Any], base_model: str | None) -> str:
    steps, link = [], record
    while link:
        what = "masked-language-model pretraining on a corpus" if link.get("stage") == MLM else "fine-tuning on pairs"
        steps.append(what)
        link = link.get("lineage")
    start = _code(base_model) if base_model else "a model that was given as a folder"
    return " -> ".join([start, *reversed(steps)])


def _training(record: Mapping[str, Any]) -> str:
    settings = {**record.get("identity", {}), **record.get("settings", {})}
    rows = [[name, str(settings[name])] for name in TOLD_SETTINGS if settings.get(name) is not None]
    rows += [[f"{name} (version)", version] for name, version in record.get("versions", {}).items()]
    return markdown_table(["setting", "value"], rows, "ll") if rows else "Not recorded."


def _code(text: str) -> str:
    """A name as code, which no Markdown can be read from."""
    return "`" + re.sub(r"[`\s]+", " ", text).strip() + "`"
