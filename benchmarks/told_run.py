"""Stage 1 as a launcher starts it, telling its phases and its exit status in files: what ``signals`` launches.

python -m benchmarks.told_run PLACE FLAG...
"""

import os
import sys
from pathlib import Path

from benchmarks.forks import tell_phases
from pair_pkg.errors import EXIT_FAILED, run_door
from pair_pkg.stages import adapt


def main(place: Path, words: list[str]) -> int:
    """Run stage 1 into ``place``; the first process tells its phases in ``place``.marks, each its status beside it."""
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        tell_phases(place.with_suffix(".marks"))
    status = EXIT_FAILED  # of a traceback
    try:
        status = run_door(adapt.main, [*words, f"--output_dir={place}"])
    finally:
        place.with_suffix(f".status{rank}").write_text(str(status))
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
