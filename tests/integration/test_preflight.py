"""What is wrong with a role's variables is said before anything is touched, and without a password."""

import json
from pathlib import Path

from tests.support.plays import Task, refusals, refused, role, run_play
from tests.support.waiting import free_port

ROLES = Path(__file__).parents[2] / "roles"
SECRET = "Geheim"
PORTS = {"posture_mqtt_port": free_port(), "posture_mqtt_pi_port": free_port()}
URLS = {
    "slash": f"postgresql://posture:{SECRET}/1@db.example.org:5432/posture",
    "at": f"postgresql://posture:{SECRET}@2@db.example.org:5432/posture",
    "question": f"postgresql://posture:{SECRET}?3@db.example.org:5432/posture",
    "number sign": f"postgresql://posture:{SECRET}#4@db.example.org:5432/posture",
    "bracket": f"postgresql://posture:{SECRET}[5@db.example.org:5432/posture",
    "port": f"postgresql://posture:{SECRET}@db.example.org:{SECRET}/posture",
    "scheme": f"mysql://posture:{SECRET}@db.example.org:5432/posture",
    "none": SECRET,
}


def test_a_url_that_is_none_is_refused_without_a_piece_of_its_password(tmp_path: Path) -> None:
    attempts = {name: role("database", {"posture_database_url": url}) for name, url in URLS.items()}
    ran = run_play(tmp_path, refusals(tmp_path, attempts), groups=["broker", "database"], arguments=["-vvv"])
    said = refused(tmp_path)
    for name in URLS:
        assert (said[name] or "").startswith("posture_database_url must look like postgresql://user"), (name, said)
    assert SECRET not in ran.stdout + ran.stderr


def test_cameras_outside_the_inventory_need_right_ids_and_no_pis(tmp_path: Path) -> None:
    def preflight(camera: str, pis: list[str] | None = None) -> Task:
        variables = {"posture_camera_passwords": {camera: SECRET}, "__common_pi_ids": pis or []}
        return role("broker", PORTS | variables, tasks_from="preflight")

    attempts = {
        "fine": preflight("Lab_Cam-7"),
        "ours": preflight("posture-analyzer"),
        "topic": preflight("desk/7"),
        "long": preflight("x" * 65),
        "beside Pis": preflight("desk-7", pis=["pi1"]),
    }
    ran = run_play(tmp_path, refusals(tmp_path, attempts), groups=["broker", "database"], arguments=["-vvv"])
    said = refused(tmp_path)
    assert said.pop("fine") is None
    for name, message in said.items():
        assert (message or "").startswith("posture_camera_passwords ("), (name, message)
        assert "an inventory without Pis" in (message or "")
    assert SECRET not in ran.stdout + ran.stderr


def test_readers_have_names_of_their_own(tmp_path: Path) -> None:
    def preflight(reader: str) -> Task:
        variables = {"posture_mqtt_readers": [reader], "__common_pi_ids": ["pi1"]}
        return role("broker", PORTS | variables, tasks_from="preflight")

    names = ("board_1", "pi1", "posture-offloader", "bo/ard", "")
    run_play(tmp_path, refusals(tmp_path, {name: preflight(name) for name in names}), groups=["broker", "database"])
    said = refused(tmp_path)
    assert said.pop("board_1") is None
    for name, message in said.items():
        assert (message or "").startswith(f"posture_mqtt_readers ({name}) needs names"), (name, message)


def _kubernetes(tmp_path: Path, groups: list[str], **variables: str) -> str:
    """Return what is said of an inventory with group offloader, of one machine."""
    attempt = role("common", {"posture_prometheus_url": "http://10.0.0.1:9090"} | variables)
    run_play(tmp_path, refusals(tmp_path, {"it": attempt}), groups=["broker", "database", "offloader", *groups])
    return refused(tmp_path)["it"] or ""


def test_where_kubernetes_runs_the_analyzers_they_are_nothing_else(tmp_path: Path) -> None:
    assert "in group 'analyzers' and localhost in group 'offloader'" in _kubernetes(tmp_path, ["home", "analyzers"])


def test_pods_need_an_address_that_they_can_reach(tmp_path: Path) -> None:
    said = _kubernetes(tmp_path, ["home"])
    assert said.startswith("Pods cannot reach the broker at localhost and the database at localhost: ")
    assert "Set posture_address of localhost to the address by which other machines reach it" in said


def test_pods_are_not_told_to_reach_a_given_service_at_their_own_address(tmp_path: Path) -> None:
    given = {
        "posture_address": "10.0.0.1",
        "posture_database_url": f"postgresql://posture:{SECRET}@127.0.0.1:5432/posture",
        "posture_prometheus_url": f"http://user:{SECRET}@localhost:9090",
    }
    said = _kubernetes(tmp_path, ["home"], **given)
    assert "Set posture_address of localhost and posture_database_url and posture_prometheus_url to " in said
    assert SECRET not in said


