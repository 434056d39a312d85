"""Run the pip-installable broker on a configuration file, until told to stop."""

import signal
import sys
import threading

from iotcore import Broker


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Broker(config_path=sys.argv[1]):
        stop.wait()


if __name__ == "__main__":
    main()
