"""What a worker of a DataLoader does about signals."""

from __future__ import annotations

import os
import signal
import threading


def end_with_the_run(worker: int) -> None:
    """Heed SIGTERM from the run alone, as ``worker_init_fn`` of a DataLoader.

    A scheduler may send it to every process of a job.  The run needs its workers until it has saved.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of later threads and processes, too
        threading.Thread(target=_wait_for_the_run, daemon=True).start()


def _wait_for_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
