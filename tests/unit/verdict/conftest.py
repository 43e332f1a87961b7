"""Lets the tests of this folder import the builder of synthetic runs that reports are tested with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
