"""The Ray cluster of a run: started on this machine, or joined at an address."""

import contextlib
import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.files import TEMPORARY, Files
from engine.makespan import Machine
from engine.pulse import watched
from engine.spec import Resources, SpecError
from engine.submit import code

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
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the driver of a submitted job."""
ANSWER = 300.0
"""Seconds in which a node must have started a worker that answers."""
SILENCE, OWN_SILENCE = 120.0, 10.0
"""Seconds after which a head that does not answer is dead: a cluster's may start again."""
RECOUNT = 1.0
"""Seconds for which a count of the nodes is good."""


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
        if JOB in os.environ:
            # The job's folder held the sweep, which is read; where two nodes share a host, Ray
            # unpacks it anew for the second one, and a process in the old one has no folder.
            os.chdir(os.path.expanduser("~"))
        ray.init(
            address=address,
            runtime_env=_travelling(),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    else:
        ray.init(
            address="local",  # or an environment's RAY_ADDRESS would be joined
            num_cpus=cores(),
            object_store_memory=STORE_BYTES + 2 * data_bytes,
            include_dashboard=groups,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    head = ray.get_runtime_context().gcs_address
    try:
        with watched(head, SILENCE if address else OWN_SILENCE):
            yield
    finally:
        ray.shutdown()


def _travelling() -> dict[str, Any]:
    """What a joined cluster's workers need of us: settings, and code unless a job brought it."""
    settings = {name: os.environ[name] for name in ENVIRONMENT}
    return {"env_vars": settings, **({} if JOB in os.environ else code())}


def check_storage(files: Files) -> None:
    """Let every node look for a file that the driver writes.

    Raises:
        SpecError: a node does not see it, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"{TEMPORARY}probe-{secrets.token_hex(8)}"
    files.write(name, b"")
    look = ray.remote(_sees)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        on = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = [look.options(num_cpus=0, scheduling_strategy=at).remote(files, name) for at in on]
        for node, ref in zip(nodes, asked, strict=True):
            try:
                reason = "" if ray.get(ref, timeout=ANSWER) else "it sees another folder there"
            except ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            if reason:
                raise SpecError(
                    f"--storage {files.shown}: not shared with node {node['NodeManagerHostname']}"
                    f" ({node['NodeManagerAddress']}, {node['NodeID'][:8]}): {reason}; wanted a"
                    " URI or a path on a file system that every node mounts"
                )
    finally:
        files.delete(name)


def _sees(files: Files, name: str) -> bool:
    return files.exists(name)


def _check_answers(address: str) -> None:
    """Say at once that nothing listens at `host:port`: Ray itself would try for minutes."""
    from ray.util import get_node_ip_address

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, or a scheme of Ray's own
    if host in ("127.0.0.1", "localhost"):
        host = get_node_ip_address()  # as Ray itself takes it
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SpecError(
            f"--address {address}: no Ray cluster answers there ({host}:{port}): {error}"
        ) from error


def cores() -> int:
    """CPUs that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def machine(address: str | None) -> Machine:
    """What a run may use: this machine, or the cluster that was joined."""
    if address is None:
        return Machine(cores())
    import ray

    total = ray.cluster_resources()
    return Machine(max(1, int(total.get("CPU", 1))), total.get("GPU", 0.0))


@dataclass(frozen=True)
class Ask:
    """What one trial or one analysis occupies: equal bundles, each on one node."""

    what: str
    bundle: Mapping[str, float]
    """Amount of each resource, by Ray's name."""
    bundles: int = 1
    placement: str = "PACK"
    """How several bundles lie on the nodes; Ray's placement strategies."""

    def __str__(self) -> str:
        each = _amounts(self.bundle)
        spread = f"{self.bundles} workers of {each} each ({self.placement})"
        return f"{self.what} wants {each if self.bundles == 1 else spread}"


def trial_ask(resources: Resources) -> Ask:
    """What a trial occupies; the workers of one share it equally."""
    whole = {
        "CPU": resources.cpus_per_trial,
        "GPU": resources.gpus_per_trial,
        **resources.custom,
    }
    share = {name: amount / resources.workers for name, amount in whole.items() if amount}
    return Ask("a trial", share, resources.workers, resources.placement)


def analysis_ask(resources: Resources) -> Ask:
    """What an analysis occupies. Ray is asked for no CPU (trials would starve it): we count."""
    whole = {"CPU": 1, "GPU": resources.gpus_per_analysis, **resources.analysis_custom}
    return Ask("an analysis", {name: amount for name, amount in whole.items() if amount})


def fits(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many bundles one node holds.

    >>> fits({"CPU": 2, "GPU": 1}, {"CPU": 1, "GPU": 0.25})
    2
    """
    return int(min(node.get(name, 0.0) / amount + 1e-9 for name, amount in bundle.items()))


def places(nodes: Iterable[Mapping[str, float]], ask: Ask) -> int:
    """How many asks the nodes hold at a time, counted node by node.

    >>> places([{"CPU": 2}, {"CPU": 2}], Ask("a trial", {"CPU": 4}))
    0
    >>> places([{"CPU": 3}, {"CPU": 1}], Ask("a trial", {"CPU": 1}, 2, "STRICT_PACK"))
    1
    """
    held, k = [fits(node, ask.bundle) for node in nodes], ask.bundles
    if ask.placement == "STRICT_PACK":
        return sum(n // k for n in held)
    if ask.placement == "STRICT_SPREAD":
        most = sum(held) // k
        return max(t for t in range(most + 1) if sum(min(n, t) for n in held) >= k * t)
    return sum(held) // k


class Room:
    """How much of one kind of work the cluster holds, recounted as its nodes come and go.

    Raises:
        SpecError: no node holds it, and the cluster starts none on demand.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask, self.taken = ask, Counter()
        self.read = -RECOUNT
        if self.slots():
            return
        nodes = [_amounts(_relevant(node, ask)) for node in self.nodes.values()]
        have = "; ".join(f"{n} x {text}" for text, n in Counter(nodes).most_common(5))
        message = f"resources: {ask}, and no node of the cluster holds that; nodes: {have}"
        if not self.elastic:
            raise SpecError(message)
        print(f"{message}: waiting for it to start one", file=sys.stderr)

    def slots(self) -> int:
        """Places on the nodes that are alive."""
        import ray

        if time.monotonic() - self.read >= RECOUNT:
            alive = [node for node in ray.nodes() if node["Alive"]]
            self.nodes = {node["NodeID"]: node["Resources"] for node in alive}
            # Set on the nodes of Ray's launcher and of KubeRay alone.
            self.elastic = any("ray.io/node-group" in node["Labels"] for node in alive)
            self.count, self.read = places(self.nodes.values(), self.ask), time.monotonic()
        return self.count

    def wanted(self) -> int:
        """How many to hand to Ray: what fits, one at least.

        On a cluster that grows as many again: an autoscaler sees only what waits in Ray's queue.
        """
        return max(self.slots(), 1) * (2 if self.elastic else 1)

    def take(self) -> str | None:
        """The node with most places left, now one less; None if there is none.

        Ray itself would heap tasks that ask for no CPU on the driver's node. "" leaves it to Ray.
        """
        if not self.slots():
            free = {"": 1 - self.taken.total()}
        else:
            free = {
                node: fits(resources, self.ask.bundle) - self.taken[node]
                for node, resources in self.nodes.items()
            }
        node = max(free, key=free.__getitem__)
        if free[node] < 1:
            return None
        self.taken[node] += 1
        return node

    def leave(self, node: str) -> None:
        """A place taken is free again."""
        self.taken[node] -= 1

    def near(self, node: str) -> Any:
        """Ray's scheduling strategy for a task at a place that was taken."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not node or len(self.nodes) == 1:
            return "DEFAULT"
        return NodeAffinitySchedulingStrategy(node, soft=True)  # elsewhere if it dies


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _relevant(node: Mapping[str, float], ask: Ask) -> dict[str, float]:
    return {name: node.get(name, 0.0) for name in ask.bundle}
