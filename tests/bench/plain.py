"""What one would write first: a loop that takes an image and does everything for it, one step after the other.

It reads the analyzer's own environment and does the same work for one pass: decode, resize, infer, draw, encode, write,
INSERT and commit, acknowledge.
"""

import base64
import os
from pathlib import Path
from typing import Any

import cv2
import mediapipe as mp
import numpy as np
import psycopg
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

INSERT = """
INSERT INTO posture_results (image_id, pi_id, filename, received_time, analyzed_time, neck_angle, body_angle,
                             posture_status, landmarks_detected, processed_by, stream, inference_ms)
VALUES (%s, %s, %s, now(), now(), 45, 20, 'Bad', true, 'plain', 'pi1', 30) ON CONFLICT DO NOTHING
"""


def main() -> None:
    """Run until killed."""
    environment = {name.removeprefix("POSTURE_"): value for name, value in os.environ.items()}
    directory = Path(environment["IMAGES_DIR"])
    pose = mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    connection = psycopg.connect(environment["DATABASE_URL"])

    def on_message(client: Client, _userdata: Any, message: MQTTMessage) -> None:
        properties = dict(getattr(message.properties, "UserProperty", []))
        payload = message.payload
        data = payload if payload.startswith(b"\xff\xd8") else base64.b64decode(payload)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        scale = 512 / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = pose.process(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)).pose_landmarks
        if found:
            mp.solutions.drawing_utils.draw_landmarks(pixels, found, mp.solutions.pose.POSE_CONNECTIONS)
        cv2.putText(pixels, "Bad", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 255))
        cv2.imwrite(str(directory / f"{properties['image_id']}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
        connection.execute(INSERT, (properties["image_id"], "pi1", properties["filename"]))
        connection.commit()
        client.ack(message.mid, message.qos)

    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"posture-stream-{environment['STREAM']}",
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
    )
    client.username_pw_set(environment["MQTT_USER"], environment["MQTT_PASSWORD"])
    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 4
    client.connect("127.0.0.1", int(environment["MQTT_PORT"]), clean_start=False, properties=properties)
    client.loop_forever()


if __name__ == "__main__":
    main()
