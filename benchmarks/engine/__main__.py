"""`python -m benchmarks.engine`"""

from benchmarks.engine.command import command
from benchmarks.start import start

start(command)
