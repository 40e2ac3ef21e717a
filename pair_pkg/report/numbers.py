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
    return format_share(value) if name in PERCENT_METRICS else f"{value:.3f}"


def format_p_value(value: float) -> str:
    """The p-value of a test, which is never 0.

    >>> format_p_value(0.0193), format_p_value(2e-39)
    ('p = 0.019', 'p < 0.001')
    """
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def format_share(value: float) -> str:
    """A share of a whole.

    >>> format_share(0.1234)
    '12.3 %'
    """
    return f"{100 * value:.1f} %"


def format_interval(name: str, low: float | None, high: float | None) -> str:
    """The bounds of a metric's interval, percentages without their sign; "-" where there is none.

    >>> format_interval("accuracy", 0.762, 0.8391), format_interval("mcc", 0.5, 0.61), format_interval("f1", None, None)
    ('76.2 to 83.9', '0.500 to 0.610', '-')
    """
    if low is None or high is None:
        return "-"
    return " to ".join(format_value(name, bound).removesuffix(" %") for bound in (low, high))


def format_spread(name: str, value: float | None) -> str:
    """A standard deviation, in points where the value is a percentage; "-" where there is none.

    >>> format_spread("accuracy", 0.0123), format_spread("spearman", 0.0123), format_spread("f1", None)
    ('1.2 points', '0.012', '-')
    """
    if value is None:
        return "-"
    return f"{100 * value:.1f} points" if name in PERCENT_METRICS else f"{value:.3f}"


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
