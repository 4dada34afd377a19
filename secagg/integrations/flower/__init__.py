"""Secure aggregation under Flower: a client modifier and a grid, around any unmodified Message-API strategy.

``ClientApp(mods=[secagg_mod(...)])`` on the nodes and ``strategy.start(grid=SecAggGrid(grid, ...))`` on the server turn
each train exchange of the strategy into the protocol's exchanges; evaluate and query messages pass through as they are.
Needs flwr 1.41 or newer. docs/flower.md says what to configure and what is promised.
"""

# ruff: noqa: E402 - a missing Flower is told with its extra before anything imports it
from secagg import extras

extras.load("flwr")

from secagg.integrations.flower.agreement import Agreement
from secagg.integrations.flower.client import secagg_mod
from secagg.integrations.flower.node import NodeSecrets, node_from_config
from secagg.integrations.flower.round import RoundReport
from secagg.integrations.flower.server import SecAggGrid

__all__ = ["Agreement", "NodeSecrets", "RoundReport", "SecAggGrid", "node_from_config", "secagg_mod"]
