"""``vilamp demo``: ask a video in a browser."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from vilamp import config
from vilamp.cli.app import report
from vilamp.errors import ConfigError


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Load the model that the settings name and serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog="Settings are those of conf/ask.yaml.")
    parser.add_argument("settings", metavar="setting=value", nargs="*", help="checkpoint=PATH and others")
    parser.add_argument("--port", type=_port, metavar="N", help="of the page (the first that is free from 7860 on)")
    arguments = parser.parse_intermixed_args(argv)
    try:
        cfg = config.compose("ask", arguments.settings)
        if importlib.util.find_spec("gradio") is None:  # before a model is loaded
            raise ConfigError("vilamp demo needs gradio: pip install 'vilamp-lightning[demo]'")
        with TemporaryDirectory(prefix="vilamp-demo-") as folder:
            os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # these two are read when gradio is imported
            os.environ.setdefault("GRADIO_TEMP_DIR", folder)  # uploaded videos, too, which gradio would leave behind
            from vilamp.demo.page import serve
            from vilamp.session import load_configured

            serve(load_configured(cfg), arguments.port)
    except config.USER_ERRORS as error:
        return report(error, "ask", arguments.settings)
    return 0


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text!r}")
