"""Run a worker of the project: `python manage.py ardiq`, with the options of `ardiq run`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from django.core.management.base import BaseCommand  # type: ignore[import-untyped]

from ardiq.cli import main


class Command(BaseCommand):  # type: ignore[misc]
    """`manage.py ardiq`: a worker of the app that the setting `ARDIQ_APP` names."""

    help = "Run a worker of the app that the setting ARDIQ_APP names, with the options of `ardiq run`."

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Take the words that are no options of Django's, which were heard already, as those of `ardiq run`."""
        djangos = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        djangos.add_argument("--settings")
        djangos.add_argument("--pythonpath")
        heard, words = djangos.parse_known_args(argv[2:])
        # Worker processes and the children of tasks find the project's modules, too.
        places = [heard.pythonpath, str(Path(argv[0]).resolve().parent), os.environ.get("PYTHONPATH")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        sys.exit(main(["run", "ardiq.django.worker:app", *words]))
