"""The broker's accounts as the plugin's file has them: who is there, with whose password, and what it may do."""

import json
from typing import Any

import pytest

from plugins.filter.mosquitto_accounts import mosquitto_accounts

GENERATED = {"pi1": "pi1-made", "pi2": "pi2-made", "posture-analyzer-pi1": "a-made", "board": "b-made", "old": "o-made"}


def accounts(given: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return mosquitto_accounts(
        GENERATED, given=given or {}, pis=["pi1", "pi2"], streams=["pi1"], readers=["board"], **more
    )


def client(name: str, file: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [each for each in file["clients"] if each["username"] == name]
    return found


def rights(name: str, file: dict[str, Any]) -> set[tuple[str, str]]:
    [role] = [each for each in file["roles"] if each["rolename"] == name]
    assert client(name, file)["roles"] == [{"rolename": name}]
    assert all(acl["allow"] for acl in role["acls"])
    return {(acl["acltype"], acl["topic"]) for acl in role["acls"]}


def test_a_second_run_changes_nothing_and_the_file_holds_no_password() -> None:
    text = json.dumps(accounts())
    assert text == json.dumps(accounts())
    assert not [word for word in GENERATED.values() if word in text]


def test_another_password_or_user_has_another_salt() -> None:
    salts = [each["salt"] for each in accounts()["clients"]]
    assert len(set(salts)) == len(salts)
    assert client("pi1", accounts({"pi1": "mine"}))["salt"] not in salts
    same = mosquitto_accounts({"pi1": "x", "pi2": "x"}, given={}, pis=["pi1", "pi2"])
    assert client("pi1", same)["salt"] != client("pi2", same)["salt"]


@pytest.mark.parametrize("given", [{}, {"pi1": ""}, {"pi1": "pi1-made"}])
def test_generated_passwords_are_cheap_to_check(given: dict[str, str]) -> None:
    assert {each["iterations"] for each in accounts(given)["clients"]} == {101}


def test_given_ones_are_stretched() -> None:
    file = accounts({"pi1": "mine", "posture-analyzer-pi1": "mine too"})
    stretched = {each["username"] for each in file["clients"] if each["iterations"] == 10_000}
    assert stretched == {"pi1", "posture-analyzer-pi1"}


def test_who_is_not_there_any_more_has_no_account() -> None:
    assert [each["username"] for each in accounts()["clients"]] == ["board", "pi1", "pi2", "posture-analyzer-pi1"]
    assert client("posture-offloader", accounts(with_offloader=True))


def test_without_a_password_nobody_gets_in() -> None:
    assert not {"password", "salt"} & client("posture-offloader", accounts(with_offloader=True)).keys()


def test_what_is_not_listed_is_refused() -> None:
    assert accounts()["defaultACLAccess"] == {
        "publishClientSend": False,
        "publishClientReceive": False,
        "subscribe": False,
        "unsubscribe": True,
    }


def test_a_pi_has_its_id_its_images_and_its_results() -> None:
    file = accounts()
    assert client("pi1", file)["clientid"] == "pi1"
    assert rights("pi1", file) == {
        ("publishClientSend", "images/pi1"),
        ("subscribePattern", "posture/results/pi1"),
        ("publishClientReceive", "posture/results/pi1"),
    }


def test_the_analyzers_of_all_pis_take_the_images_of_all_pis() -> None:
    file = mosquitto_accounts({}, given={}, streams=["all"])
    assert {topic for _, topic in rights("posture-analyzer-all", file)} == {
        "images/+",
        "posture/results/+",
        "posture/streams/all/#",
        "posture/streams/all/+/status",
        "posture/streams/all/trial",
        "$SYS/broker/#",
    }


def test_a_reader_writes_nothing_and_sees_no_pictures() -> None:
    found = rights("board", accounts())
    assert {right for right, _ in found} == {"subscribePattern", "publishClientReceive"}
    assert not [topic for _, topic in found if topic.startswith(("images", "$", "#"))]
