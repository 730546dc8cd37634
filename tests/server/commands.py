"""The commands of the module as they should be. test_description.py holds the table against a server."""

from typing import NamedTuple


class Command(NamedTuple):
    """What a server knows of a command, and a form of it.

    The form is not refused where there is no pool `web`, or only because there is none.
    """

    form: str
    arity: int
    flags: set[str]
    access: set[str]  # what it does to its key
    since: str = "0.1.0"
    is_dangerous: bool = False

    @property
    def categories(self) -> set[str]:
        """The ACL categories that follow from it."""
        categories = {"@read" if "readonly" in self.flags else "@write"}
        categories |= {"@fast" if "fast" in self.flags else "@slow"}
        return categories | ({"@dangerous"} if self.is_dangerous else set())


COMMANDS = {
    "LB.ADD": Command("LB.ADD web a", -3, {"write", "denyoom", "fast"}, {"RW", "update"}),
    "LB.SET": Command("LB.SET web a 1", -4, {"write", "denyoom"}, {"RW", "update"}),
    "LB.REM": Command("LB.REM web a", -3, {"write", "fast"}, {"RW", "delete"}),
    "LB.WEIGHT": Command("LB.WEIGHT web a", -3, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.STATE": Command("LB.STATE web a", -3, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.POLICY": Command("LB.POLICY web", -2, {"write", "denyoom", "fast"}, {"RW", "access", "update"}),
    "LB.LIST": Command("LB.LIST web", 2, {"readonly"}, {"RO", "access"}),
    "LB.CARD": Command("LB.CARD web", 2, {"readonly", "fast"}, {"RO"}),
    "LB.PICK": Command("LB.PICK web", -2, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.PEEK": Command("LB.PEEK web", -2, {"readonly", "fast"}, {"RO", "access"}),
    "LB.FORGET": Command("LB.FORGET web s", 3, {"write", "fast"}, {"RW", "access", "update"}, "0.4.0"),
    "LB.DONE": Command("LB.DONE web 7-1", -3, {"write", "fast"}, {"RW", "access", "update"}, "0.2.0"),
    "LB.REPORT": Command("LB.REPORT web a", -3, {"write", "fast"}, {"RW", "access", "update"}, "0.3.0"),
    "LB.RENEW": Command("LB.RENEW web 7-1 9", 4, {"write", "fast"}, {"RW", "access", "update"}, "0.2.0"),
    "LB.RELEASE": Command(
        "LB.RELEASE web OWNER o", 4, {"write", "fast"}, {"RW", "access", "update"}, "0.2.0"
    ),
    "LB.LEASES": Command("LB.LEASES web", -2, {"readonly"}, {"RO", "access"}, "0.2.0"),
    "LB.LIMIT": Command("LB.LIMIT web", -2, {"write"}, {"RW", "access", "update"}, "0.2.0"),
    "LB.HEALTH": Command("LB.HEALTH web", -2, {"write"}, {"RW", "access", "update"}, "0.3.0"),
    "LB.QUEUE": Command("LB.QUEUE web", -2, {"write"}, {"RW", "access", "update"}, "0.4.0"),
    "LB.WHEN": Command("LB.WHEN web", -2, {"readonly"}, {"RO", "access"}, "0.2.0"),
    "LB.INFO": Command("LB.INFO web", 2, {"readonly", "fast"}, {"RO", "access"}),
    "LB.STATS": Command("LB.STATS web", -2, {"readonly"}, {"RO", "access"}),
    "LB.TICK": Command("LB.TICK web 1", 3, {"write"}, {"RW", "update"}, "0.2.0"),
    "LB.SEED": Command("LB.SEED web 1", 3, {"write", "fast"}, {"RW", "update"}),
    "LB.EPOCH": Command("LB.EPOCH web 1", 3, {"write", "fast"}, {"RW", "update"}, "0.2.0"),
    "LB.RULES": Command("LB.RULES web 1", 3, {"write", "fast"}, {"RW", "update"}, "0.3.0"),
    "LB.LOAD": Command("LB.LOAD web x", -3, {"write", "denyoom"}, {"OW", "update"}, is_dangerous=True),
}
