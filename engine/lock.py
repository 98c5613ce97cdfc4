"""One driver a sweep: a lock of the system on a disk, a lease on an object store.

Leases need nothing of the store but that a listing shows what was written before it. Each driver
writes a claim of its own, waits, and lists all claims: a younger claim gives way to an older one,
any claim to a driver that holds, and a claim not renewed for `LEASE` seconds is dead. Ages
are differences of the store's own times, so the clocks of the machines do not matter.

A driver that is cut off for longer than its lease and comes back does not know that another took
over. Two drivers do no harm all the same: they compute equal files and replace each as a whole.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyarrow import fs

from engine import records

if TYPE_CHECKING:
    from engine.files import Files

LOCK = ".lock"
CLAIMS = ".drivers"
LEASE = 60.0
"""Seconds without renewal after which a driver counts as dead."""
SETTLE = 2.0
"""Seconds between a claim and the decision: claims written at the same time see each other."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a network file system without locks answers."""


class Busy(RuntimeError):
    """Another live driver holds the folder."""


@contextlib.contextmanager
def hold(files: "Files") -> Iterator[None]:
    """Hold a folder as its only driver.

    Raises:
        Busy: another driver lives; its host, process and start are named.
    """
    with contextlib.ExitStack() as stack:
        if not files.is_local or not _locked(files, stack):
            stack.enter_context(Lease(files))
        yield


def _whoami() -> dict[str, object]:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def _named(driver: dict) -> str:
    return ", ".join(
        [f"host {driver['host']}", f"pid {driver['pid']}", f"started {driver['started']}"]
    )


def _locked(files: "Files", stack: contextlib.ExitStack) -> bool:
    """Take the system's lock, which ends with the process; False where there are no locks."""
    os.makedirs(files.base, exist_ok=True)
    file = stack.enter_context(open(files.path(LOCK), "a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Busy(f"{files.shown} is being run by another driver: {file.read()}") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    file.truncate(0)
    file.write(_named(_whoami()))
    file.flush()
    return True


class Lease:
    """A driver's claim on a folder, renewed by a thread until the driver ends."""

    def __init__(self, files: "Files") -> None:
        self.files, self.me = files, _whoami()
        self.name = f"{CLAIMS}/{secrets.token_hex(8)}.json"
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._write(holds=False)
        try:
            time.sleep(SETTLE)
            self._give_way()
            self._write(holds=True)
        except BaseException:
            self.files.delete(self.name)
            raise
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()
        self.files.delete(self.name)

    def _write(self, *, holds: bool) -> None:
        # Equal lengths: who reads it while it is replaced must not get half of it.
        self.files.write_json(self.name, {**self.me, "holds": int(holds)})

    def _renew(self) -> None:
        while not self.ended.wait(LEASE / 4):
            # A store out of reach for a moment: three more renewals come before the lease ends.
            with contextlib.suppress(OSError):
                self._write(holds=True)

    def _give_way(self) -> None:
        """Raise if an older claim, or one that holds, is alive; remove dead ones."""
        times = self._times()
        mine = times.pop(self.name)
        for name, time_of in times.items():
            left = LEASE - (mine + SETTLE - time_of)
            if left <= 0:
                self.files.delete(name)
                continue
            driver = self.files.read_record(name, records.CLAIM)  # None: it has ended meanwhile
            if driver and (driver["holds"] or (time_of, name) < (mine, self.name)):
                until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
                raise Busy(
                    f"{self.files.shown} is being run by another driver: {_named(driver)};"
                    f" if that one is dead, its lease ends in {left:.0f} s, at {until}"
                )

    def _times(self) -> dict[str, float]:
        """When each claim was last written, by the store's clock."""
        selector = fs.FileSelector(self.files.path(CLAIMS), allow_not_found=True)
        return {
            f"{CLAIMS}/{info.base_name}": info.mtime_ns / 1e9
            for info in self.files.system.get_file_info(selector)
            if info.type == fs.FileType.File and info.base_name.endswith(".json")
        }
