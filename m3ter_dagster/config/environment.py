"""The environment: where exports.yaml and Dagster's home are, and how to reach m3ter. No other module reads it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from m3ter_dagster.config.exports_file import ConfigError, parse_exports
from m3ter_dagster.config.last_good import Kept, Unloadable
from m3ter_dagster.config.models import Exports
from m3ter_dagster.config.organizations import M3terOrganization
from m3ter_dagster.config.secrets import SecretUnreadable, secret_in_file, with_secrets
from m3ter_dagster.config.settings import EXECUTORS, LEAST_FREE_MB, Executor, M3terSettings, Settings
from m3ter_dagster.config.wording import refusals, sentence
from m3ter_dagster.config.yaml_lines import variables_in

SIGNING_KEY = "M3TER_SIGNING_KEY"
_OF_EXTRAS = {"celery": ("dagster_celery", "celery"), "k8s": ("dagster_k8s", "kubernetes")}
"""The executors that Dagster has in packages of their own, and the extras that bring those."""

_WHERE = "all three are shown in the m3ter Console under Settings > Access > Service Users, Generate Access Key"

EXAMPLE = """\
destinations:
  - code: warehouse
    bucketName: acme-m3ter-exports
schedules:
  - code: nightly
    operationalDataTypes: ALL
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T02:00:00Z
"""


def environment_with(given: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment with these variables, also instead of files and ARNs that it names for them."""
    others = {name: value for name, value in environ.items() if re.sub("_(FILE|ARN)$", "", name) not in given}
    return {**others, **given}


def load_settings(environ: Mapping[str, str] = os.environ, organizations: Sequence[M3terOrganization] = ()) -> Settings:
    """The settings of the environment. `organizations` are those of exports.yaml, if it has any."""
    return Settings(
        _or_mistakes(lambda: load_m3ter_settings(environ)),
        executor(environ),
        least_free(environ),
        pace_folder(environ),
        _signing_key(environ),
        tuple((one.code, _or_mistakes(lambda one=one: _settings_of(one, environ))) for one in organizations),
    )


def _or_mistakes(load: Callable[[], M3terSettings]) -> M3terSettings | ConfigError:
    try:
        return load()
    except ConfigError as error:
        return error


def _signing_key(environ: Mapping[str, str]) -> SecretStr | ConfigError | None:
    try:
        pem = _value(with_secrets(environ, {SIGNING_KEY}), SIGNING_KEY)
    except ConfigError as error:
        return error
    return SecretStr(pem) if pem else None


def load_m3ter_settings(environ: Mapping[str, str] = os.environ) -> M3terSettings:
    """The M3TER_* variables of the API, or one error about all that are missing or wrong."""
    source = EnvSettingsSource(M3terSettings)
    known = {str(field.alias) for field in M3terSettings.model_fields.values()}
    found = with_secrets(environ, known)
    source.env_vars = {name: value.strip() for name, value in found.items() if value.strip()}
    try:
        return M3terSettings.model_validate(source())
    except ValidationError as error:
        raise ConfigError(*_mistakes(error)) from None


def _settings_of(one: M3terOrganization, environ: Mapping[str, str]) -> M3terSettings:
    """What the Organization says of itself, and for the rest the environment, but for its access key."""
    of_one = {
        "M3TER_API_KEY": _secret(one, "apiKey", one.api_key, one.api_key_file, environ),
        "M3TER_API_SECRET": _secret(one, "apiSecret", one.api_secret, one.api_secret_file, environ),
        "M3TER_ORG_ID": one.org_id,
        "M3TER_BASE_URL": one.base_url,
        "M3TER_REQUESTS_PER_SECOND": one.requests_per_second,
    }
    own = {name: str(value) for name, value in of_one.items() if value is not None}
    return load_m3ter_settings(environment_with(own, environ))


def _secret(
    one: M3terOrganization, field: str, value: SecretStr | None, file: Path | None, environ: Mapping[str, str]
) -> str:
    """The value, or what the file holds."""
    try:
        return value.get_secret_value() if value else secret_in_file(str(file))
    except SecretUnreadable as error:
        where = _shown(exports_path(environ))
        raise ConfigError(
            sentence(f"{where}: organization {one.code!r} has the {field}File {str(file)!r}, which {error}")
        ) from None


def _mistakes(error: ValidationError) -> Iterator[str]:
    about = {field.alias: field.description for field in M3terSettings.model_fields.values()}
    for refusal in refusals(error, M3terSettings):
        name = str(refusal.loc[0])
        if refusal.kind == "missing":
            yield f"{name} is not set; it is {about[name]} ({_WHERE})."
        else:
            yield sentence(f"the environment {refusal.words}")


def executor(environ: Mapping[str, str] = os.environ) -> Executor:
    """Whether the steps of a run share one process, which reads ahead, or have one each, here or elsewhere."""
    name = _value(environ, "M3TER_EXECUTOR") or EXECUTORS[0]
    if name not in EXECUTORS:
        known = f"{', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}"
        raise ConfigError(f"the environment has the M3TER_EXECUTOR {name!r}; write {known}.")
    module, extra = _OF_EXTRAS.get(name, ("dagster", ""))
    if not find_spec(module):
        raise ConfigError(
            f"the environment has the M3TER_EXECUTOR {name!r}, which needs the package {module}; install the extra "
            f"with: pip install 'm3ter-dagster[{extra}]'"
        )
    return name


