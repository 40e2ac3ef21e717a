"""How a metric's name, value and change are printed: one wording for sentences, tables and plots."""

METRIC_TITLES = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
PERCENT_METRICS = {"accuracy", "f1", "precision", "recall", "macro_f1"}  # shares of pairs, read as percentages
LOWER_IS_BETTER = {"mean_squared_error", "perplexity", "loss"}
UNDEFINED = "undefined"


def metric_title(name: str) -> str:
    """The name of a metric in a sentence.

    >>> metric_title("average_precision"), metric_title("mcc")
    ('average precision', 'MCC')
    """
    return METRIC_TITLES.get(name, name.replace("_", " "))


def format_value(name: str, value: float | None) -> str:
    """A metric's value, "undefined" for None.

    >>> format_value("accuracy", 0.8079), format_value("mcc", 0.6123), format_value("mcc", None)
    ('80.8 %', '0.612', 'undefined')
    """
    if value is None:
        return UNDEFINED
    return f"{100 * value:.1f} %" if name in PERCENT_METRICS else f"{value:.3f}"


def format_change(name: str, change: float | None, unit: bool = False) -> str:
    """A difference with its sign, in points (hundredths) where the value is a percentage.

    A change too small for the usual digits keeps one that shows: no "+0.0" for an interval that leaves out zero.

    >>> format_change("accuracy", 0.0231, unit=True), format_change("accuracy", -0.0001), format_change("mcc", 0.0426)
    ('+2.3 points', '-0.01', '+0.043')
    """
    if change is None:
        return UNDEFINED
    percent = name in PERCENT_METRICS
    value, digits = (100 * change, 1) if percent else (change, 3)
    shown = f"{value:+.{digits}f}" if value == 0 or abs(value) >= 0.5 * 10**-digits else f"{value:+.1g}"
    return f"{shown} points" if percent and unit else shown
