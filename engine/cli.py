"""The command line: arguments to the verbs of `engine.run`, errors to exit status. No logic."""

import json
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import sweeps
from engine.spec import SpecError, Sweep, nearest
from engine.spec import load as load_sweep

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Phase diagrams of diffusion denoisers: from memorization to generalization.",
)
STORAGE = "results"

SweepArgument = Annotated[
    str, typer.Argument(help="A sweep file, or the name of a shipped sweep.")
]
PathArgument = Annotated[str, typer.Argument(help="The folder of a sweep: <storage>/<sweep>.")]
Storage = Annotated[str, typer.Option(help="Folder or URI under which the sweep's folder lies.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Replace a key, e.g. axes.width=[8,16].")
]
Out = Annotated[
    str | None, typer.Option(help="Folder for what is made, if the sweep's own may only be read.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def main() -> None:
    """Run the command line; bad input exits 2 with one message and nothing started."""
    from engine.files import Full
    from engine.lock import Busy
    from engine.records import Damaged

    try:
        app()
    except (SpecError, Busy, Damaged, Full) as error:
        print(f"diffphase: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, Full) else 2)


def find(sweep: str, overrides: list[str] | None) -> tuple[Sweep, str]:
    """The sweep behind a name or a path, and how errors should call it."""
    path = Path(sweep)
    if not path.suffix and not path.exists():
        if sweep not in sweeps.names():
            hint = nearest(sweep, sweeps.names())
            raise SpecError(
                f"no sweep {sweep!r}{hint}; shipped: {', '.join(sweeps.names())}; or give a path"
            )
        path = sweeps.FOLDER / f"{sweep}.yaml"
    return load_sweep(path, overrides or ()), str(path)


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="datasets, architectures, analyses or sweeps; all if left out.")
    ] = "",
) -> None:
    """What is registered, one line each."""
    from engine.listing import KINDS, lines

    if kind and kind not in KINDS:
        raise SpecError(
            f"list: unknown kind {kind!r}{nearest(kind, KINDS)}; allowed: {', '.join(KINDS)}"
        )
    for each in [kind] if kind else KINDS:
        if not kind:
            print(f"{each}:")
        for line in lines(each):
            print(line if kind else f"  {line}")


@app.command()
def plan(
    sweep: SweepArgument,
    storage: Storage = STORAGE,
    set_: Set = None,
    as_json: Json = False,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Of the cluster planned for; default: this machine.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of the cluster planned for.")] = 0,
    gpu: Annotated[
        str, typer.Option(help="Their kind, e.g. a100: hours by FLOPs, nothing is timed here.")
    ] = "",
) -> None:
    """Trials, cells and cost of what is missing; starts nothing."""
    from engine.cluster import cores as cores_here
    from engine.gpus import HALF_PRECISION
    from engine.listing import planned
    from engine.makespan import Machine
    from engine.run import prepare

    if gpu and gpu not in HALF_PRECISION:
        raise SpecError(f"--gpu: unknown kind {gpu!r}; allowed: {', '.join(HALF_PRECISION)}")
    gpus = gpus or (1 if gpu else 0)
    machine = Machine(cores or max(cores_here(), int(gpus)), gpus, gpu)
    ready = prepare(*find(sweep, set_), storage, count_flops=bool(gpu))
    numbers, text = planned(ready, machine)
    print(json.dumps(numbers, indent=1) if as_json else text)


