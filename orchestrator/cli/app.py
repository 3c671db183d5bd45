"""The commands of kprof. Heavy modules are imported inside them, so that `kprof --help` answers at once."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator import __version__
from orchestrator.errors import KprofError

EXIT_CODES = """Example: kprof sweep matrices/h100.yaml --dry-run

Exit codes: 0 every point ended as expected; 1 some point failed, or kprof could not do its job; 2 usage or
a bad matrix; 3 nothing selected; 4 cluster unreachable, access denied, or something is missing there; 130
interrupted (the same command resumes)."""

app = typer.Typer(
    name="kprof",
    help="Find out where every GiB of accelerator memory goes when vLLM starts.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Target(StrEnum):
    """Where points run."""

    KUBERNETES = "kubernetes"
    LOCAL = "local"


class Output(StrEnum):
    """For people or for programs."""

    HUMAN = "human"
    JSON = "json"


class TableFormat(StrEnum):
    """Formats of the summary."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


Matrix = Annotated[Path, typer.Argument(help="Matrix file, for example matrices/h100.yaml.", show_default=False)]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", envvar="KPROF_STORE", help="SQLite file, or URL of a SQLite or PostgreSQL store.", metavar="URL"
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Select points whose id matches; repeatable.", metavar="GLOB")
]
RunName = Annotated[str | None, typer.Argument(help="Run number or id; default: the newest.", metavar="[RUN]")]
Context = Annotated[str | None, typer.Option("--context", help="kubeconfig context.", metavar="NAME")]
Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", help="kubeconfig file.", metavar="FILE")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace of the pods.", metavar="NAME")]
Simulate = Annotated[bool, typer.Option("--simulate", help="Run kprof's simulator in place of vLLM.")]
SimulatorImage = Annotated[
    str | None, typer.Option("--simulator-image", help="Image of the simulator on Kubernetes.", metavar="IMAGE")
]
Speed = Annotated[float, typer.Option("--simulate-speed", help="How much faster than life.", min=0.1, max=10000)]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kprof {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find out where every GiB of accelerator memory goes when vLLM starts."""


@app.command(epilog="Example: kprof sweep matrices/h100.yaml --max-gpus 8")
def sweep(
    matrix: Matrix,
    on: Annotated[Target, typer.Option("--on", help="Where the points run.")] = Target.KUBERNETES,
    simulate: Simulate = False,
    only: Only = None,
    max_gpus: Annotated[int | None, typer.Option("--max-gpus", min=1, help="Devices in use at once.")] = None,
    max_parallel: Annotated[int | None, typer.Option("--max-parallel", min=1, help="Points in flight at once.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new run instead of resuming.")] = False,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Resume an unfinished run, start a new one after a finished one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, create nothing.")] = False,
    output: Annotated[Output, typer.Option("--format", help="What stdout gets.")] = Output.HUMAN,
    store: StoreUrl = "sqlite:///kprof.db",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    simulator_image: SimulatorImage = None,
    simulate_speed: Speed = 1.0,
    simulate_gpus: Annotated[int, typer.Option("--simulate-gpus", min=1, help="Simulated devices, --on local.")] = 8,
) -> None:
    """Run every point of a matrix and print the summary. The same command resumes an interrupted sweep."""
    from orchestrator.cli.sweep_command import SweepOptions, run_sweep

    options = SweepOptions(
        matrix=matrix,
        local=on is Target.LOCAL,
        simulate=simulate,
        only=tuple(only or ()),
        max_gpus=max_gpus,
        max_parallel=max_parallel,
        fresh=fresh,
        repeat=repeat,
        dry_run=dry_run,
        as_json=output is Output.JSON,
        store=store,
        context=context,
        kubeconfig=kubeconfig,
        namespace=namespace,
        simulator_image=simulator_image,
        simulate_speed=simulate_speed,
        simulate_gpus=simulate_gpus,
    )
    raise typer.Exit(run_sweep(options))


@app.command(epilog="Example: kprof render matrices/h100.yaml --only 'qwen3-*' | kubectl apply -f -")
def render(
    matrix: Matrix,
    only: Only = None,
    simulate: Simulate = False,
    simulator_image: SimulatorImage = None,
    simulate_speed: Speed = 1.0,
    namespace: Namespace = None,
) -> None:
    """Print the pods that a sweep would create, as YAML. Only the run's id and owner differ from a sweep's."""
    from orchestrator.cli.render_command import render_matrix

    typer.echo(render_matrix(matrix, tuple(only or ()), simulate, simulator_image, simulate_speed, namespace), nl=False)


@app.command(epilog="Example: kprof summary --format markdown")
def summary(
    run: RunName = None,
    output: Annotated[TableFormat, typer.Option("--format", help="Format of the tables.")] = TableFormat.TABLE,
    store: StoreUrl = "sqlite:///kprof.db",
) -> None:
    """Print the summary table of a run and its failed configurations."""
    from orchestrator.cli.store_commands import print_summary

    print_summary(store, run, output.value)


@app.command(epilog="Example: kprof show qwen3-32b-tp1 --format json")
def show(
    point: Annotated[str, typer.Argument(help="Point id.")],
    run: Annotated[str | None, typer.Option("--run", help="Run number or id; default: the newest.")] = None,
    output: Annotated[Output, typer.Option("--format", help="What stdout gets.")] = Output.HUMAN,
    store: StoreUrl = "sqlite:///kprof.db",
) -> None:
    """Print one result with its evidence: facts per rank, checks, live KV accounting, failure."""
    from orchestrator.cli.store_commands import print_result

    print_result(store, run, point, as_json=output is Output.JSON)


@app.command(epilog="Example: kprof logs qwen3-32b-tp1 | less")
def logs(
    point: Annotated[str, typer.Argument(help="Point id.")],
    run: Annotated[str | None, typer.Option("--run", help="Run number or id; default: the newest.")] = None,
    store: StoreUrl = "sqlite:///kprof.db",
) -> None:
    """Print the stored log of a point: raw but for secrets; a terminal gets no control characters."""
    from orchestrator.cli.store_commands import print_log

    print_log(store, run, point)


@app.command(epilog="Example: kprof doctor matrices/h100.yaml -n profiling")
def doctor(
    matrix: Annotated[Path | None, typer.Argument(help="Matrix whose points shall run.", metavar="[MATRIX]")] = None,
    on: Annotated[Target, typer.Option("--on", help="Where to look.")] = Target.KUBERNETES,
    only: Only = None,
    simulate: Simulate = False,
    output: Annotated[Output, typer.Option("--format", help="What stdout gets.")] = Output.HUMAN,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Say whether a cluster can run a sweep: access, devices, quota, secrets, images; and what mends it."""
    from orchestrator.cli.clusters import Where
    from orchestrator.cli.doctor_command import examine

    where = Where(on is Target.LOCAL, None if kubeconfig is None else str(kubeconfig), context, namespace)
    code = examine(where, matrix, tuple(only or ()), simulate=simulate, as_json=output is Output.JSON)
    raise typer.Exit(code)


@app.command(epilog="Example: kprof clean -n profiling --dry-run")
def clean(
    on: Annotated[Target, typer.Option("--on", help="Where to look.")] = Target.KUBERNETES,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, remove nothing.")] = False,
    output: Annotated[Output, typer.Option("--format", help="What stdout gets.")] = Output.HUMAN,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Remove what kprof created and nobody drives: pods, anchors and Leases. Results stay; a sweep can be resumed."""
    from orchestrator.cli.clean_command import clean_up
    from orchestrator.cli.clusters import Where

    where = Where(on is Target.LOCAL, None if kubeconfig is None else str(kubeconfig), context, namespace)
    raise typer.Exit(clean_up(where, dry_run=dry_run, as_json=output is Output.JSON))


@app.command(epilog="Example: kubectl logs my-vllm | kprof parse -")
def parse(
    files: Annotated[
        list[str] | None, typer.Argument(help="Log files; - or nothing reads stdin.", metavar="[LOG]...")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="The /metrics page of the same server; the last start-up is checked against it.", metavar="FILE"
        ),
    ] = None,
    unread: Annotated[
        bool, typer.Option("--unread", help="Show the lines that look like memory figures and were not understood.")
    ] = False,
    output: Annotated[Output, typer.Option("--format", help="What stdout gets.")] = Output.HUMAN,
) -> None:
    """Read any vLLM log: one result for each start-up found. No cluster and no store are needed."""
    from orchestrator.cli.parse_command import parse_files, show_unread

    names = files or ["-"]
    as_json = output is Output.JSON
    raise typer.Exit(show_unread(names, as_json=as_json) if unread else parse_files(names, metrics, as_json=as_json))


def main() -> NoReturn:
    """Run the command line; every KprofError becomes one message and its exit code."""
    try:
        app(standalone_mode=True)
    except KprofError as error:
        from orchestrator.cli.console import told

        typer.echo(f"error: {told(error)}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away; nothing is left to say
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
