"""Runs the embedded server for as long as somebody holds a lock. A script of its own, started by `embedded`.

Called with the lock's file, the directory to remove at the end, and the server's command line.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading

# The server saves and ends; it hears no SIGTERM.
_END = signal.SIGINT


def main() -> None:
    lock, runtime, *command = sys.argv[1:]
    os.setsid()  # Ctrl-C in the user's terminal is not meant for the server
    if os.fork():
        return  # who started us waits for this, and has no child to care about afterwards
    try:
        server = subprocess.Popen(command, preexec_fn=_end_with_parent)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        shutil.rmtree(runtime, ignore_errors=True)
        os._exit(1)
    # Whoever stops a whole service signals this, too: the server is needed until its users have ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_stop_when_unused, args=(lock, server), daemon=True).start()
    server.wait()
    shutil.rmtree(runtime, ignore_errors=True)
    os._exit(0)  # with it goes the lock: whoever waits for it may start the next server


def _stop_when_unused(lock: str, server: subprocess.Popen[bytes]) -> None:
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    server.send_signal(_END)


def _end_with_parent() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, _END)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
