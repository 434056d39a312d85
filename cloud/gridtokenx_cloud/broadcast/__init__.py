"""Committed events to the connections that may see them.

The outbox is the truth: it is tailed on a wake-up or at an interval, so a lost wake-up costs
time and never an event. A connection that reads slowly gets its readings conflated, then is cut;
it comes back and resumes by offset.
"""

from gridtokenx_cloud.broadcast.connections import Connections, Subscriber
from gridtokenx_cloud.broadcast.flow import BroadcastLimits
from gridtokenx_cloud.broadcast.service import Broadcast
from gridtokenx_cloud.broadcast.sight import streams_of

__all__ = ["Broadcast", "BroadcastLimits", "Connections", "Subscriber", "streams_of"]
