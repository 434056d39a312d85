"""The settings as an `.env` template and as a page of documentation, both made from the classes.

`python -m gridtokenx_cloud.settings.document template|page` writes one of them to its output.
"""

import sys
from collections.abc import Callable, Iterator

from pydantic.fields import FieldInfo

from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.describe import allowed, default_text
from gridtokenx_cloud.settings.load import GROUPS

_TEMPLATE_HEAD = """\
# Every setting of gtx-cloud, with its meaning, its range and its default. Remove the `#` in front
# of what you change. `gtx-cloud check-config` lists everything that is wrong, at once.
#
# A value may be `file:PATH` (its text stands in that file) or `credential:NAME` (systemd's
# LoadCredential=). Keys and secrets must be given that way in production. The mint authority's and
# the fee payer's key may also be `enc:PATH` or `keychain:SERVICE?...`, see docs/keys.md.
"""

_PAGE_HEAD = """\
# Configuration of the cloud

`gtx-cloud` reads the environment, and for what is not set there the file given by `--env-file`
(default: `.env` in the working directory). An unknown name with one of the four prefixes is a
fault. `gtx-cloud check-config` lists every fault at once and exits with 2.

A value may be `file:PATH` (its text stands in that file) or `credential:NAME` (systemd's
`LoadCredential=`). The three keys are always given that way, and their files belong to one user
alone (mode 0600); the mint authority's and the fee payer's may also be sealed with a password or
stay in a service that signs ([keys.md](keys.md)). In production a secret in plain text is refused
(`PlainSecret`), and so are `mqtt://`, events without sign-in and a single RPC endpoint.
`deploy/env/` has a file for each environment to start from.

This page is made from the settings classes; change those, then run
`python -m gridtokenx_cloud.settings.document page > docs/configuration.md`.
"""


def template() -> str:
    """Return `deploy/env/template.env`."""
    lines = [_TEMPLATE_HEAD.rstrip()]
    for group in GROUPS.values():
        lines += ["", f"# ---- {_heading(group)}"]
        for name, field in _settings(group):
            lines += ["", f"# {_meaning(field)}", f"#{name}={default_text(field)}"]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return `docs/configuration.md`."""
    lines = [_PAGE_HEAD.rstrip()]
    for group in GROUPS.values():
        lines += ["", f"## {_heading(group)}", ""]
        lines += ["| Variable | Default | Allowed | Meaning |", "|---|---|---|---|"]
        for name, field in _settings(group):
            default = default_text(field)
            cells = (f"`{name}`", f"`{default}`" if default else "", allowed(field))
            lines.append(f"| {' | '.join(cells)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _settings(group: type[Group]) -> Iterator[tuple[str, FieldInfo]]:
    for field, info in group.model_fields.items():
        yield group.env_name(field), info


def _heading(group: type[Group]) -> str:
    return f"{group.model_config['env_prefix']}*: {(group.__doc__ or '').rstrip('.')}"


def _meaning(field: FieldInfo) -> str:
    limits = allowed(field)
    return f"{field.description}. {limits[:1].upper()}{limits[1:]}".rstrip(". ") + "."


def main() -> None:
    """Write the named document to standard output."""
    documents: dict[str, Callable[[], str]] = {"template": template, "page": page}
    sys.stdout.write(documents[sys.argv[1]]())


if __name__ == "__main__":
    main()
