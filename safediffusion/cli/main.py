"""The command group, and how errors leave the program. No torch: a command imports what it needs when it runs."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import cast

import click

from safediffusion import __version__
from safediffusion.cli.common import is_main
from safediffusion.cli.stopped import Stopped
from safediffusion.core.errors import UserError, disk_full
from safediffusion.core.registry import suggest

# In the order of --help.
COMMANDS = (
    *("demo", "train", "sweep", "evaluate", "import-images", "judge", "score", "compare", "audit"),
    *("sample", "merge", "export", "list", "doctor", "check"),
)
MODULES = {"list": "listing", "import-images": "import_images"}  # where the file's name is not the command's


class Commands(click.Group):
    """Imports a command's file when it is asked for; a wrong name is answered with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"safediffusion.cli.{MODULES.get(cmd_name, cmd_name)}")
        return cast(click.Command, module.command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(f"unknown command '{args[0]}'; {suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="safediffusion")
def commands() -> None:
    """Make a text-to-image model safe by online reinforcement learning, and prove it.

    Start with `safediffusion demo`: the whole story on an embedded model, on any machine.
    """


def run(arguments: Sequence[str]) -> int:
    """The exit status of one command line: 0, 2 for what the user can mend (one line on stderr), 130 after Ctrl-C."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is; it misses unused kernels
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice at import is not about anything done here
    try:
        status = commands.main(args=list(arguments), prog_name="safediffusion", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except UserError as error:
        return _fail(str(error))
    except click.ClickException as error:
        if not isinstance(error, Stopped):
            return _fail(error.format_message())
        if is_main():
            _fail(error.format_message())
        return 130
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped")
        return 130
    except Exception as error:
        if not disk_full(error):
            raise
        place = getattr(error, "filename", None) or "while writing"
        return _fail(f"the disk is full ({place}); make room and run the same command again")
    finally:
        if fleet := sys.modules.get("safediffusion.core.fleet"):
            fleet.Fleet().close()
    return status if isinstance(status, int) else 0


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def _fail(message: str) -> int:
    click.echo(f"safediffusion: {' '.join(message.split())}", err=True)
    return 2
