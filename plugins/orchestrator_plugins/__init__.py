"""The plugins that come with the orchestrator, each shipped as a stranger would ship one."""
