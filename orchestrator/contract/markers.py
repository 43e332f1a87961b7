"""The two pluggy markers: ``hookspec`` declares a hook, ``hookimpl`` implements one."""

import pluggy

PROJECT = "orchestrator"
ENTRY_POINT_GROUP = "orchestrator.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Mark a function of a plugin as the implementation of the hook whose name it has.

``@hookimpl``, or with pluggy's options ``tryfirst``, ``trylast`` and, for ``run_*`` hooks, ``wrapper``.
"""
