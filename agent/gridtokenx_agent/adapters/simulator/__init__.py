"""Simulated meters that speak real Modbus, for demonstrations, training and tests."""

from gridtokenx_agent.adapters.simulator.faults import Faults, parse_faults
from gridtokenx_agent.adapters.simulator.house import House, house_registers
from gridtokenx_agent.adapters.simulator.meter import MeterSimulator
from gridtokenx_agent.adapters.simulator.server import BusSimulator, simulate
from gridtokenx_agent.adapters.simulator.services import Service
from gridtokenx_agent.adapters.simulator.values import PointValues

__all__ = [
    "BusSimulator",
    "Faults",
    "House",
    "MeterSimulator",
    "PointValues",
    "Service",
    "house_registers",
    "parse_faults",
    "simulate",
]
