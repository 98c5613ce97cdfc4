"""`diffphase submit`: the same run as a job on a Ray cluster. Code and sweep travel with it."""

import asyncio
import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.spec import SpecError, Sweep, as_mapping

PACKAGES = ("engine", "trainables", "analyses", "sweeps")
FILE = "sweep.json"
"""The sweep, complete and with its overrides, in the job's working directory."""


def code() -> dict[str, Any]:
    """A runtime environment in which every process imports the code of this one."""
    root = Path(__file__).parents[1]
    return {
        "py_modules": [str(root / name) for name in PACKAGES],
        "excludes": ["__pycache__"],
    }


def entrypoint(storage: str, options: Sequence[str]) -> str:
    """The job's command line."""
    if "://" not in storage and not Path(storage).is_absolute():
        raise SpecError(
            f"--storage {storage}: wanted a URI or an absolute path that every node of the cluster"
            " sees; a relative one would lie in the job's own folder and be lost with it"
        )
    where = ["--address", "auto", "--storage", storage]
    return shlex.join(["python", "-m", "engine", "run", FILE, *where, *options])


def submit(
    sweep: Sweep, *, storage: str, address: str, options: Sequence[str] = (), wait: bool = False
) -> int:
    """Submit a run to the cluster whose dashboard is at `address`.

    Returns:
        With `wait`, once the job has ended, the run's exit status; else 0.

    Raises:
        SpecError: nothing answers there, or it refuses us (RAY_AUTH_MODE=token and its token).
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    command = entrypoint(storage, options)
    with tempfile.TemporaryDirectory(prefix="diffphase-") as folder:
        Path(folder, FILE).write_text(json.dumps(as_mapping(sweep), indent=1))
        try:
            client = JobSubmissionClient(address)
            job = client.submit_job(
                entrypoint=command,
                runtime_env={**code(), "working_dir": folder},
                metadata={"sweep": sweep.name},
            )
        except (OSError, RuntimeError, RayError) as error:
            raise SpecError(f"--address {address}: {error}") from error
    print(f"job {job}: {command}")
    at = f"--address {address}"
    print(f"ray job logs {job} --follow {at}   # or status, or stop", flush=True)
    return asyncio.run(_follow(client, job)) if wait else 0


async def _follow(client: Any, job: str) -> int:
    """Print the job's log to its end; the exit status of its command."""
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)
    info = client.get_job_info(job)
    if info.driver_exit_code is None:  # it never started
        print(f"job {job}: {info.status}: {info.message}")
        return 1
    return info.driver_exit_code
