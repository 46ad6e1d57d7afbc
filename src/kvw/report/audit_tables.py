"""What an audit found, as a table."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from kvw.records.audit import AttackLine, AuditRecord, Share
from kvw.report.terminal import console, number_table, print_warning
from kvw.runs.audit.plan import AuditPlan

STYLES = {"comes back": "red", "holds": "green", "says nothing": "yellow"}


def print_audit(record: AuditRecord, out: Path) -> None:
    """The attacks, what was not made, and the verdict."""
    screen = console()
    edit = f" with {record.edit_method or 'an edit'}" if record.edit_digest else ""
    screen.print(audit_table(record, f"{record.model.name}{edit}: what comes back"))
    for name, why in record.left_out.items():
        screen.print(f"Not made: {name}, because {why}.")
    for line in record.lines:
        for losses in line.now.losses:
            screen.print(
                f"{line.attack}: training loss {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last."
            )
    for warning in record.warnings:
        print_warning(screen, warning)
    screen.print(Text(" ".join(record.verdict), style="bold"))
    screen.print(f"Every question and answer is in {out}/audit.json, which is confidential; audit.html is its page.")


def print_audit_plan(plan: AuditPlan) -> None:
    """Which attacks would be made, and how long they take."""
    screen, title = console(), f"{plan.model}: attacks on {plan.asked} questions"
    table = number_table("attack", "what is done", "models", "about", left=["what is done"], title=title)
    for attack in plan.attacks:
        table.add_row(attack.attack, attack.title, str(attack.models), _long(attack.seconds))
    screen.print(table)
    for name, why in plan.left_out.items():
        screen.print(f"Not made: {name}, because {why}.")
    screen.print(
        f"In all about {_long(plan.seconds)} on this machine, less what earlier audits have left in the cache."
    )


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def audit_table(record: AuditRecord, title: str) -> Table:
    """One row for each attack."""
    table = number_table("attack", "questions", "original", "now", "floor", "verdict", left=["verdict"], title=title)
    for line in record.lines:
        table.add_row(
            line.attack,
            str(line.now.questions),
            shown(line.original),
            shown(line.now),
            floor(line),
            Text(line.verdict, style=STYLES[line.verdict]),
        )
    return table


def shown(share: Share | None) -> str:
    """A share: in percent, or the area under the curve; ``-`` if it is not known."""
    if share is None:
        return "-"
    return f"{share.share:.2f}" if share.found is None else f"{share.share:.0%}"


def floor(line: AttackLine) -> str:
    """The floor of an attack, with what it is if it was not measured."""
    value = f"{line.floor:.2f}" if line.now.found is None else f"{line.floor:.0%}"
    return f"{value} (chance)" if line.floor_by == "chance" else "none" if line.floor_by == "nothing" else value
