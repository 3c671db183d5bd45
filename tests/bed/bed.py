"""The command line of the test bed: `python3 tests/bed/bed.py build|up|down|status|image|kubeconfig`."""

import argparse
import sys
from pathlib import Path

# As a script, this file has its own folder in the search path and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bed import cluster
from tests.bed.errors import BedError, MissingError
from tests.bed.layout import CHECKOUT, layout

EXIT_FAILED = 1
EXIT_MISSING = 3


def main() -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 3 if this machine lacks a part."""
    parser = argparse.ArgumentParser(description="A real Kubernetes on this machine, removed without trace.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="put all programs into the cache")
    up = commands.add_parser("up", help="start the cluster and wait until it can run pods")
    up.add_argument("--gpus", type=int, default=8, help="GPUs that the node advertises (default: 8)")
    up.add_argument("--fresh", action="store_true", help="remove a running bed first")
    up.add_argument("--keep", action="store_true", help="leave a failed start in place, to look at it")
    up.add_argument("--no-image", action="store_true", help="leave the simulator's image out")
    image = commands.add_parser("image", help="make the simulator's image, and import it into a running bed")
    for command in (up, image):
        command.add_argument("--project", type=Path, default=CHECKOUT, help="the checkout that goes into the image")
    commands.add_parser("down", help="remove the cluster and all that belongs to it")
    commands.add_parser("status", help="say how the cluster is; exit 1 if it is not running")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    options = parser.parse_args()
    try:
        return _run(options)
    except MissingError as error:
        print(f"no test bed here: {error}", file=sys.stderr)
        return EXIT_MISSING
    except BedError as error:
        print(f"the test bed failed: {error}", file=sys.stderr)
        return EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        print(cluster.build().kubectl.parent)
    elif options.command == "up":
        project = None if options.no_image else options.project.resolve()
        state = cluster.up(gpus=options.gpus, fresh=options.fresh, keep=options.keep, project=project)
        print(f"export KUBECONFIG={state.kubeconfig}")
    elif options.command == "image":
        print(cluster.image(options.project.resolve()))
    elif options.command == "down":
        print("the bed is gone without trace" if cluster.down() else "there is no bed")
    elif options.command == "kubeconfig":
        print(layout().kubeconfig)
    else:
        state = cluster.status()
        print(f"running: {state.running}  node ready: {state.node_ready}  GPUs: {state.gpus}")
        print(f"KUBECONFIG={state.kubeconfig}")
        return 0 if state.running else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
