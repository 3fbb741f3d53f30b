"""`ardiq …` without the end of the interpreter, in which 1.2 crashes now and then."""

import os
import runpy
import sys
import traceback

code = 0
try:
    runpy.run_module("ardiq", run_name="__main__")
except SystemExit as end:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
