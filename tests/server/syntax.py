"""A command's syntax as redis.io writes it, from the arguments that COMMAND DOCS describes (protocol 3)."""

from typing import Any


def syntax(name: str, arguments: list[dict[str, Any]]) -> str:
    """`LB.WEIGHT key backend [weight [backend weight ...]]`"""
    return " ".join([name, *map(argument, arguments)])


def argument(described: dict[str, Any]) -> str:
    """One argument: optional ones in brackets, a choice with bars, repeated ones with dots."""
    flags = described.get("flags", [])
    choice = described["type"] == "oneof"
    inner = [argument(part) for part in described.get("arguments", [])]
    if choice:
        text = " | ".join(inner)
        if "optional" not in flags or "token" in described:
            text = f"<{text}>"
    elif inner:
        text = " ".join(inner)
    elif described["type"] == "pure-token":
        text = ""
    else:
        text = described.get("display_text", described["name"])

    with_token = f"{described.get('token', '')} {text}".strip()
    if "multiple" in flags:
        again = with_token if "multiple_token" in flags else text
        with_token += f" [{again} ...]"
    return f"[{with_token}]" if "optional" in flags else with_token
