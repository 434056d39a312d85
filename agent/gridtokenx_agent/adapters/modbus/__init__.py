"""Modbus over pymodbus: serial RTU, RTU over TCP, and Modbus TCP."""

from gridtokenx_agent.adapters.modbus.bus import PymodbusBus, open_bus
from gridtokenx_agent.adapters.modbus.endpoint import BusEndpoint, parse_bus_url

__all__ = ["BusEndpoint", "PymodbusBus", "open_bus", "parse_bus_url"]
