"""What is wrong with a role's variables is said before anything is touched, and without a password."""

from pathlib import Path

from tests.support.plays import Task, refusals, refused, role, run_play
from tests.support.waiting import free_port

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
