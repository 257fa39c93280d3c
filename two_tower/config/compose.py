"""Composes configurations, and says what is wrong with a command line: one sentence with the nearest valid name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from two_tower.config.build import Types, check
from two_tower.config.literal import UNREADABLE, as_typed, quoted, read_value
from two_tower.config.saved import CONF, choices, groups, refuse_renamed
from two_tower.errors import UserError, one_of

# Hydra's plug-ins → the extra that installs them.
LAUNCHERS = dict.fromkeys(("joblib", "submitit_local", "submitit_slurm"), "launchers") | {
    "ray": "ray",
    "ray_aws": "ray",
}

# A text in a list, a mapping or a function, perhaps in quotes.
_TEXT = re.compile(r"""\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\[\]{}(),:]+)""")


def compose_raw(config_name: str, overrides: Sequence[str], hydra_config: bool = False) -> DictConfig:
    """What Hydra composes of ``conf/CONFIG_NAME.yaml`` and overrides, unchecked; leaves no trace of itself."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config_name, list(overrides), return_hydra_config=hydra_config)


def composed(overrides: Sequence[str], parts: Mapping[str, Types]) -> dict[str, Any]:
    """Some groups of the configuration that train.py has with these overrides, checked as `check` does with ``parts``.

    The others are composed but not checked, which would import what they name: five seconds for the trainer.
    """
    check_overrides(overrides)
    overrides = as_typed(overrides, partial(compose_raw, "train"), lambda: parts)
    try:
        config = OmegaConf.to_container(compose_raw("train", overrides), resolve=True)
    except Exception as error:  # Hydra's parser raises more than Hydra's own errors
        sentence = explain(error, "train", overrides)
        raise UserError(sentence.replace("add -m to run one experiment for each", "choose one of them")) from error
    assert isinstance(config, dict)
    return check(OmegaConf.create({group: config[group] for group in parts}), parts)


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse what Hydra would take for something else, or has no clear words for."""
    for override in overrides:
        name, equals, value = override.lstrip("+~").partition("=")
        if not name or not (equals or override.startswith("~")):
            raise UserError(f"'{override}' cannot be read: write key=value or group=choice")
        refuse_renamed([name])
        if name.startswith("hydra.sweeper.params"):
            raise UserError(f"{override} is not how Hydra takes it here: write what is swept as key=a,b")
        if name in groups() and (override.startswith("~") or value in ("", "null") or value.startswith("_")):
            raise UserError(f"{override} leaves {name} without a choice; {one_of(value, choices(name))}")
        if name in groups() and override.startswith("+"):
            raise UserError(f"{name} is set already: write {name}={value} without '+'")


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """One sentence for what Hydra or OmegaConf found wrong while it composed ``conf/CONFIG_NAME.yaml``."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, config_name)
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        listed = [c for c in re.findall(r"^\t(\S+)$", text, re.MULTILINE) if not c.startswith("_")]
        if found[1] == "hydra/launcher" and found[2] in LAUNCHERS:
            return f'{found[1]}={found[2]} needs its package: pip install -e ".[{LAUNCHERS[found[2]]}]"'
        plugin = f"; plug-ins of Hydra are installed: pip install {_package(*found.groups())}"
        plugin = plugin if found[1].startswith("hydra/") and found[1].count("/") == 1 else ""
        return f"{found[1]}={found[2]} does not exist; {one_of(found[2], listed)}{plugin}"
    if found := re.search(r"(?:Could not override|Could not delete from config\.) '([^']+)'", text):
        return _unknown_key(found[1], config_name, overrides)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]} is set already: write {found[1]}=VALUE without '+'"
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)", text):
        return f"{found[1]} has several values: add -m to run one experiment for each"
    if "OptunaSweeper" in text:
        return f"hydra/sweeper=optuna looks for the best training: {config_name} has nothing that it could compare"
    if found := re.match(r"Error merging override ([^=]+)=.*\$\{", text, re.DOTALL):
        return f"{found[1]} has no text: '${{' begins another key's value, as in ${{seed}}; rename what is called so"
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    place = getattr(error, "override", None) or getattr(error, "full_key", None)
    return f"{place or 'The configuration'} cannot be used: {first}"


def _package(group: str, name: str) -> str:
    """Where a plug-in of Hydra usually comes from: ``ray_aws`` from hydra-ray-launcher, ``colorlog`` from its own."""
    kind = group.removeprefix("hydra/")
    return f"hydra-{name.partition('_')[0]}" + (f"-{kind}" if kind in ("launcher", "sweeper") else "")


def _unreadable(override: str, config_name: str) -> str:
    """A sentence for what Hydra's grammar does not take: a key, or a list, mapping or function with texts in it."""
    key, equals, value = override.lstrip("+~").partition("=")
    if not re.fullmatch(r"[\w./@:-]*", key, re.ASCII) or not equals:
        return _unknown_key(key, config_name, [])
    texts = _TEXT.sub(lambda text: _as_a_text(text[0]), value)
    example = f"{key}={texts}" if read_value(texts) is not UNREADABLE else f"{key}=['a text','another']"
    pasted = f'"{example}"' if not re.search(r'["$`!\\]', example) else shlex.quote(example)
    return f"{override} cannot be read: put texts into quotes, and all of it into others, as in {pasted}"


def _as_a_text(value: str) -> str:
    readable = re.fullmatch(r"""\s*([\w./-]*|'.*'|".*")\s*""", value, re.ASCII)
    return value if readable else quoted(value.strip())


def _unknown_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    others = [o for o in overrides if not re.match(rf"[+~]*{re.escape(key)}\s*=", o)]
    valid = _valid_keys(config_name, others, key.startswith("hydra."))
    parent = key.rpartition(".")[0]
    siblings = {name for name in valid if name.rpartition(".")[0] == parent}
    if not siblings and parent in valid:
        group = parent.replace("hydra.", "hydra/")
        return f"{key} does not exist, since no {group} is chosen: add {group}=CHOICE"
    more = f"; another key of Lightning's Trainer is added by +{key}=VALUE" if parent == "trainer" else ""
    return f"{key} does not exist; {one_of(key, siblings or valid)}{more}"


def _valid_keys(config_name: str, overrides: list[str], hydra_config: bool) -> set[str]:
    """Every key of the configuration composed with the other overrides, and the groups that have no choice yet."""
    try:
        config = compose_raw(config_name, overrides, hydra_config)
    except Exception:  # another override is wrong too, or is swept
        config = compose_raw(config_name, [o for o in overrides if o.startswith("hydra/")], hydra_config)
    listed = yaml.safe_load((CONF / f"{config_name}.yaml").read_text(encoding="utf-8"))["defaults"]
    named = {key for entry in listed if isinstance(entry, dict) for key in entry if key in groups()}
    return named | set(_names(OmegaConf.to_container(config)))


def _names(config: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if not str(key).startswith("_"):
            yield place + str(key)
            yield from _names(value, f"{place}{key}.")
