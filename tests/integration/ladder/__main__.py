"""The driver process of the sweep tests: plays ``test-plan.json`` of a directory on Ray Tune."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from orchestrator.contract.plan import Plan
from orchestrator.runners import tune


def main(directory: Path) -> None:
    results = tune.run(Plan.from_json((directory / "test-plan.json").read_text()), directory)
    ends = {result.trial: [result.status, result.step, result.error and str(result.error)] for result in results}
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
