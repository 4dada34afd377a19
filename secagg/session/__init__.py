"""What integrators hold: bytes in, bytes out, saved and resumed at every stage.

Sessions open no socket, start no thread that outlives a call, read no clock and log nothing. They are not thread-safe:
use each from one thread at a time.
"""

from secagg.session.answers import BeaconNeeded, InputNeeded, Reply
from secagg.session.client import ClientSession
from secagg.session.result import RoundResult
from secagg.session.server import ServerSession

__all__ = ["BeaconNeeded", "ClientSession", "InputNeeded", "Reply", "RoundResult", "ServerSession"]
