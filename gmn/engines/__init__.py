"""Where jobs run: in this process, in several on this machine, or on a Ray cluster.

Building a population, importing one and comparing models are each a list of independent jobs. They
say what a job is and what becomes of its result; an engine says where that happens. Results do not
depend on the engine.
"""

from gmn.engines.allocator import keep_freed_memory
from gmn.engines.engine import Engine, one_thread
from gmn.engines.processes import Processes
from gmn.engines.ray import Ray
from gmn.errors import EngineError

__all__ = ["Engine", "EngineError", "Processes", "Ray", "keep_freed_memory", "one_thread"]
