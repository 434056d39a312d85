"""`gtx-cloud` in this process: as quick as a function, and its coverage counts."""

import contextlib
import io
import os
import subprocess

from gridtokenx_cloud.__main__ import run
from tests.support.cloud_process import environment


def gtx_cloud_here(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, with its settings in the environment."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(env))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(list(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
