"""Replaces the get-pip script that ansible-test downloads, for when its publisher cannot be reached.

ansible-test runs it in an empty virtual environment with get-pip's arguments. Python's ensurepip installs a pip, which
fetches the requested version from the package index.
"""

from __future__ import annotations

import ensurepip
import os
import subprocess
import sys

wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
# ensurepip disables the user's pip configuration for the whole process.
environment = dict(os.environ)
ensurepip.bootstrap(default_pip=True)
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *wanted], env=environment, check=False).returncode)
