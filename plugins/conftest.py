"""Here the plugins are tested as drop-ins: found where they lie, installed nowhere."""

from vilamp import plugins

plugins.discover()  # makes their packages importable
