"""Verdicts to a real MQTT broker."""

import shutil
import socket
import subprocess
import time

import pytest

from iadbe.errors import BadConfig, Missing
from iadbe.watching import mqtt
from iadbe.watching.mqtt import Mqtt

BROKERS = ("mosquitto", "/usr/sbin/mosquitto")
LINE = '{"id": "0a", "verdict": "reject"}'


@pytest.fixture
def broker(tmp_path):
    """The port of a mosquitto of its own."""
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    program = next(filter(None, map(shutil.which, BROKERS)), None)
    if program is None:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    process = subprocess.Popen(
        [program, "-c", str(tmp_path / "conf")], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(20)


def test_a_verdict_reaches_those_who_subscribe(broker):
    from paho.mqtt.client import CallbackAPIVersion, Client

    arrived = []
    reader = Client(CallbackAPIVersion.VERSION2)
    reader.on_message = lambda client, data, message: arrived.append(
        (message.topic, message.payload.decode(), message.qos)
    )
    reader.connect("127.0.0.1", broker)
    reader.subscribe("line1/#", qos=1)
    reader.loop_start()
    time.sleep(0.5)
    sink = Mqtt(f"mqtt://127.0.0.1:{broker}/line1/verdicts")
    for _ in range(2):
        sink.send(LINE)
    sink.close()
    deadline = time.monotonic() + 20
    while len(arrived) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    reader.disconnect()
    reader.loop_stop()
    assert arrived == [("line1/verdicts", LINE, 1)] * 2


def test_a_broker_that_is_away_is_an_error_and_nothing_is_lost_silently():
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        Mqtt(f"mqtt://127.0.0.1:{port}/verdicts").send(LINE)


@pytest.mark.parametrize(
    "address", ["broker/topic", "http://broker/topic", "mqtt://broker", "mqtt://broker/a/#", "mqtt:///t"]
)
def test_addresses_that_are_refused(address):
    with pytest.raises(BadConfig, match="takes an address such as mqtt"):
        Mqtt(address)


def test_passwords_are_not_written_into_addresses():
    with pytest.raises(BadConfig, match=mqtt.PASSWORD):
        Mqtt("mqtt://user:secret@broker/topic")


def test_without_the_package_the_way_is_named(monkeypatch):
    monkeypatch.setattr(mqtt, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="iadbe\\[mqtt\\]"):
        Mqtt("mqtt://broker/topic")
