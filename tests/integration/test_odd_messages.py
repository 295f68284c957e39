"""Thousands of messages that nobody means well, to a broker, an analyzer and an offloader's board: none ends anything.

POSTURE_TEST_ODD_MESSAGES is their number, POSTURE_TEST_ODD_SEED where they begin.
"""

import base64
import json
import os
import random
import string
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from posture_common.mqtt import Broker as Address
from posture_common.service import Stop
from posture_offloader.board import Board

from tests.support import programs
from tests.support.brokers import OFFLOADER, Broker
from tests.support.cameras import Camera
from tests.support.databases import Database
from tests.support.images import Shot, nobody, photograph
from tests.support.odd import Block, Stranger, pairs
from tests.support.programs import Program
from tests.support.waiting import wait_until

COUNT = int(os.environ.get("POSTURE_TEST_ODD_MESSAGES", "2000"))
SEED = int(os.environ.get("POSTURE_TEST_ODD_SEED", "12"))
AT_ONCE = 200
IMAGES = [nobody(), nobody(8, 8), photograph("camera")]
STARTS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x24\0\0\0WEBP",
    b"BM",
    b"GIF89a",
    b"{",
    b'["/9j/',
    b"b'",
    b"data:",
]
WORDS = [
    "image_id",
    "captured_at",
    "seq",
    "filename",
    "mark",
    "",
    "x" * 300,
    "\ufeff",
    "é",
    "../../etc",
    "NaN",
    "1e999",
]
TIMES = ["1970-01-01", "9999-12-31T23:59:60Z", "2026-02-30", "-1", "2026-05-04T09:00:00+99:99", "2026W011"]


class Odd:
    """Makes odd messages, always the same for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def topic(self) -> str:
        """Return a topic of images, mostly of pi1, else of the streams' epochs or results."""
        chance = self._random
        epoch = chance.choice(["3", "0", "10" * 9, "9" * 5000, "x", ""])
        return chance.choice(
            4 * ["images/pi1"]
            + ["images/pi-2", "images/", f"images/{self.text(80)}", "images/pi1/x", "images/" + "a" * 60_000]
            + [
                "posture/streams/all/assignment",
                f"posture/streams/all/{epoch}/status",
                f"posture/streams/{self.text(9)}",
            ]
            + ["posture/results/pi1"]
        )

    def payload(self) -> bytes:
        """Return an image with damage, something that begins like one, JSON of ours with odd values, or noise."""
        chance = self._random
        noise = chance.randbytes(int(10 ** chance.uniform(0, 4)))
        image = bytearray(chance.choice(IMAGES[: 2 if chance.random() < 0.95 else 3]))
        for _ in range(chance.randrange(4)):
            image[chance.randrange(len(image))] = chance.randrange(256)
        said = {
            "epoch": chance.choice([3, -1, 10**18, "3", None, 1e300, [[]]]),
            "node": chance.choice(["agx", None, "n" * 9000, 7, {}]),
            "state": chance.choice(["active", "asleep", 1]),
        }
        return chance.choice(
            [
                bytes(image),
                base64.b64encode(image),
                bytes(image[: chance.randrange(len(image))]),
                chance.choice(STARTS) + noise,
                noise,
                b"",
                json.dumps(said).encode(),
                b"[" * len(noise),
                json.dumps({"image": base64.b64encode(image).decode()}).encode()[: chance.randrange(1, 9000)],
            ]
        )

    def properties(self) -> Block:
        """Return properties that a broker takes: texts of any kind, and sometimes a great many."""
        chance = self._random
        if chance.random() < 0.02:
            return pairs(chance.choice([3000, 30_000]), chance.choice([0, 1, 20]))
        block = b"".join(
            b"\x26" + self.written(chance.choice(WORDS)) + self.written(chance.choice([*WORDS, *TIMES, self.text(400)]))
            for _ in range(chance.randrange(6))
        )
        others = chance.choice(
            [b"", b"\x01\x00", b"\x02\xff\xff\xff\xff", b"\x03\0\1a", b"\x08\0\1a", b"\x09\0\2\0\xff"]
        )
        return Block(others + block)

    def text(self, longest: int) -> str:
        """Return letters, signs and what is written from right to left; nothing that a topic may not have."""
        letters = string.ascii_letters + string.digits + " .-_%äß漢字😀\u202e\u200b\ufeff'\";\\"
        return "".join(self._random.choices(letters, k=self._random.randrange(1, longest)))

    def written(self, words: str) -> bytes:
        """Return a text as MQTT writes it."""
        return len(words.encode()).to_bytes(2) + words.encode()


@pytest.mark.timeout(60 + COUNT)
def test_no_odd_message_ends_anything(
    each_broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    odd, chance = Odd(SEED), random.Random(SEED)  # noqa: S311 - no secret
    analyzer = run(programs.analyzer(each_broker, database, tmp_path, stream="all", EPOCH="", LOG_LEVEL="WARNING"))
    address = Address(
        host="127.0.0.1", port=each_broker.port, user=OFFLOADER, password=each_broker.passwords[OFFLOADER]
    )
    changed = threading.Event()
    with (
        Board(address, Stop(), changed=changed.set, clock=time.time) as board,
        Stranger(each_broker) as stranger,
        Camera(each_broker, "pi2") as camera,
    ):
        for begun in range(0, COUNT, AT_ONCE):
            for _ in range(min(AT_ONCE, COUNT - begun)):
                stranger.throw(
                    odd.topic(),
                    odd.payload(),
                    properties=odd.properties(),
                    qos=chance.choice([0, 1, 1, 2]),
                    retain=chance.random() < 0.1,
                )
            stranger.wait()
            shot = Shot(data=nobody(40 + begun // AT_ONCE % 100, 41))
            camera.send([shot])
            wait_until(
                lambda: shot.image_id in {row["image_id"] for row in database.rows()},  # noqa: B023
                timeout=60,
                describe=lambda: f"pi2's image has its row; the analyzer says: {analyzer.output[-3000:]}",
            )
        assert (board.failure, board.synced_since is None) == (None, False)
        assert board.states("all").keys() <= {3}
        assert analyzer.get("/readyz")[0] == 200
    assert analyzer.terminate() == 0
    assert "Traceback" not in analyzer.output
    assert analyzer.output.count("connection lost") == 0
