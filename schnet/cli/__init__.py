"""`schnet VERB …`: every arrow of the workflow as a command a person can type."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from schnet import __version__
from schnet.device import choose_device
from schnet.errors import SchNetError
from schnet.parent import end_with_parent
from schnet.warm import run_warm


def parser() -> argparse.ArgumentParser:
    """The command line; every verb sets ``function``, which gets the parsed arguments."""
    from schnet.cli import analysis, data, results, runs, simulate  # not where a copy does the work

    main = argparse.ArgumentParser(
        prog="schnet", description="SchNet: data, training, evaluation, tables and figures."
    )
    main.add_argument("--version", action="version", version=f"schnet {__version__}")
    main.add_argument(
        "-v", "--verbose", action="store_true", help="show the full traceback of an error"
    )
    main.add_argument(
        "--workflow",
        metavar="DIR",
        help="folder with config.yaml and workflow/ (default: the working directory or above)",
    )
    verbs = main.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in (data, runs, simulate, analysis, results):
        group.add_verbs(verbs)
    return main


def main(argv=None) -> int:
    """Run one command; returns the exit status (2 for an error that the user can mend)."""
    argv = sys.argv[1:] if argv is None else argv
    status = run_warm(argv)
    if status is not None:
        return status
    args = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    end_with_parent()
    try:
        if hasattr(args, "device"):
            args.device = choose_device(args.device)
        args.function(args)
        return 0
    except KeyboardInterrupt:
        print("schnet: stopped; what was written is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `schnet … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SchNetError, OSError) as error:
        if args.verbose:
            raise
        print(f"schnet: error: {error}", file=sys.stderr)
        return 2
