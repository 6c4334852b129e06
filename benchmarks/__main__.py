"""`make bench`: every benchmark in turn; fails when a claim does not hold.

python -m benchmarks                  all of them
python -m benchmarks features         one of them
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "load": "load: the code location, against `import dagster` alone",
    "features": "features: ours against pandas groupby-rolling, on the same rows",
    "quality": "quality: the backtest on the published weeks, against XGBoost, logistic regression and the ceiling",
}


def main(arguments: list[str]) -> int:
    """Runs the named benchmarks, or all, each in a process of its own so that none warms another's caches."""
    failed = []
    for name in arguments or BENCHMARKS:
        if name not in BENCHMARKS:
            raise SystemExit(f"there is no benchmark '{name}'; there are {', '.join(BENCHMARKS)}")
        print(f"\n== {BENCHMARKS[name]}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nnot as claimed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
