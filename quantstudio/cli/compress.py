"""`quantstudio compress`: make the float network itself smaller, and quantize it if asked.

Each way is a command of its own in a module `compress_*`, registered in `app` below; what they have in common
is a step that is put in front of a recipe.
"""

from __future__ import annotations

import typer

from quantstudio.cli import compress_low_rank, compress_prune, compress_share
from quantstudio.cli.compress_groups import command as groups

app = typer.Typer(
    help="Make the float network itself smaller: fewer channels, factors of low rank, shared weights.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("groups")(groups)
app.command("prune")(compress_prune.command)
app.command("low-rank")(compress_low_rank.command)
app.command("share")(compress_share.command)
