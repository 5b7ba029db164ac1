"""python -m evofool, and the console command."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line, so that Ctrl-C ends it without a traceback from the first moment on."""
    signal.signal(signal.SIGINT, _interrupt)
    from evofool.cli.app import main as run_command

    run_command()


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, but at once the end of the process while a module is being imported.

    Packages with compiled code turn an exception in the middle of their import into errors of other kinds.
    """
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(sys.stderr.fileno(), b"\nInterrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
