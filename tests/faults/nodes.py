"""What some scenes stand on: a Ray cluster of two nodes on this machine, a disk of a few kB."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.processes import below, gone, send

CLUSTER = """
import os, sys
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
from ray.cluster_utils import Cluster
size = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=size)
size.pop("include_dashboard")
second = cluster.add_node(**size)
(raylet,) = second.all_processes["raylet"]
print(cluster.address, raylet.process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class TwoNodes:
    """A cluster of two nodes in a process of its own, one CPU each."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.address, raylet = self.process.stdout.readline().split()
        self.second = int(raylet)

    def kill_second(self) -> None:
        """kill -9 of the second node's raylet."""
        send([self.second])

    def close(self) -> None:
        """End it in order; what outlives that is killed."""
        everything = below(self.process.pid)
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if not gone(everything, 10):
            send(everything)


class SmallDisk:
    """A tmpfs of a given size; needs the right to mount."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)

    def grow(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", "remount,size=1g", self.folder], check=True)

    def close(self) -> None:
        """Unmount; a late writer may hold it for a moment."""
        for _ in range(50):
            if subprocess.run(["umount", self.folder], capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        raise OSError(f"{self.folder} cannot be unmounted")


def may_mount(folder: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
    )
    if done.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return done.returncode == 0
