"""What the engine does about failures: tried again, given up, said, kept; Ray itself is real."""

import logging
import os

import pytest
import torch

from engine import analyse as analyse_module
from engine import driver as driver_module
from engine import fanout, vigil
from engine.analyse import analyse
from engine.cluster import Ask, Room
from engine.driver import Driver
from engine.fanout import Fanout, reason_of
from engine.files import Full
from engine.grid import Cell
from engine.job import OutOfMemory, naming_memory
from engine.progress import Display
from engine.resolve import load
from engine.store import receipt_name
from engine.trial import TrialFailed, train_trial
from engine.work import DONE, FAILED
from tests.engine.helpers import compute, cube_of, job_of, prepared
from trainables.train import Training

ONE = {"axes": {"width": [64], "n_train": [8]}, "kimg": [1, 2]}


@pytest.fixture(scope="module")
def session():
    """A small Ray of our own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        # Whatever mode was read when Ray was imported: one that asks for nothing answers.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        _init(ray)
    yield
    ray.shutdown()


def _init(ray):
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exhaust",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: __import__("numpy").empty(2**60, dtype="u1"),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")),
        lambda: bytearray(2**60),
    ],
    ids=["torch", "numpy", "cuda", "python"],
)
def test_a_lack_of_memory_is_recognised_and_says_what_to_lower(exhaust):
    lower = r"lower resources.concurrency, data.resolution"
    with pytest.raises(OutOfMemory, match=lower), naming_memory():
        exhaust()


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match=r"^shapes differ$") as caught, naming_memory():
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, OutOfMemory)


def test_only_rays_own_word_counts_as_a_kill_for_lack_of_memory():
    killed = reason_of("1 worker(s) were killed due to the node running low on memory. 5 GB\n")
    assert killed.startswith("OutOfMemory: Ray ended the process, the node running low on memory.")
    assert "lower resources.concurrency" in killed
    died = reason_of(
        "The actor died.\n\tpid: 7\nWorker exit detail: End of file. Some common causes include:"
        " (1) the process was killed by the OOM killer due to high memory usage"
    )
    assert died == "Worker exit detail: End of file."


def test_an_analysis_without_memory_fails_alone_on_the_last_attempt(tiny, tmp_path, monkeypatch):
    ready = prepared({**tiny, **ONE, "kimg": [1]}, tmp_path)
    compute(ready, analyses=[])
    job, data = job_of(ready), load(ready.sweep, "x")
    cell = Cell(ready.survey().trials[0], 1)
    real = analyse_module.measure_all

    def measure_all(specimen, options, meter):
        found = real(specimen, {n: o for n, o in options.items() if n != "linearity"}, meter)
        meter("linearity", torch.empty, 2**60)
        return found

    monkeypatch.setattr(analyse_module, "measure_all", measure_all)
    names = ["gaussian", "linearity"]
    with pytest.raises(OutOfMemory):
        analyse(job, data, cell, "cell", names)
    assert ready.store.piece_fingerprint(cell, "gaussian") is None
    analyse(job, data, cell, "cell", names, lost=["OutOfMemory: before"], last=True)
    assert ready.store.piece_fingerprint(cell, "gaussian") == job.prints["pieces"]["gaussian"]
    receipts = ready.store.read_receipts(cell, [receipt_name(cell, "cell")])
    assert receipts["gaussian"]["attempts"] == 2
    assert receipts["gaussian"]["errors"] == ["OutOfMemory: before"]
    assert "lower resources.concurrency" in receipts["linearity"]["error"]
    assert len(receipts["linearity"]["errors"]) == 2


# Trials ------------------------------------------------------------------------------------------


def test_a_trial_that_diverges_late_keeps_what_was_done_and_names_step_kimg_loss_and_rate(
    tiny, tmp_path, monkeypatch
):
    ready = prepared({**tiny, **ONE, "kimg": [1, 2, 4]}, tmp_path)
    real = Training.advance

    def advance(self):
        if self.step == 12:
            self._loss = self._loss * torch.nan
        real(self)

    monkeypatch.setattr(Training, "advance", advance)
    ((trial, kimg),) = ready.survey().to_train()
    reason = r"loss is not finite \(nan\) at step 16 \(2.048 kimg\).*lower `lr` 0.004"
    with pytest.raises(TrialFailed, match=reason):
        list(train_trial(job_of(ready), load(ready.sweep, "x"), trial, kimg))
    record = ready.store.trial_record(trial)
    assert record["status"] == "failed" and record["attempts"] == 1
    assert record["errors"] == [record["error"]] and "in advance" not in record["error"]
    assert "FloatingPointError" in record["traceback"]
    compute(ready)
    assert cube_of(ready)["status"].values.ravel().tolist() == [DONE, FAILED, FAILED]


def test_the_record_of_a_trial_keeps_every_attempt(tiny, tmp_path, monkeypatch):
    ready = prepared({**tiny, **ONE}, tmp_path)
    job, data = job_of(ready), load(ready.sweep, "x")
    ((trial, kimg),) = ready.survey().to_train()
    next(train_trial(job, data, trial, kimg))  # abandoned after a snapshot, as by a kill
    (again,) = ready.survey().to_train()
    assert again == (trial, [2])
    list(train_trial(job, data, *again))
    record = ready.store.trial_record(trial)
    assert record["attempts"] == 2 and record["status"] == "done"
    assert record["errors"] == ["cut off: its process died or the run was interrupted"]


def test_a_trial_may_be_lost_any_number_of_times_with_progress_between_and_thrice_without(
    tiny, tmp_path, monkeypatch
):
    ready = prepared({**tiny, **ONE, "resources": {"checkpoint_seconds": 1e-6}}, tmp_path)
    job, data = job_of(ready), load(ready.sweep, "x")
    ((trial, kimg),) = ready.survey().to_train()
    driver = Driver(job, data, ready.survey(), None)
    driver.display = Display(1, 2, 0)
    real = Training.advance

    def lost(last):
        """Whether the trial is given up after a process that dies once it has taken a step."""

        def advance(self):
            if self.step == last:
                raise OSError("its node is gone")
            real(self)

        monkeypatch.setattr(Training, "advance", advance)
        with pytest.raises(OSError, match="its node is gone"):
            list(train_trial(job, data, trial, kimg))
        return driver.on_lost(trial, "its node is gone")

    assert not any(lost(step) for step in (1, 2, 3, 4, 5, 6, 9))
    assert [lost(9) for _ in range(3)] == [False, False, True]
    record = ready.store.trial_record(trial)
    assert record["status"] == "failed" and record["error"] == "its node is gone"
    assert record["attempts"] == len(record["errors"]) == 10 and driver.failures == 1
    assert not ready.survey().to_train()
    ((_, again),) = ready.survey(retry_failed=True).to_train()
    assert again == [2] and not driver.on_lost(trial, "and the count begins anew")


class Deadly:
    """A job that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.ray
