from orchestrator.errors import ConfigError as ConfigError
from orchestrator.python import Study as Study
from orchestrator.python import load as load
from orchestrator.python import plan as plan
from orchestrator.python import resume as resume
from orchestrator.python import run as run

__version__: str
