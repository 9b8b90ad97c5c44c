"""The group of commands: loaded by name, with one sentence and one exit code for everything that goes wrong."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import click

DONE, JOB_FAILED, WRONG_REQUEST, NO_NODE, INTERRUPTED = 0, 1, 2, 3, 130

_COMMANDS = {
    "up": ("meshnode.cli.up", "Run a node."),
    "demo": ("meshnode.cli.demo", "A local mesh doing the main job."),
    "devmesh": ("meshnode.cli.devmesh", "A local mesh to develop against."),
    "submit": ("meshnode.cli.submit", "Hand in a job."),
    "jobs": ("meshnode.cli.jobs", "List the jobs in the mesh."),
    "job": ("meshnode.cli.job", "How is a job doing, and if it is not, why?"),
    "output": ("meshnode.cli.output", "Fetch what a job made."),
    "cancel": ("meshnode.cli.cancel", "End a job."),
    "peers": ("meshnode.cli.peers", "Who is known, and what they can do."),
    "models": ("meshnode.cli.models", "Publish and find models."),
    "verify": ("meshnode.cli.verify", "Check a job's receipts, offline."),
    "replay": ("meshnode.cli.replay", "Check that what a node recorded still comes out the same."),
    "doctor": ("meshnode.cli.doctor", "What works on this machine, and what does not."),
}
"""Where each command is, and its line in the help: which needs no import that way."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(f"there is no command {args[0]!r}; see infra --help")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meshnode", prog_name="infra", message="%(prog)s %(version)s")
def infra() -> None:
    """A peer-to-peer mesh that runs container jobs on other people's machines.

    Exit codes: 0 done, 1 the job (or the check) failed, 2 the request was wrong, 3 no node answers.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Errors are one sentence on stderr."""
    try:
        code = infra.main(args=list(arguments), prog_name="infra", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return WRONG_REQUEST
    except click.ClickException as error:
        return _fail(error.format_message(), WRONG_REQUEST)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # as in `infra jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        return _fail(str(error), code)


def _code_of(error: Exception) -> int | None:
    """The exit code of an error that has a sentence of its own; None for a fault of ours."""
    from meshnode.client.errors import ClientError, NoNode
    from meshnode.jobs.errors import InvalidFile

    if isinstance(error, NoNode):
        return NO_NODE
    return WRONG_REQUEST if isinstance(error, ClientError | InvalidFile) else None


def _fail(sentence: str, code: int) -> int:
    line = " ".join(sentence.split())
    click.echo(f"error: {''.join(c if c.isprintable() else '?' for c in line)}", err=True)
    return code
