from .statistics import Difference as Difference
from .statistics import verdict as verdict
