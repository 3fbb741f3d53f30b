"""Print a file to start from, for whatever runs or watches workers; it is for the app shop.app:app.

ardiq ops alerts > ardiq-alerts.yaml
"""

import argparse
from importlib import resources

_FILES = {
    "alerts": ("alerts.yaml", "alerting rules for Prometheus, each with the command that shows what is wrong"),
    "docker": ("Dockerfile", "an image of a worker"),
    "grafana": ("grafana.json", "a dashboard for Grafana 10 or later"),
    "keda": ("keda.yaml", "scaling in Kubernetes by what waits"),
    "kubernetes": ("kubernetes.yaml", "a Job that loads the library, a Deployment with probes"),
    "systemd": ("ardiq.service", "a unit of worker processes"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    files = "\n".join(f"{name}: {about}" for name, (_, about) in _FILES.items())
    parser.add_argument("file", choices=tuple(_FILES), metavar="|".join(_FILES), help=files)


def run(arguments: argparse.Namespace) -> int:
    name, _ = _FILES[arguments.file]
    print((resources.files("ardiq") / "ops" / name).read_text(), end="")
    return 0
