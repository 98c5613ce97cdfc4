"""The Ray cluster of a run: started on this machine, or joined at an address."""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator

from engine.spec import SpecError

ENVIRONMENT = {
    # The store is the only source of resumption; Tune's own snapshots would be wasted writes.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune swallows the first SIGINT; ours ends the run
    # Else a worker that waits a second for the next snapshot is killed, and the next analysis pays
    # for a new one, whose imports alone cost several analyses.
    "RAY_idle_worker_killing_time_threshold_ms": "300000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else the end of a group is noticed after 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default: do not touch CUDA's variables
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Who may connect to Ray; what the user sets here is left alone."""
STORE_BYTES = 256 * 2**20
"""Object store beside the data: queues and results of tasks are small."""


def configure(address: str | None) -> None:
    """Set Ray's environment; to be called before Ray is imported, since it reads it then.

    A cluster at an address has its own way of letting clients in. A Ray of our own listens on
    loopback and wants a token that only this process and its children know.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address:
        return
    # The name is Ray's: on every system it means "one machine", and all servers bind to loopback.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if not any(name in os.environ for name in AUTH):
        # In the environment: left to itself Ray writes a token into the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def cluster(address: str | None, data_bytes: int, *, groups: bool) -> Iterator[None]:
    """Ray for the length of a run.

    Args:
        address: of a running cluster, or None to start one on this machine.
        data_bytes: size of the arrays that every node will hold.
        groups: whether trials start worker groups (these need the dashboard's state service).
    """
    import ray

    if address:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",  # or an environment's RAY_ADDRESS would be joined
            num_cpus=cores(),
            object_store_memory=STORE_BYTES + 2 * data_bytes,
            include_dashboard=groups,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Say at once that nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, or a scheme of Ray's own
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SpecError(f"--address {address}: no Ray cluster answers there: {error}") from error


def cores() -> int:
    """CPUs that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def capacity(cpus: float, gpus: float) -> int:
    """How many trials of that size the cluster holds at a time, at least one."""
    import ray

    total = ray.cluster_resources()
    fits = [total.get("CPU", 0) / cpus]
    if gpus:
        fits.append(total.get("GPU", 0) / gpus)
    if min(fits) < 1:
        raise SpecError(
            f"resources: a trial wants {cpus:g} CPUs and {gpus:g} GPUs, the cluster has"
            f" {total.get('CPU', 0):g} and {total.get('GPU', 0):g}"
        )
    return int(min(fits))
