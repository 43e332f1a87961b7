"""Measures the structure of the code: rooms, floors, arrows and circles, from its imports (type-checking ones included).

    python benchmarks/house.py                          # this checkout
    python benchmarks/house.py --source OTHER/CHECKOUT  # another one, to compare

A room is a direct child of a package; with --files, a file. An arrow leads from a room to one that it imports. A room
stands one floor above the highest room it imports, rooms of one circle on the same floor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import grimp
import networkx

PACKAGES = ("orchestrator", "orchestrator_plugins")


def rooms_of(graph: grimp.ImportGraph, package: str, *, files: bool) -> networkx.DiGraph:
    """The rooms of a package and the arrows between them."""
    drawn = networkx.DiGraph()
    if files:
        inside = {module for module in graph.modules if module.startswith(f"{package}.")}
        drawn.add_nodes_from(inside)
        for module in inside:
            drawn.add_edges_from((module, found) for found in graph.find_modules_directly_imported_by(module) & inside)
        return drawn
    children = sorted(graph.find_children(package))
    drawn.add_nodes_from(children)
    for above in children:
        for below in children:
            if above != below and graph.direct_import_exists(importer=above, imported=below, as_packages=True):
                drawn.add_edge(above, below)
    return drawn


def floors(drawn: networkx.DiGraph) -> int:
    """How many floors the rooms stand on."""
    condensed = networkx.condensation(drawn)
    return networkx.dag_longest_path_length(condensed) + 1 if drawn.nodes else 0


def circles(drawn: networkx.DiGraph) -> list[list[str]]:
    """Rooms that import each other, directly or in a round."""
    return [sorted(found) for found in networkx.strongly_connected_components(drawn) if len(found) > 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1], help="checkout to measure")
    parser.add_argument("--files", action="store_true", help="let every file be a room")
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.source), str(arguments.source / "plugins")]
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    for package in PACKAGES:
        drawn = rooms_of(graph, package, files=arguments.files)
        found = circles(drawn)
        print(
            f"{package}: {drawn.number_of_nodes()} rooms, {floors(drawn)} floors, {drawn.number_of_edges()} arrows, "
            f"{len(found)} circles"
        )
        for circle in found:
            print(f"  {' '.join(room.removeprefix(f'{package}.') for room in circle)}")


if __name__ == "__main__":
    main()