def test_a_url_of_prometheus_that_is_none_is_refused_without_a_piece_of_its_password(tmp_path: Path) -> None:
    odd = {"slash": "/1", "question": "?2", "number sign": "#3"}
    attempts = {
        name: role("common", {"posture_prometheus_url": f"http://user:{SECRET}{part}@10.0.0.1:9090"})
        for name, part in odd.items()
    }
    run_play(tmp_path, refusals(tmp_path, attempts), groups=["broker", "database", "offloader", "home"])
    for message in refused(tmp_path).values():
        assert "posture_prometheus_url must look like http://10.0.0.2:9090" in (message or "")
        assert SECRET not in (message or "")


def test_a_password_in_the_url_of_prometheus_is_left_out_where_that_is_shown(tmp_path: Path) -> None:
    shown = {
        f"http://user:{SECRET}@{SECRET}@h:9090": "http://h:9090",
        f"https://user:{SECRET}:@[::1]/at%40": "https://[::1]/at%40",
        "http://h:9090/a": "http://h:9090/a",
    }
    tasks: list[Task] = [{"ansible.builtin.include_vars": {"file": str(ROLES / "common/vars/main.yml")}}]
    for number, url in enumerate(shown):
        copy = {"content": "{{ __common_prometheus_shown }}", "dest": str(tmp_path / f"shown-{number}"), "mode": "0644"}
        tasks.append({"ansible.builtin.copy": copy, "vars": {"posture_prometheus_url": url}})
    ran = run_play(tmp_path, tasks)
    assert ran.returncode == 0, ran.stdout
    assert [(tmp_path / f"shown-{number}").read_text() for number in range(len(shown))] == list(shown.values())


def test_the_offloader_needs_nodes_and_their_loads(tmp_path: Path) -> None:
    said = _kubernetes(tmp_path, [], posture_prometheus_url="")
    assert "but no nodes: put the machines that Kubernetes runs the analyzers on into the groups 'home'" in said
    assert "The offloader needs a Prometheus that knows the nodes' loads" in said


def test_a_cluster_that_cannot_be_asked_is_said_to_be_so(tmp_path: Path) -> None:
    clusters = {"not there": None, "empty": "", "no kubeconfig": "a: b", "refused": _kubeconfig(free_port())}
    attempts = {}
    for name, content in clusters.items():
        file = tmp_path / name
        if content is not None:
            file.write_text(content)
        variables = {"posture_kubeconfig": str(file), "posture_state": "absent"}
        attempts[name] = role("common", variables, tasks_from="cluster")
    groups = ["broker", "database", "home", "offloader"]
    ran = run_play(tmp_path, refusals(tmp_path, attempts), groups=groups, arguments=["-vvv"])
    said = {name: message or "" for name, message in refused(tmp_path).items()}
    assert (
        "is not there on the machine that runs the playbooks: put the cluster's kubeconfig there" in said["not there"]
    )
    assert "cannot be read on the machine that runs the playbooks" in said["empty"]
    assert "that is no kubeconfig with a current context" in said["no kubeconfig"]
    assert "Connection refused" in said["refused"]
    assert "the cluster cannot be reached: start it" in said["refused"]
    assert all(message.endswith("add '--skip-tags nodes,offloader'.") for message in said.values()), said
    assert SECRET not in ran.stdout + ran.stderr


def test_without_images_the_build_is_named(tmp_path: Path) -> None:
    attempt = role("common", {"__common_images": {"analyzer": "x"}}, tasks_from="images")
    run_play(tmp_path, refusals(tmp_path, {"it": attempt}), groups=["broker", "database", "home"])
    said = refused(tmp_path)["it"] or ""
    assert said.startswith(f"{tmp_path}/.images.json does not name the images of analyzer and offloader: run")
    assert "playbooks/build.yml first" in said


def _kubeconfig(port: int) -> str:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    user = {"name": "u", "user": {"token": SECRET}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [user],
            "contexts": [context],
            "current-context": "x",
        }
    )


def test_cameras_without_tls_and_authorities_are_checked(tmp_path: Path) -> None:
    def preflight(**variables: object) -> Task:
        ports = PORTS | {"posture_mqtt_tls_port": free_port(), "posture_mqtt_tls_pi_port": free_port()}
        return role("broker", ports | {"__common_pi_ids": ["pi1"]} | variables, tasks_from="preflight")

    attempts = {
        "fine": preflight(posture_mqtt_plain_cameras=["pi1"]),
        "none": preflight(posture_mqtt_plain_cameras=[]),
        "camera": preflight(posture_mqtt_plain_cameras=["pi9"]),
        "port": preflight(posture_mqtt_tls_port=PORTS["posture_mqtt_port"]),
        "certificate": preflight(posture_mqtt_tls_ca="/ca.crt"),
        "authority": role("common", {"posture_ca_cert": "/ca.crt"}),
    }
    run_play(tmp_path, refusals(tmp_path, attempts), groups=["broker", "database"])
    said = {name: message or "" for name, message in refused(tmp_path).items()}
    assert said.pop("fine") == said.pop("none") == ""
    assert said["camera"].startswith("posture_mqtt_plain_cameras (pi9) needs ids of Pis")
    assert said["port"].startswith("The broker needs a port for each of posture_mqtt_port")
    assert "all of posture_mqtt_tls_ca, posture_mqtt_tls_cert and" in said["certificate"]
    assert said["authority"].startswith("An authority is a certificate and its key")
