"""Help pages that name what an option takes, and no types of Python."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose page has metavars only."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """The same of the page that lists the commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    """Show the metavar of an option that takes a value, and nothing for flags and arguments.

    Newer releases of typer add `<bool>` to a flag, which invites `--json true`, and `<list[str]>`
    to an argument. They have no setting for that.
    """
    for param in params:
        takes_value = param.param_type_name == "option" and not param.is_flag
        shown = param.metavar if takes_value else None
        vars(param)["display_type_rich"] = lambda shown=shown, **_: shown
    return params
