"""A sink that publishes each verdict to a topic of an MQTT broker, with quality of service 1 (at least once).

Package: ``paho-mqtt``, MQTT 5.0 (OASIS 2019). A verdict counts as taken when the broker has acknowledged it.
"""

from __future__ import annotations

import os
import ssl
import uuid
from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from iadbe.errors import BadConfig, Missing
from iadbe.watching.delivery import Sink

PORTS = {"mqtt": 1883, "mqtts": 8883}
SECONDS = 10.0  # that the broker may take
PASSWORD = "IADBE_MQTT_PASSWORD"  # name of the environment variable


class Mqtt(Sink):
    """Publishes to ``mqtt://host:port/topic``, or ``mqtts://`` with TLS, ``user@`` before the host."""

    name: ClassVar[str] = "mqtt"

    def __init__(self, address: str) -> None:
        """Check the address. Raises :class:`BadConfig`, and :class:`Missing` without the package."""
        parts = urlsplit(address)
        topic = unquote(parts.path.lstrip("/"))
        if parts.scheme not in PORTS or not parts.hostname or not topic or set(address) & set("#?+\0"):
            raise BadConfig(f"--mqtt takes an address such as mqtt://broker/line1/verdicts, not {address!r}.")
        if parts.password:
            raise BadConfig(f"--mqtt takes no password in its address: put it into the variable {PASSWORD}.")
        if find_spec("paho") is None:
            raise Missing("MQTT needs the package paho-mqtt. Install it with: pip install 'iadbe[mqtt]'")
        try:
            self._host, self._port = parts.hostname, parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise BadConfig(f"--mqtt takes a port from 1 to 65535, not as in {address!r}.") from error
        self._topic = topic
        self._user = unquote(parts.username or "")
        self._is_encrypted = parts.scheme == "mqtts"
        self._client: Any = None

    def send(self, line: str) -> None:
        """Publish one verdict and wait for the broker's acknowledgement. Raises OSError, RuntimeError or ValueError."""
        client = self._connected()
        message = client.publish(self._topic, line.encode(), qos=1)
        message.wait_for_publish(SECONDS)
        if not message.is_published():
            self.close()
            raise TimeoutError(f"{self._host} has not acknowledged it within {SECONDS:g} s")

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connected(self) -> Any:
        if self._client is not None and self._client.is_connected():
            return self._client
        self.close()
        import threading

        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        client = Client(CallbackAPIVersion.VERSION2, client_id=f"iadbe-{uuid.uuid4().hex[:12]}", protocol=MQTTv5)
        answered = threading.Event()
        refused: list[str] = []

        def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                refused.append(str(reason))
            answered.set()

        client.on_connect = on_connect
        if self._user:
            client.username_pw_set(self._user, os.environ.get(PASSWORD))
        if self._is_encrypted:
            client.tls_set_context(ssl.create_default_context())
        client.connect(self._host, self._port)
        client.loop_start()
        if not answered.wait(SECONDS) or refused:
            client.loop_stop()
            raise ConnectionError(f"{self._host} refuses: {refused[0]}" if refused else f"{self._host} does not answer")
        self._client = client
        return client
