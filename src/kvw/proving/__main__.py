"""``python -m kvw.proving``: write requests, carry them out, and show what came of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvw.console import ConsoleReporter
from kvw.errors import UserError
from kvw.exit_codes import program
from kvw.models.checkpoint import find_checkpoint
from kvw.proving.parts import PARTS, WORLD
from kvw.proving.requests import HALVES, Request
from kvw.proving.run import ProvingGround
from kvw.proving.summary import summary
from kvw.proving.table import markdown, read_records


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = _parser().parse_args(arguments)
    if given.command == "table":
        names = [out.resolve().name for out in given.out]
        titles = names if len(set(names)) == len(names) else list(map(str, given.out))
        records = {title: read_records(out, given.half) for title, out in zip(titles, given.out, strict=True)}
        print(markdown(*records.values()) if len(records) == 1 else summary(records), end="")
        return
    part, reporter = PARTS[given.part], ConsoleReporter()
    checkpoint = find_checkpoint(given.model or part.model)
    requests = _chosen(part.requests(given.half, checkpoint, reporter), given.only)
    if given.command == "requests":
        for request in requests:
            request.write(given.out / request.half / request.name)
        print(f"{len(requests)} requests are in {given.out / given.half}")
        return
    # Of another model than the part's own there is none.
    gold = find_checkpoint(part.gold[given.half]) if part.gold and not given.model else None
    print(markdown(ProvingGround(checkpoint, given.out, given.options, reporter, gold).run(requests)), end="")


def _chosen(requests: Sequence[Request], numbers: Sequence[int] | None) -> list[Request]:
    """The requests of these numbers, or all.

    Raises:
        UserError: There is none of such a number.
    """
    unknown = sorted(set(numbers or ()) - {request.number for request in requests})
    if unknown:
        raise UserError("There is no such request.", found=str(unknown[0]), do=f"give 0 to {len(requests) - 1}")
    return [request for request in requests if numbers is None or request.number in numbers]


def _options(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(text)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kvw.proving", description="Prove unlearning on a pretrained model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    titles = {
        "requests": "write the data files of the requests",
        "run": "carry the requests out and record them",
        "table": "show what came of them",
    }
    for name, title in titles.items():
        command = commands.add_parser(name, help=title)
        command.add_argument("--half", choices=HALVES, required=True)
        several = {"nargs": "+", "help": "folders of requests and records; several give one column each"}
        single = {"help": "the folder of all requests and records"}
        command.add_argument("--out", type=Path, required=True, **(several if name == "table" else single))
        if name != "table":
            command.add_argument("--part", choices=PARTS, default=WORLD.name, help="which requests")
            command.add_argument("--model", help="as for kvw erase; without it the model of the part")
            command.add_argument("--only", type=int, nargs="+", metavar="N", help="the requests of these numbers")
    commands.choices["run"].add_argument(
        "--options",
        type=_options,
        default={},
        metavar="JSON",
        help='fields of kvw.runs.EraseRequest, for example {"method": "kvw", "settings": {"gamma": 0.1}}',
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
