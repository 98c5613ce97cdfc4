SMALL = {"axes": {"width": [64], "n_train": [8], "training.lr": [4e-3, 1e30]}, "kimg": [1]}


@several_nodes
def test_a_job_brings_code_and_sweep_shows_its_log_and_ends_with_the_run_s_status(
    head, tiny, tmp_path
):
    _, dashboard, _, _ = head
    tiny |= {**SMALL, "training": {"batch": 128, "warmup_kimg": 1}, "analyses": ["generalization"]}
    path, storage = write(tmp_path, tiny), tmp_path / "cluster"
    stranger = {k: v for k, v in ENVIRONMENT.items() if k != "RAY_AUTH_TOKEN"}
    stranger |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    with start("submit", path, storage, dashboard, env=stranger) as refused, ended(refused):
        assert refused.wait(timeout=120) == 2
        assert f"diffphase: --address {dashboard}: " in refused.stdout.read()
    options = ["--wait", "--set", "kimg=[1,2]", "--max-failures", "9"]
    with start("submit", path, storage, dashboard, *options) as job, ended(job):
        log, _ = job.communicate(timeout=900)
    assert job.returncode == 1, log  # one of the two trainings diverges
    assert "--max-failures 9" in log and "failed training width=64" in log
    status = cube_of(prepared({**tiny, "kimg": [1, 2]}, storage))["status"].squeeze()
    assert status.sel(training_lr=4e-3).values.tolist() == [2, 2]
    assert (status.sel(training_lr=1e30) == 3).all()


