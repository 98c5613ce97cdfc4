"""Whether Ray still answers: a driver whose Ray was killed would wait for it without a word."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

EVERY = 2.0
"""Seconds between looks."""


@contextlib.contextmanager
def watched(address: str, patience: float) -> Iterator[None]:
    """End this process, with a message and status 1, if Ray's head is silent for too long.

    From within: calls to a dead head neither return nor raise for a minute and more, in any
    thread. Writes are atomic, so that the same command goes on from what is stored.

    Args:
        address: of the head's control service, `host:port`.
        patience: seconds of silence; a cluster whose head starts again needs some.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(address, patience, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(address: str, patience: float, ended: threading.Event) -> None:
    heard = time.monotonic()
    while not ended.wait(EVERY):
        if answers(address):
            heard = time.monotonic()
        elif time.monotonic() - heard > patience and not ended.is_set():
            print(
                f"diffphase: Ray has died: its head at {address} has not answered for"
                f" {patience:.0f} s; what is stored is whole, the same command goes on from here",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=EVERY).close()
    except OSError:
        return False
    return True
