"""The lab's command line: `python -m tests.lab up`, and the power switches and cables of its machines."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab import load
from tests.lab.lab import Lab
from tests.lab.published import publish
from tests.lab.settings import FIVE, KINDS, from_environment
from tests.lab.tools import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(Lab(from_environment()), options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; make lab-down clears up what is there", file=sys.stderr)
        return 130
    return 0


def _run(lab: Lab, options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            lab.up(options.names or FIVE)
            print(lab.status())
        case "down":
            lab.down()
        case "status":
            print(lab.status())
        case "power-on":
            lab.power_on(options.name)
        case "power-off":
            lab.power_off(options.name)
        case "cut-link":
            lab.set_link(options.name, up=False)
        case "restore-link":
            lab.set_link(options.name, up=True)
        case "load-image":
            print(lab.load_image(options.name, options.tar), end="")
        case "images":
            for target, image in publish(lab, options.inventory).items():
                print(f"{target}  {image}")
        case "set-load":
            load.set_load(lab.machine(options.name), dict(options.values))
        case "ssh":
            command = lab.machine(options.name).ssh_command()
            os.execvp(command[0], [*command, *options.words])  # noqa: S606 - it becomes ssh, with this terminal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Real machines and a real Kubernetes on this computer: docs/lab.md"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring machines up and leave them up")
    up.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(FIVE)} where none is named")
    commands.add_parser("down", help="take all of it away, or what a killed run left")
    commands.add_parser("status", help="show the machines and how to reach them")
    named = {
        "power-on": f"switch a machine on; fresh and laptop are made at the first time ({', '.join(KINDS)})",
        "power-off": "pull a machine's plug; its disk stays",
        "cut-link": "pull a machine's network cable",
        "restore-link": "plug it in again",
        "load-image": "import a container image into a node",
        "set-load": "make a node play a load, in percent: gpu=70 cpu=20 memory=40",
        "ssh": "a shell on a machine, or one command",
    }
    parsers = {name: commands.add_parser(name, help=text) for name, text in named.items()}
    for each in parsers.values():
        each.add_argument("name", metavar="NAME")
    images = commands.add_parser("images", help="build this checkout's images on laptop and let the nodes pull them")
    images.add_argument("inventory", type=Path, metavar="INVENTORY", help="where to record them: inventory/lab")
    parsers["load-image"].add_argument("tar", type=Path, metavar="TAR", help="as `docker save` writes it")
    parsers["set-load"].add_argument("values", nargs="+", type=_value, metavar="METRIC=PERCENT")
    parsers["ssh"].add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def _value(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a metric and its percent, such as gpu=70") from None


if __name__ == "__main__":
    sys.exit(main())
