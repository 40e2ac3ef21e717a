from .stages.calls import adapt as adapt
from .stages.calls import finetune as finetune
from .stages.calls import pipeline as pipeline
from .stages.comparison import compare_runs as compare_runs
from .stages.exporting import export_formats as export_formats
from .stages.perplexity import measure_perplexity as measure_perplexity
from .stages.run_folders import read_run as read_run

__version__: str
