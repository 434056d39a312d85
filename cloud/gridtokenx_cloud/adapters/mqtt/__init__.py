"""The broker's side of ingest, over paho."""

from gridtokenx_cloud.adapters.mqtt.worker import MqttIngest

__all__ = ["MqttIngest"]
