"""How soon merge.py starts."""

import subprocess
import sys

from tests.helpers import ROOT

QUESTION = "import sys, merging.table, merging.inputs, merging.merge; print('open_clip' in sys.modules)"


def test_the_methods_are_known_without_open_clip():
    """It and what it imports take longer than torch itself; tensors of any files are merged without it."""
    answer = subprocess.run([sys.executable, "-c", QUESTION], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout == "False\n"