@app.command()
def run(
    sweep: SweepArgument,
    storage: Storage = STORAGE,
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; default: this machine.")
    ] = None,
    set_: Set = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed cells again.")
    ] = False,
    max_failures: Annotated[
        int | None, typer.Option(min=1, help="Start nothing new after this many failures.")
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="Refuse to start what is estimated to take longer.")
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Draw them at the end, or leave that to `diffphase plot`.")
    ] = True,
) -> None:
    """Compute everything that is missing, then gather the cube and draw the figures."""
    from engine.publish import finished
    from engine.run import prepare
    from engine.run import run as run_

    prepared = prepare(*find(sweep, set_), storage)
    status = run_(
        prepared,
        address=address,
        retry_failed=retry_failed,
        max_failures=max_failures,
        max_hours=max_hours,
        figures=figures,
        command="diffphase " + shlex.join(sys.argv[1:]),
    )
    if status != 130:
        print(finished(prepared.store))
    raise typer.Exit(status)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    sweep: SweepArgument,
    address: Annotated[str, typer.Option(help="Of the cluster's dashboard, http://HOST:8265.")],
    storage: Annotated[
        str, typer.Option(help="URI or absolute path that every node of the cluster sees.")
    ],
    set_: Set = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the log; exit with the run's status.")
    ] = False,
) -> None:
    """The same run as a job on a Ray cluster; further options are those of `run`."""
    from engine.submit import submit as submit_

    run_ = typer.main.get_command(app).commands["run"]
    run_.make_context("diffphase submit", [sweep, *context.args])  # refuses what run would
    found, _ = find(sweep, set_)
    options = context.args
    raise typer.Exit(submit_(found, storage=storage, address=address, options=options, wait=wait))


@app.command()
def status(path: PathArgument, as_json: Json = False) -> None:
    """Counts by status, failures and time left, from the store alone."""
    from engine.opened import stored
    from engine.status import state_of

    numbers, text = state_of(*stored(path))
    print(json.dumps(numbers, indent=1) if as_json else text)


@app.command()
def gather(
    path: PathArgument,
    to: Annotated[str, typer.Option(help="netcdf (with zarr), csv or parquet.")] = "netcdf",
    out: Out = None,
) -> None:
    """Rebuild the cube from the pieces."""
    from engine.publish import gather_at

    print(_bad_input(lambda: gather_at(path, to, out)))


@app.command()
def pack(path: PathArgument) -> None:
    """Move the small files of finished trials into bundles, against quotas of files."""
    from engine.packing import pack_at

    print(_bad_input(lambda: pack_at(path)))


@app.command()
def plot(
    path: PathArgument,
    figure: Annotated[
        list[str] | None,
        typer.Option(help="A figure of the paper, paper/1 to paper/30, or paper for all."),
    ] = None,
    out: Out = None,
) -> None:
    """Draw the figures from the cube: PNG, PDF and the plotted numbers."""
    from engine.neighbours import training_images
    from engine.publish import plot_at

    train, without = training_images(path) if figure else (None, "")
    drawn, missing = _bad_input(lambda: plot_at(path, figure or (), train, out))
    for name in drawn:
        print(name)
    say = partial(Console(stderr=True).print, highlight=False, markup=False)
    if without:
        say(f"without the nearest training images: {without}")
    for name, reason in missing.items():
        say(f"not drawn: {name}: {reason}")


@app.command()
def analyse(
    denoiser: Annotated[
        list[str],
        typer.Option(
            help="[NAME=]SOURCE: a snapshot (.safetensors), a diffusers folder, a network file of"
            " EDM (.pkl, read and not run), or module:function, called as D(images, sigma)."
        ),
    ],
    data: Annotated[str, typer.Option(help="The data: a name, or a mapping as in a sweep file.")],
    out: Annotated[str, typer.Option(help="Folder or URI of the cube.")] = f"{STORAGE}/models",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="n_train, draw, split, sigmas, analyses, sampler, numerics."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
) -> None:
    """The same analyses for denoisers that were trained elsewhere, as one cube."""
    from engine.external import analyse_models, examination, models, place

    asked, where = examination(data, set_ or ()), place(device)
    raise typer.Exit(analyse_models(asked, models(denoiser, where), out, device=where))


@app.command()
def laws(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Folders of sweeps to judge; none: the closed-form laws, here."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Id of a closed-form check, e.g. T15.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Verdicts as a table.")] = False,
) -> None:
    """Check the closed-form laws on this machine, or judge the published laws by sweeps."""
    from engine.laws import judge, self_check

    if paths:
        print(_bad_input(lambda: judge(paths, markdown=markdown)))
        return
    if not _bad_input(lambda: self_check(only or (), Console(width=160))):
        raise typer.Exit(1)


def _bad_input(call: Callable[[], Any]) -> Any:
    """An error about the arguments or a missing file is bad input."""
    try:
        return call()
    except (ValueError, FileNotFoundError) as error:
        raise SpecError(str(error)) from error


if __name__ == "__main__":
    main()
