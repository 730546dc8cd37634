"""Who may do what: rules on keys, commands and categories."""

import pytest
import redis

from commands import COMMANDS

every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def as_user(server, client):
    """A function that makes a user with these rules and answers a client of theirs."""
    client.execute_command("LB.ADD web a 5 b 1")
    client.execute_command("LB.ADD pool:1 a 5 b 1")

    def login(*rules):
        client.execute_command("ACL", "SETUSER", "gateway", "reset", "on", ">secret", *rules)
        return server.client(username="gateway", password="secret")

    yield login
    client.acl_deluser("gateway")


def may(user, command) -> bool:
    try:
        user.execute_command(command)
    except redis.exceptions.NoPermissionError:
        return False
    except redis.ResponseError:
        pass
    return True


def test_a_gateway_may_pick_from_its_pools_and_nothing_else(as_user):
    user = as_user("~pool:*", "+lb.pick")
    assert user.execute_command("LB.PICK pool:1 COUNT 3") == ["a", "a", "a"]
    assert not may(user, "LB.PICK web")
    for name, command in COMMANDS.items():
        if name != "LB.PICK":
            assert not may(user, command.form.replace("web", "pool:1")), name
    assert not may(user, "GET pool:1")


@pytest.mark.needs("7.0", "rules that tell reading from writing")
def test_rules_on_keys_tell_reading_from_writing(as_user):
    user = as_user("%R~pool:*", "+@all")
    assert may(user, "LB.PEEK pool:1")
    assert may(user, "LB.STATS pool:1")
    assert may(user, "LB.LEASES pool:1")
    assert may(user, "LB.WHEN pool:1")
    assert not may(user, "LB.PICK pool:1")
    assert not may(user, "LB.DONE pool:1 7-1")
    assert not may(user, "LB.ADD pool:1 c")
    user = as_user("%W~pool:*", "+@all")
    assert may(user, "LB.ADD pool:1 c")
    assert may(user, "LB.REM pool:1 c")
    assert not may(user, "LB.PICK pool:1"), "a pick answers what is there, so it reads too"
    assert not may(user, "LB.LIST pool:1")


@pytest.mark.needs("redis 7.2", "categories for commands of modules")
@every_command
def test_categories(as_user, command):
    """A command is in the categories of its like, and a user with one of them may run it."""
    for category in ["@read", "@write", "@fast", "@slow", "@dangerous"]:
        user = as_user("~*", "-@all", f"+{category}")
        assert may(user, command.form) == (category in command.categories), category


@pytest.mark.needs("redis 7.4", "categories of a module's own")
@every_command
def test_the_category_of_the_module(as_user, command):
    assert may(as_user("~*", "-@all", "+@lb"), command.form)
    assert not may(as_user("~*", "+@all", "-@lb"), command.form)


@pytest.mark.needs("redis 7.2", "categories for commands of modules")
def test_without_dangerous_commands_no_pool_is_loaded(as_user):
    user = as_user("~*", "+@all", "-@dangerous")
    assert not may(user, "LB.LOAD web x")
    assert may(user, "LB.PICK web")
