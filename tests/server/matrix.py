"""Writes the table of servers from the run: what was tested on which, what was skipped and why.

Only a run of all tests on all servers in which none failed writes it, between the marks in tests/README.md.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

from servers import chosen

DOCUMENT = Path(__file__).parents[1] / "README.md"
START, END = "<!-- written by scripts/test --all -->\n", "<!-- end -->"


class Matrix:
    """What became of each test of a module on each server."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
        self.tested: set[str] = set()
        self.reasons: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report) -> None:
        server = next((b.name for b in chosen() if is_on(b.name, report.nodeid)), None)
        module = Path(report.location[0]).stem
        self.tested.add(module)
        if server and (report.when == "call" or report.skipped):
            self.outcomes[module][server][report.outcome] += 1
            if report.skipped:
                # What is known to fail counts as skipped.
                why = getattr(report, "wasxfail", None) or report.longrepr[2]
                self.reasons[reason(why)].add(server)

    def pytest_sessionfinish(self, exitstatus) -> None:
        all_tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
        if exitstatus == 0 and len(chosen()) > 1 and all_tests == self.tested:
            text = DOCUMENT.read_text()
            before, _, rest = text.partition(START)
            _, _, after = rest.partition(END)
            DOCUMENT.write_text(f"{before}{START}\n{self.table()}\n{END}{after}")

    def table(self) -> str:
        """The table in Markdown, with the reasons behind it."""
        servers = [binary.name for binary in chosen()]
        lines = ["| tests | " + " | ".join(servers) + " |", "|---" * (len(servers) + 1) + "|"]
        for module, outcomes in sorted(self.outcomes.items()):
            cells = [cell(outcomes[server]) for server in servers]
            lines.append(f"| {module.removeprefix('test_').replace('_', ' ')} | " + " | ".join(cells) + " |")
        lines += ["", "Skipped:", ""]
        for why, where in sorted(self.reasons.items()):
            lines.append(f"- {why} ({', '.join(server for server in servers if server in where)})")
        return "\n".join(lines) + "\n"


def is_on(server: str, test: str) -> bool:
    """Whether the test runs on that server. Other parameters may come before it."""
    return re.search(rf"[\[-]{re.escape(server)}[\]-]", test) is not None


def cell(outcomes: Counter) -> str:
    skipped = f", {outcomes['skipped']} skipped" if outcomes["skipped"] else ""
    return f"{outcomes['passed']} passed{skipped}"


def reason(text: str) -> str:
    """Why a test was skipped, without what differs from server to server."""
    return text.removeprefix("Skipped: ").split(" | ")[0]