def test_a_trial_whose_process_dies_at_every_start_is_given_up(
    session, tiny, tmp_path, monkeypatch
):
    from ray import put

    from engine.tuning import Plan, tune_trials

    monkeypatch.setattr(driver_module, "RETRIES", 1)
    ready = prepared({**tiny, **ONE}, tmp_path)
    job, work = job_of(ready), ready.survey().to_train()
    driver = Driver(job, load(ready.sweep, "x"), ready.survey(), None)
    driver.display = Display(1, 2, 0)
    refs = put(Deadly()), put(None)
    room = Room(Ask("a trial", {"CPU": 1}))
    queue = Fanout(*refs, {}, room=room, on_receipt=None, deadline=None)
    tune_trials(
        job,
        refs,
        Plan(work),
        queue,
        driver.on_snapshot,
        driver.on_lost,
        vigil.Vigil(ready.store, lambda _: 600.0),
        driver.stop,
        room,
    )
    queue.close()
    record = ready.store.trial_record(work[0][0])
    assert record["status"] == "failed" and len(record["errors"]) == 2
    assert driver.failures == 1


def test_a_trial_is_stuck_once_it_is_silent_for_its_deadline(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(vigil, "PATIENCE", 100.0)
    ready = prepared({**tiny, **ONE}, tmp_path)
    (trial,) = ready.survey().trials
    now = [0.0]
    watch = vigil.Vigil(ready.store, lambda _: vigil.deadline(2.0), clock=lambda: now[0])
    watch.begin("t", trial)
    for second in range(0, 500, 5):  # alive: its record changes, whatever its clock says
        now[0] = second
        ready.store.write_trial_record(trial, {"status": "running", "step": second})
        assert not watch.stuck()
    for second in range(500, 590, 5):
        now[0] = second
        assert not watch.stuck()
    now[0] = 620
    assert set(watch.stuck()) == {"t"}
    watch.end("t")
    now[0] = 10_000
    assert not watch.stuck()


def test_the_deadline_grows_with_what_is_predicted_and_is_never_short():
    assert vigil.deadline(0.0) == vigil.deadline(1.0) == vigil.PATIENCE == 600
    assert vigil.deadline(3600.0) == 20 * 3600


# TensorBoard -------------------------------------------------------------------------------------


@pytest.fixture
def driver(tiny, tmp_path):
    """Of a finished sweep."""
    ready = prepared({**tiny, **ONE, "analyses": ["generalization"]}, tmp_path)
    compute(ready)
    driver = Driver(job_of(ready), load(ready.sweep, "x"), ready.survey(), None)
    driver.display = Display(1, 2, 0)
    return driver


def test_a_log_that_cannot_be_written_is_said_once_and_ends_no_run(driver, capsys):
    files = driver.job.store.files
    files.write("tensorboard", b"a file in the place of the folder")
    cell = Cell(driver.todo.trials[0], 1)
    driver._log(cell)
    driver._log(cell)
    driver._finish_board(driver.todo)
    assert capsys.readouterr().err.count("TensorBoard is not complete: ") == 1
    files.delete("tensorboard")
    driver._finish_board(driver.todo)
    assert driver.board.has(cell.trial)


def test_a_log_that_fills_the_disk_ends_the_run(driver, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(driver.board, "begin", full)
    with pytest.raises(Full, match=r"no space left on .*run the same command again"):
        driver._finish_board(driver.todo)


# Tasks -------------------------------------------------------------------------------------------


@pytest.fixture
def tasks(session, tmp_path, monkeypatch):
    """Run one task whose attempts do as told; returns its receipts and the number of attempts."""

    def run(*behaviours, deadline=60.0, retries=2):
        folder = str(tmp_path)

        def attempts(job, data, task, last):
            import time

            yield None
            mine = len(os.listdir(folder))
            open(f"{folder}/{mine}", "w").close()
            match behaviours[min(mine, len(behaviours) - 1)]:
                case "raise":
                    raise OSError(5, "Input/output error")
                case "bug":
                    raise ValueError("no such thing")
                case "die":
                    os.kill(os.getpid(), 9)
                case "hang":
                    time.sleep(600)
            errors = {"linearity": "OSError: said by the worker"} if last else {}
            yield {"at": task.at, "group": task.group, "errors": errors, "told": task.errors}

        monkeypatch.setattr(fanout, "_analyse", attempts)
        monkeypatch.setattr(fanout, "RETRIES", retries)
        monkeypatch.setattr(fanout, "PAUSE", 0.05)
        receipts = []
        queue = Fanout(
            None,
            None,
            {"linearity": "cell"},
            room=Room(Ask("an analysis", {"CPU": 2})),  # one place
            on_receipt=receipts.append,
            deadline=lambda at, names: deadline,
        )
        queue.add("somewhere", ["linearity"])
        queue.drain()
        queue.close()
        (receipt,) = receipts
        return receipt, len(list(tmp_path.iterdir()))

    return run


@pytest.mark.ray
def test_a_task_whose_place_failed_is_tried_again_and_told_what_happened(tasks):
    receipt, attempts = tasks("raise", "die", "fine", retries=3)
    assert attempts == 3 and not receipt["errors"] and "lost" not in receipt
    assert receipt["told"][0] == "OSError: [Errno 5] Input/output error"
    assert receipt["told"][1].startswith("WorkerCrashedError: The worker died unexpectedly")


@pytest.mark.ray
def test_a_task_that_is_lost_every_time_is_a_failed_piece_with_all_its_errors(tasks):
    receipt, attempts = tasks("die", retries=1)
    assert attempts == 2 and len(receipt["lost"]) == 2
    assert receipt["errors"]["linearity"].startswith("WorkerCrashedError")


@pytest.mark.ray
def test_a_bug_is_not_tried_again(tasks):
    receipt, attempts = tasks("bug")
    assert attempts == 1 and receipt["errors"] == {"linearity": "ValueError: no such thing"}


@pytest.mark.ray
def test_a_stuck_task_is_cancelled_and_tried_once_more(tasks):
    receipt, attempts = tasks("hang", "fine", deadline=0.5, retries=5)
    assert attempts == 2 and not receipt["errors"]
    assert receipt["told"] == ["Stuck: past its deadline, cancelled"]


@pytest.mark.ray
def test_a_task_that_is_stuck_twice_has_failed(tasks):
    receipt, attempts = tasks("hang", deadline=0.3, retries=5)
    assert attempts == 2 and len(receipt["lost"]) == 2
    assert receipt["errors"]["linearity"].startswith("Stuck: past its deadline")


@pytest.mark.ray
def test_the_pauses_between_attempts_grow(tasks, monkeypatch):
    asked = []
    monkeypatch.setattr(fanout, "pause", lambda attempts: asked.append(attempts) or 0.01)
    tasks("raise", "raise", "fine", retries=5)
    assert asked == [1, 2]
    monkeypatch.undo()
    longest = [min(fanout.pause(k) for _ in range(50)) for k in range(1, 12)]
    assert longest[0] < longest[1] < longest[2] and max(longest) <= 1.5 * fanout.LONGEST_PAUSE


@pytest.mark.ray
def test_nothing_new_starts_once_enough_has_failed(session):
    done = []
    queue = Fanout(
        None,
        None,
        {"linearity": "cell"},
        room=Room(Ask("an analysis", {"CPU": 2})),  # one place
        on_receipt=lambda receipt: done.append(receipt["at"]),
        deadline=lambda at, names: 60.0,
        stop=lambda: bool(done),
    )
    for at in ("first", "second", "third"):  # without a job each fails at once
        queue.add(at, ["linearity"])
    queue.drain()
    queue.close()
    assert done == ["first"]
