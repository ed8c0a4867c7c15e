"""``rexport`` with a third of scikit-learn's digits and a short look at speeds, for a quickstart of some seconds."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.benchmarks import BenchResult

HELD_OUT = 120


def quickstart(folder: Path) -> str:
    """Run ``rexport quickstart --json``, whose network learns too little from so few digits; return the document."""
    command = [sys.executable, __file__, "quickstart", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "expected at least 97 %" in done.stderr
    return done.stdout


def _main() -> None:
    from sklearn import datasets

    import rexport.benchmarks
    import rexport.cli
    import rexport.jobs.quickstart

    measured = rexport.benchmarks.bench
    digits = datasets.load_digits()
    digits.images, digits.target = digits.images[:1200:2], digits.target[:1200:2]

    def bench(models: Any, **options: Any) -> BenchResult:
        return measured(models, **options | {"min_seconds": 0.0})

    datasets.load_digits = lambda: digits
    rexport.benchmarks.bench = bench
    rexport.jobs.quickstart._HELD_OUT = HELD_OUT
    rexport.cli.main()


if __name__ == "__main__":
    _main()
