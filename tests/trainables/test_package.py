"""The package from outside: what an import of it costs."""

import subprocess
import sys


def test_the_version_is_known_without_importing_torch():
    code = "import sys, trainables; assert trainables.VERSION >= 1; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
