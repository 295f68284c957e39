"""What a power cut could take: nothing of an image whose row is committed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from posture_analyzer import database as analyzer_database
from posture_analyzer.database import Inserted, Row
from posture_analyzer.pipeline import Pipeline
from posture_analyzer.settings import AnalyzerSettings
from posture_analyzer.trial import Trial
from posture_common.mqtt import Broker, Message
from posture_common.service import Stop
from pydantic import SecretStr

from tests.support.databases import Database
from tests.support.images import nobody
from tests.support.waiting import wait_until


class Nowhere:
    """A connection whose results nobody hears."""

    def publish(self, _topic: str, _text: str) -> Any:
        class Published:
            def add_done_callback(self, _callback: object) -> None:
                pass

        return Published()


def test_pictures_and_their_folders_are_on_the_disk_before_the_row_is_committed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def noting(name: str, word: str) -> None:
        original = getattr(os, name)

        def call(descriptor: int) -> None:
            events.append(f"{word} {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
            original(descriptor)

        monkeypatch.setattr(os, name, call)

    noting("fdatasync", "data of")
    noting("fsync", "names in")
    insert = analyzer_database.Database.insert

    def inserting(self: analyzer_database.Database, rows: Sequence[Row]) -> Inserted:
        if rows:
            events.append("commit")
        return insert(self, rows)

    monkeypatch.setattr(analyzer_database.Database, "insert", inserting)
    settings = AnalyzerSettings(
        stream="pi1", database_url=SecretStr(database.url), images_dir=tmp_path / "images", workers=1, passes=1
    )
    settings.images_dir.mkdir()
    trial = Trial(Broker(host="127.0.0.1", port=1), stream="pi1", workers=1)  # asked of by images that come again only
    with Pipeline(settings, Stop(), trial) as pipeline:
        pipeline.warm_up()
        acknowledged: list[bool] = []
        message = Message("images/pi1", nobody(), {"filename": "a.jpg"}, lambda: acknowledged.append(True))
        pipeline.take([message], Nowhere())  # type: ignore[arg-type]
        wait_until(lambda: acknowledged, timeout=20, describe=lambda: f"the image is acknowledged after {events}")
    assert events[0].startswith("data of .a-")
    assert events[1:] == ["names in images", "names in analyzed_images_from_pi1", "commit"]
