"""What the network helper loads, which each of its forks has."""

from __future__ import annotations

import subprocess
import sys


def test_it_loads_what_jobs_run_and_no_event_loop() -> None:
    code = (
        "import sys; sys.path[:] = sys.argv[1:]; from ocirt_cri.network import helper; helper._load()\n"
        "print(*(name for name in ('asyncio', 'grpc', 'google.protobuf', 'sqlite3', 'ssl') if name in sys.modules))\n"
        "print('ocirt_cni.plugins.bridge' in sys.modules)"
    )
    command = [sys.executable, "-S", "-c", code, *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("\nTrue\n", "")
