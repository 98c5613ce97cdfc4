"""A Ray cluster on this host, for tests; each node is a raylet with its own object store.

A process of its own, steered by lines: options of a node as JSON start one (the first the head)
and are answered by the cluster's address, its dashboard's, and the raylet's process. It ends with
its input.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

HEAD = {
    "include_dashboard": True,
    "dashboard_port": 0,
    "dashboard_agent_listen_port": None,  # any that is free
    "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
}


@contextlib.contextmanager
def cluster(environment: dict[str, str]) -> Iterator[Callable[..., tuple[str, str, int]]]:
    """Yields a function that starts a node; the first is the head."""
    with subprocess.Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def add(**options: Any) -> tuple[str, str, int]:
            process.stdin.write(json.dumps(options) + "\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        try:
            yield add
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def main() -> None:
    """Start a node for each line; end them all at the end of the input."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    nodes = Cluster()
    for line in sys.stdin:
        head = {} if nodes.head_node else HEAD
        options = {"num_cpus": 1, **head, **json.loads(line)}
        node = nodes.add_node(**options)
        raylet = node.all_processes["raylet"][0].process.pid
        print(
            json.dumps([nodes.address, f"http://{nodes.webui_url}", raylet]),
            file=answers,
            flush=True,
        )
    nodes.shutdown()


if __name__ == "__main__":
    main()
