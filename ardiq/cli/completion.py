"""Print a script that teaches your shell to complete `ardiq`.

bash: ardiq completion bash > ~/.local/share/bash-completion/completions/ardiq
zsh:  ardiq completion zsh > _ardiq, in a folder of your $fpath
fish: ardiq completion fish > ~/.config/fish/completions/ardiq.fish
"""

import argparse

from ..errors import ArdiqError
from . import build_parser

_SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, metavar="|".join(_SHELLS))


def run(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise ArdiqError("the script is made by shtab, which is not installed: pip install 'ardiq[cli]'") from None
    print(shtab.complete(build_parser(), arguments.shell))
    return 0
