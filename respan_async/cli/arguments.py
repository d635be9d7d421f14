"""Defines and parses the arguments of every command."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, Final, NoReturn

from respan_async._calls.sweep_policy import GRACE
from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async.cli import fields, issue, key_commands, maintenance, sandbox, status
from respan_async.cli.console import printable
from respan_async.errors import InvalidRequestError
from respan_async.issuing.postgres._statements import SCHEMA
from respan_async.models import UNSET

_EPILOG: Final = """\
RESPAN_API_KEY holds the API key, or RESPAN_API_KEY_FILE names a file of it; it is never an argument, where every user
of the machine could read it.
exit codes: 0 all done, 1 some failed, 2 wrong use, 3 the API key was refused, 130 interrupted
"""

_CSV: Final = """\
FILE.csv has a header line. The column `ticket` (or else `name`) tells one line
from another; the others are fields of the request: name, expiry_date,
expires_in, max_usage, rate_limit, spending_limit, is_test, limit_policies, in
capitals or not. An empty cell is a field not given; `null` in rate_limit or
spending_limit is sent. Cells are separated by commas, or by --delimiter.

Every key is in the ledger before it is written to --out, and its secret is
erased there once its line is on the disk. So the same command again, after
Ctrl-C, kill -9 or a power cut, goes on from where it was, and issues no ticket
twice. A ticket that is known keeps its fields: with others, its line fails.

The ledger is FILE.ledger beside --out FILE, unless --ledger says otherwise. With
--out - and no --ledger it is in memory alone: then nothing is remembered, and a
key that cannot be written is revoked. With --out - and --ledger FILE a killed
run may write the last few lines again; what a reader had not read yet is lost.

Names get a random tag of 14 characters, the proof by which `respan-keys sweep`
revokes what a lost answer or a kill may have left behind: 36 are left for yours.

RESPAN_LEDGER_KEY (32 bytes as base64: openssl rand -base64 32) encrypts secrets
while the ledger keeps them; RESPAN_LEDGER_OLD_KEYS are older ones, separated by
commas. RESPAN_LEDGER_KEY_FILE and RESPAN_LEDGER_OLD_KEYS_FILE name files of them.
Without a key they are plain until they are delivered and erased.

With --sandbox the server is a make-believe one within this process. The ledger
and --out are as real as ever, but go with no real account.
"""

_SWEEP: Final = """\
Read the account's list of keys, and revoke those that attempts of this ledger
made, and that no ticket has. What is not found stays a suspect until it expires:
the server may make its key late. Other keys are never touched.

What a run that was killed had in the air is taken over by the next run, and left
alone for a day: this ledger may be a copy, such as a backup that was restored,
and a later one may have handed the key out. --taken-over says that there is no
such copy. Then, as a day later, a key that was never used is revoked, also one
that was handed out from a copy and lies idle. --dry-run lists it first.
"""

_ROTATE: Final = """\
Encrypt the secrets that a ledger keeps with the key in RESPAN_LEDGER_KEY, those
in plain text too. Keys it was encrypted with before are in
RESPAN_LEDGER_OLD_KEYS, separated by commas. While others issue: start each of
them again with the new key among the old ones; then with the new one as the key
and the former among the old; then rotate; then take the former key away. One
that was left out sends nothing more after that.
"""

_SCHEMA: Final = """\
Print what `PostgresLedger.create_schema()` does, as SQL for psql: for a database
in which the workers may not make tables. The rights that they need are at its end.
With --migrate, print instead what brings the tables of an older version up to date;
it is run by whom they belong to.
"""

_WHERE: Final = (
    "a file, or postgresql://HOST/DATABASE (one with a password goes into RESPAN_LEDGER); beside --out by default"
)

_OPTIONS: Final = {
    "name": ("TEXT", "at most 50 characters"),
    "expires_in": ("TIME", "how long the key lives, from now: 90s, 30m, 1h30m, 7d"),
    "expiry_date": ("DATE", "when the key dies, as in 2030-01-31T12:00:00Z"),
    "max_usage": ("N", "how often the key can be used; -1 for no limit"),
    "rate_limit": ("N", "requests a minute, or null"),
    "spending_limit": ("USD", "US dollars, or null"),
    "limit_policies": ("JSON", "a list of limit policies"),
}


class _Parser(argparse.ArgumentParser):
    """A parser that escapes what a terminal would obey, and suggests what may have been meant."""

    @property
    def options(self) -> list[str]:
        """The known options."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Report what is wrong with the arguments, which may be any bytes, and exit with 2."""
        super().error(printable(message))

    def check_command(self, words: Sequence[str], known: Iterable[str]) -> None:
        """Exit with 2 if the first of these words is not a command, and suggest one."""
        word = words[0] if words else "-"
        if not word.startswith("-") and word not in known:
            meant = did_you_mean([word], known)
            self.error(f"unknown command {word!r:.100}; there are {', '.join(known)}{meant}")


