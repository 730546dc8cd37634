"""Who may do what: rules on keys, commands and categories."""

import pytest
import redis

COMMANDS = {
    "LB.ADD web z": {"@write", "@fast"},
    "LB.SET web a 5 b 1": {"@write", "@slow"},
    "LB.REM web z": {"@write", "@fast"},
    "LB.WEIGHT web a": {"@write", "@fast"},
    "LB.STATE web a": {"@write", "@fast"},
    "LB.POLICY web": {"@write", "@fast"},
    "LB.LIST web": {"@read", "@slow"},
    "LB.CARD web": {"@read", "@fast"},
    "LB.PICK web": {"@write", "@fast"},
    "LB.PEEK web": {"@read", "@fast"},
    "LB.DONE web 7-1": {"@write", "@fast"},
    "LB.RENEW web 7-1 9": {"@write", "@fast"},
    "LB.RELEASE web OWNER o": {"@write", "@slow"},
    "LB.LEASES web": {"@read", "@slow"},
    "LB.LIMIT web": {"@write", "@slow"},
    "LB.WHEN web": {"@read", "@slow"},
    "LB.INFO web": {"@read", "@fast"},
    "LB.STATS web": {"@read", "@slow"},
    "LB.TICK web 1": {"@write", "@fast"},
    "LB.SEED web 1": {"@write", "@fast"},
    "LB.EPOCH web 1": {"@write", "@fast"},
    "LB.LOAD web x": {"@write", "@slow", "@dangerous"},
}


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
    for command in COMMANDS:
        if command != "LB.PICK web":
            assert not may(user, command.replace("web", "pool:1")), command
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
@pytest.mark.parametrize("command", COMMANDS)
def test_categories(as_user, command):
    """A command is in the categories of its like, and a user with one of them may run it."""
    for category in ["@read", "@write", "@fast", "@slow", "@dangerous"]:
        user = as_user("~*", "-@all", f"+{category}")
        assert may(user, command) == (category in COMMANDS[command]), category


@pytest.mark.needs("redis 7.4", "categories of a module's own")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_category_of_the_module(as_user, command):
    assert may(as_user("~*", "-@all", "+@lb"), command)
    assert not may(as_user("~*", "+@all", "-@lb"), command)


@pytest.mark.needs("redis 7.2", "categories for commands of modules")
def test_without_dangerous_commands_no_pool_is_loaded(as_user):
    user = as_user("~*", "+@all", "-@dangerous")
    assert not may(user, "LB.LOAD web x")
    assert may(user, "LB.PICK web")
