from .scorer import Scorer as Scorer
from .scorer import Verdict as Verdict
from .scorer import Verdicts as Verdicts
from .scorer import load_scorer as load_scorer