def did_you_mean(words: Iterable[object], known: Iterable[str]) -> str:
    """Return what these words may have meant, as the end of a sentence; empty if nothing is similar."""
    bare = {name.lstrip("-"): name for name in known}  # the dashes that all options share do not make them similar
    names = [str(word).partition("=")[0].lstrip("-") for word in words]
    meant = [bare[match] for name in names for match in get_close_matches(name, [*bare], n=1)]
    return f"; did you mean {', '.join(meant)}?" if meant else ""


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments.

    Returns:
        The values, with the command's function as `run` and the original arguments as `argv`.

    Raises:
        SystemExit: The arguments are wrong, or ask for help or the version.
    """
    argv = list(argv)
    common = _common()
    parser = _Parser(
        prog="respan-keys",
        description="Issue and manage Respan's temporary API keys.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"respan-keys {version('respan-async')}")
    adding = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, help: str, run: Callable[..., int], **more: Any) -> argparse.ArgumentParser:  # noqa: A002  argparse's own name
        command = adding.add_parser(name, help=help, parents=[common], allow_abbrev=False, **more)
        command.set_defaults(run=run, parser=command)
        return command

    _issue(
        add(
            "issue",
            "issue a key for every line of a CSV file",
            issue.issue,
            description="Issue a key for every line of a CSV file, as fast as the limit lets anyone.",
            epilog=_CSV,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    create = add("create", "create one key and print it, with its secret", key_commands.create)
    _fields(create, "name", "expires_in", "expiry_date", "max_usage", "rate_limit", "spending_limit", "limit_policies")
    _json(create).add_argument("--is-test", action=argparse.BooleanOptionalAction, default=UNSET, help="a test key")
    listing = add("list", "print all keys, or one page of them, without secrets", key_commands.list_keys)
    _json(listing).add_argument("--page", type=_count, metavar="N", help="only this page, from 1")
    listing.add_argument("--page-size", type=_count, metavar="N", help="keys on a page")
    _json(add("show", "print one key, without its secret", key_commands.show)).add_argument("id", metavar="ID")
    update = add("update", "change one key and print it", key_commands.update)
    _json(update).add_argument("id", metavar="ID")
    _fields(update, "name", "expires_in", "expiry_date", "max_usage", "rate_limit", "spending_limit")
    delete = add("delete", "revoke one key; it cannot be undone", key_commands.delete)
    delete.add_argument("id", metavar="ID")
    delete.add_argument("--missing-ok", action="store_true", help="do not mind a key that is not there")
    _json(_ledger(add("status", "tell what is in a ledger, also while a run goes on", status.status)))
    sweep = _ledger(
        add(
            "sweep",
            "revoke the keys that lost answers and kills have left behind",
            maintenance.sweep,
            description=_SWEEP,
        )
    )
    sweep.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE,
        metavar="SECONDS",
        help=f"to let pass after the last such attempt, as the server may make its key late; {GRACE:g} by default",
    )
    sweep.add_argument("--dry-run", action="store_true", help="tell what would be revoked, and revoke nothing")
    sweep.add_argument(
        "--taken-over",
        action="store_true",
        help="revoke at once what killed runs have left, because no other copy of the ledger is or was in use",
    )
    sweep.add_argument("--force-ledger", action="store_true", help="use the ledger of another account or base URL")
    _account(sweep)
    sweep.add_argument("--rate", type=_rate, metavar="N/SECONDS", help="the account's limit, with --redis")
    _redis(sweep)
    keeping = adding.add_parser("ledger", help="look after a ledger", allow_abbrev=False)
    keepers = keeping.add_subparsers(metavar="COMMAND", required=True)
    rotating = keepers.add_parser(
        "rotate",
        help="encrypt the secrets it keeps with a new key",
        description=_ROTATE,
        parents=[common],
        allow_abbrev=False,
    )
    _ledger(rotating).set_defaults(run=maintenance.rotate, parser=rotating)
    schema = keepers.add_parser(
        "schema",
        help="print the SQL that makes a ledger in Postgres, for a user with the right to make it",
        description=_SCHEMA,
        parents=[common],
        allow_abbrev=False,
    )
    schema.add_argument("--schema", default=SCHEMA, metavar="NAME", help=f"the schema; {SCHEMA} by default")
    schema.add_argument("--migrate", action="store_true", help="for tables that an older version has made")
    schema.set_defaults(run=maintenance.schema, parser=schema)
    _sandbox(add("sandbox", "serve a make-believe Respan on this machine, until Ctrl-C", sandbox.serve))
    parser.check_command(argv, adding.choices)
    if argv[:1] == ["ledger"]:
        keeping.check_command(argv[1:], keepers.choices)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # The command's parser, because its options and usage are meant.
        command: _Parser = arguments.parser
        command.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(unknown, command.options)}")
    arguments.argv = tuple(argv)
    return arguments


def _common() -> _Parser:
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument("-v", "--verbose", action="store_true", help="tell what the client does")
    common.add_argument("--base-url", metavar="URL", help="instead of RESPAN_BASE_URL, or Respan's own")
    common.add_argument("--proxy", metavar="URL", help="an HTTP proxy; one with a password goes into RESPAN_PROXY")
    common.add_argument("--ca-file", metavar="FILE", help="the CA certificates to trust, in PEM, and no others")
    return common


def _json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--json", action="store_true", help="JSON lines on a terminal too, as anywhere else, instead of a table"
    )
    return parser


def _redis(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="the Redis in which processes share the limit; one with a password goes into RESPAN_REDIS",
    )


def _ledger(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--ledger", metavar="FILE", help=_WHERE)
    parser.add_argument(
        "--out", default="-", metavar="FILE", help="or else the run's --out, beside which its ledger is"
    )
    return parser


def _issue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.csv", help="what to issue; - for standard input")
    parser.add_argument(
        "--out", default="-", metavar="FILE", help="where keys go, as JSON lines; - for standard output"
    )
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        default=",",
        metavar="CHARACTER",
        help="what separates cells, as in ';', or tab; a comma by default",
    )
    parser.add_argument("--max-in-flight", type=_count, default=64, metavar="N", help="requests at the same time")
    parser.add_argument(
        "--rate",
        type=_pace,
        metavar="N/SECONDS",
        help=f"the account's limit, as in 100/1s, or auto to learn it; {DOCUMENTED_LIMIT} by default",
    )
    parser.add_argument(
        "--burst",
        action="store_true",
        help="take all free slots at once, for an account without other users",
    )
    parser.add_argument("--ledger", metavar="FILE", help=f"what remembers tickets and keys: {_WHERE}")
    parser.add_argument("--force-ledger", action="store_true", help="use the ledger of another account or base URL")
    _account(parser)
    _redis(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, tell what would be issued, send nothing"
    )
    parser.add_argument("--sandbox", action="store_true", help="issue make-believe keys, without an account")


def _account(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--account",
        metavar="NAME",
        help="one word that the ledger belongs to, so that the API key and the base URL may change",
    )


def _sandbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=8700, metavar="N", help="0 for a free one; 8700 by default")
    parser.add_argument(
        "--limit",
        type=_limit,
        default=DOCUMENTED_LIMIT,
        metavar="N/SECONDS",
        help=f"or none; {DOCUMENTED_LIMIT} by default",
    )
    parser.add_argument("--latency", type=_seconds, default=0.02, metavar="S", help="seconds a request takes")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME:PROBABILITY",
        help="let creates meet a fault by chance, as in lose_answer_after_create:0.01; may be repeated",
    )


def _fields(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        metavar, meaning = _OPTIONS[name]
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, dest=name, type=_field(name), default=UNSET, metavar=metavar, help=meaning)


def _field(name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return fields.READERS[name](text)
        except InvalidRequestError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 10):
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r:.100}")
    return int(text)


def _delimiter(text: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n\0 ' or character.isalnum():
        raise argparse.ArgumentTypeError(f"expected one character such as ; or the word tab, got {text!r:.100}")
    return character


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) < 65_536):
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {text!r:.100}")
    return int(text[:6])


def _seconds(text: str) -> float:
    value = fields.READERS["spending_limit"](text)
    if not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 to 3600, got {text!r:.100}")
    return value


def _rate(text: str) -> RateLimit:
    try:
        return fields.rate_limit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pace(text: str) -> Any:
    return "auto" if text == "auto" else _rate(text)


def _limit(text: str) -> RateLimit | None:
    return None if text == "none" else _rate(text)


def _fault(text: str) -> tuple[str, float]:
    try:
        return sandbox.fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