def least_free(environ: Mapping[str, str] = os.environ) -> int:
    """How many bytes must be free for temporary files."""
    megabytes = _value(environ, "M3TER_LEAST_FREE_MB") or LEAST_FREE_MB
    if not megabytes.isascii() or not megabytes.isdigit():
        raise ConfigError(
            f"the environment has the M3TER_LEAST_FREE_MB {megabytes!r}; write a whole number of megabytes, 0 or more."
        )
    return int(megabytes) * 1_000_000


def read_env_file(environ: MutableMapping[str, str] = os.environ, *, folder: Path | None = None) -> None:
    """Add the variables of .env in the current folder, but for those that the environment has already."""
    path = (folder or Path.cwd()) / ".env"
    if not path.is_file():
        return
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_shown(path)}: cannot be read: {error}; save it as UTF-8, readable for you.") from None
    for name, value in found.items():
        if value is not None:
            environ.setdefault(name, value)


def dagster_home(environ: MutableMapping[str, str] = os.environ, *, must_exist: bool = False) -> Path:
    """DAGSTER_HOME, else .dagster in the current folder, kept from run to run; Dagster finds it in `environ`, too.

    One that is named `must_exist` for what only looks back: its name may be misspelt.
    """
    named = _value(environ, "DAGSTER_HOME")
    home = Path(named or ".dagster").absolute()
    if named and must_exist and not home.exists():
        raise ConfigError(f"the environment has the DAGSTER_HOME {named!r}, which does not exist: correct its name.")
    environ["DAGSTER_HOME"] = str(home)
    return home


def pace_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """In DAGSTER_HOME, which all exports of a deployment have in common, else one of the user for temporary files."""
    home = _value(environ, "DAGSTER_HOME")
    return Path(home).absolute() / "m3ter-pace" if home else Path(tempfile.gettempdir()) / f"m3ter-pace-{os.getuid()}"


def organization_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """M3TER_ORG_ID, for what needs no access to m3ter."""
    return _value(with_secrets(environ, {"M3TER_ORG_ID"}), "M3TER_ORG_ID") or None


def absolute_paths(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process in another folder, which finds the same exports.yaml and the same home."""
    return {**environ, "DAGSTER_HOME": str(dagster_home(environ)), "M3TER_EXPORTS": str(exports_path(environ))}


def home_warning(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why Dagster would forget what it has exported; None if its home is kept."""
    named = _value(environ, "DAGSTER_HOME")
    if not named:
        return (
            "DAGSTER_HOME is not set. These commands keep Dagster's records in .dagster, in the current folder; a "
            "`dagster dev` of your own forgets them when it ends: start `m3ter-dagster ui`, or set DAGSTER_HOME."
        )
    if Path(named).absolute().is_relative_to(tempfile.gettempdir()):
        return (
            f"DAGSTER_HOME is {named}, in the folder for temporary files. When that is cleared, every schedule exports "
            "as if for the first time: set it to a folder that is kept."
        )
    return None


def exports_path(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Path:
    """M3TER_EXPORTS, else exports.yaml in the current folder (beside workspace.yaml)."""
    named = _value(environ, "M3TER_EXPORTS") or "exports.yaml"
    return (folder or Path.cwd()) / Path(named).expanduser()


def load_exports(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Exports:
    """The checked exports.yaml; needs no credentials."""
    path = exports_path(environ, folder=folder)
    return check_exports(_text(path), path, environ)


def exports_text(environ: Mapping[str, str] = os.environ) -> str:
    """exports.yaml as it stands there, unchecked."""
    return _text(exports_path(environ))


def check_exports(text: str, path: Path, environ: Mapping[str, str] = os.environ) -> Exports:
    """The exports of a text that is that of the file, or is to be."""
    return parse_exports(text, file=_shown(path), environ=with_secrets(environ, variables_in(text)))


def load_exports_or_last_good(
    environ: Mapping[str, str] = os.environ, *, folder: Path | None = None
) -> tuple[Exports, Unloadable | None]:
    """The checked exports.yaml; as long as it is wrong, the last one that was right, and what is wrong now.

    Without a DAGSTER_HOME, or one that has such a file, ConfigError says what is wrong.
    """
    path, home = exports_path(environ, folder=folder), _value(environ, "DAGSTER_HOME")
    kept = Kept.of(path, Path(home)) if home else None
    try:
        text = _text(path)
        exports = check_exports(text, path, environ)
    except ConfigError as error:
        last_good = kept.text() if kept else None
        if not kept or last_good is None:
            raise
        try:
            return check_exports(last_good, path, environ), kept.instead_of(error.mistakes)
        except ConfigError:
            raise error from None
    if kept:
        kept.keep(text)
    return exports, None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(_no_file(path)) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{_shown(path)}:{line}: not UTF-8 text; save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{_shown(path)}: cannot be read: {error.strerror}.") from None


def _no_file(path: Path) -> str:
    return (
        f"there is no {path}; write one that names at least a destination (`m3ter-dagster init` writes one to fill "
        "in), or set M3TER_EXPORTS to its path. "
        f"For example:\n\n{EXAMPLE}"
    )


def _shown(path: Path) -> str:
    """The path of a file as messages show it: relative inside the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
