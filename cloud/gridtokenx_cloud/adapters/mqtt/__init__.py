"""The broker's side of ingest, over paho."""

from gridtokenx_cloud.adapters.mqtt.worker import MqttCounters, MqttIngest

__all__ = ["MqttCounters", "MqttIngest"]
