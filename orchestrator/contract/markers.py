"""The two pluggy markers: ``hookspec`` declares a hook, ``hookimpl`` implements one."""

import pluggy

PROJECT = "orchestrator"
ENTRY_POINT_GROUP = "orchestrator.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
