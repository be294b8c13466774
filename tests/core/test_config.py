"""Configuration: units, bounds, all problems with their place, canonical bytes, digest, generated files."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from detectors.catalogue import SPECS
from detectors.config import MAX_ACTIONS, MODES, STATES, Config, default_config, demo_config
from detectors.model import DAY, HOUR, Mode
from detectors.sections import SECTIONS
from detectors.spec import Kind, Param
from detectors.units import parse, say, show
from streams.config_file import ConfigError, load_config, parse_text
from streams.docs import config_schema, config_yaml, generated

ROOT = Path(__file__).parent.parent.parent
ALL_PARAMS = [(spec.id, p) for spec in SPECS for p in spec.params]


def problems(text: str) -> list[str]:
    config, found = parse_text(text)
    assert (config is None) == bool(found)
    return [p.located("d.yaml") for p in found]


# Units


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind.DURATION, "72h", 72 * HOUR),
        (Kind.DURATION, "7d", 7 * DAY),
        (Kind.DURATION, "1us", 1),
        (Kind.DURATION, "0s", 0),
        (Kind.DAYS, "90d", 90),
        (Kind.MONEY, "300.00 u", 30_000),
        (Kind.MONEY, "300 u", 30_000),
        (Kind.MONEY, "0.01 u", 1),
        (Kind.RATIO, "85%", 850_000),
        (Kind.RATIO, "0.0001%", 1),
        (Kind.RATIO, "120%", 1_200_000),
        (Kind.COUNT, "8", 8),
        (Kind.POINTS, "0.5", 500_000),
    ],
)
def test_units(kind: Kind, text: str, value: int) -> None:
    assert parse(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.DURATION, "72"),
        (Kind.DURATION, "7 d"),
        (Kind.DURATION, "-7d"),
        (Kind.DURATION, "1.5h"),
        (Kind.DURATION, "7d\n"),
        (Kind.DAYS, "90"),
        (Kind.DAYS, "48h"),
        (Kind.MONEY, "300"),
        (Kind.MONEY, "300.0 u"),
        (Kind.MONEY, "300 EUR"),
        (Kind.RATIO, "0.85"),
        (Kind.RATIO, "85 %"),
        (Kind.COUNT, "8.0"),
        (Kind.COUNT, "٨"),
        (Kind.POINTS, "1e3"),
    ],
)
def test_a_value_without_its_unit_is_refused(kind: Kind, text: str) -> None:
    assert parse(kind, text) is None


@given(st.sampled_from(list(Kind)), st.integers(0, 10**8))
def test_shown_values_are_read_back(kind: Kind, value: int) -> None:
    assert parse(kind, show(kind, value)) == value


@given(st.integers(0, 10**15))
def test_said_durations_never_round_up(value: int) -> None:
    number, word = say(Kind.DURATION, value).replace(",", "").split()
    size = {"second": 1_000_000, "minute": 60_000_000, "hour": HOUR, "day": DAY}[word.rstrip("s")]
    assert int(number) * size <= value


# Parsing


def test_every_problem_is_reported_with_its_place() -> None:
    text = """\
version: mine
mode: observ
detectors:
  fan-in:
    window: 45d
    state: off
    min_payer: 9
    first_time_share: 0.6
  fan_out:
    window: 7d
  structuring: {limit: 10000}
scoring: {hold: 20}
measures:
  first_time_gap: 9
  regular_payments:
version: again
extra: 1
"""
    assert problems(text) == [
        "d.yaml:2:7 mode: observ is none of learn, observe, advise; did you mean observe?",
        "d.yaml:5:13 detectors.fan-in.window: 45d is above the maximum 30d (why: long enough for weekly collections)",
        "d.yaml:5:13 detectors.fan-in.window: 45d is longer than the 32d that the state holds",
        "d.yaml:6:12 detectors.fan-in.state: off is a boolean in YAML: put it in quotes if the word is meant",
        "d.yaml:6:12 detectors.fan-in.state: off is none of live, shadow, disabled",
        "d.yaml:7:5 detectors.fan-in.min_payer: no such name; did you mean min_payers?",
        "d.yaml:8:23 detectors.fan-in.first_time_share: 0.6 must be a share in percent, like 85%",
        "d.yaml:9:3 detectors.fan_out: no such name; did you mean fan-out?",
        "d.yaml:11:24 detectors.structuring.limit: 10000 must be an amount with its unit, like 300.00 u",
        "d.yaml:12:10 scoring.freeze: 12 is below hold (20)",
        "d.yaml:14:19 measures.first_time_gap: 9 must be whole days with their unit, like 90d",
        "d.yaml:15:20 measures.regular_payments: needs a value",
        "d.yaml:16:1 version: is set twice; the first is in line 1",
        "d.yaml:17:1 extra: no such name",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# only a comment", "the file is empty"),
        ("a: [", "not YAML"),
        ("version: a\n---\nversion: b", "not YAML"),
        ("just words", "must be a mapping"),
        ("- a\n- b", "must be a mapping"),
        ("{}", "version: is missing"),
        ("version: a\ndetectors: &x {}\nscoring: *x", "anchors and aliases"),
        ("version: a\ndetectors: [fan-in]", "must be a mapping"),
        ("version: a\ndetectors: {fan-in: {window: [7d]}}", "needs a value"),
        ("version: a\ndetectors: {fan-in: {window: }}", "needs a value"),
        (
            "version: a\nentities: {bank: {mode: advise, max_action: safeguard-first}}",
            "none of none, monitor",
        ),
        ("version: a\n? [x, y]\n: 1", "a name must be a plain word"),
        ("version: \x00", "not YAML"),
        ("version: a\n\tmode: learn", "not YAML"),
    ],
)
def test_what_is_no_configuration(text: str, said: str) -> None:
    assert any(said in line for line in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("fan-in: {min_payers: 40}", "fan-in.full_payers", "25 is below min_payers (40)"),
        (
            "rapid-pass-through: {window: 30d, horizon: 48h}",
            "rapid-pass-through.window",
            "with twice rapid-pass-through.horizon",
        ),
        (
            "rapid-pass-through: {dwell_mid: 30min}",
            "rapid-pass-through.dwell_mid",
            "30min is below dwell_fast (1h)",
        ),
        (
            "rapid-cash-out: {horizon: 36h}",
            "rapid-cash-out.horizon",
            "longer than rapid-pass-through.horizon (1d)",
        ),
        (
            "commission-retention: {kept_low: 16%, kept_high: 20%}",
            "commission-retention.kept_low",
            "leaves 15% at most",
        ),
        (
            "new-account-velocity: {zero_age: 60d}",
            "new-account-velocity.zero_age",
            "60d is below max_age (90d)",
        ),
    ],
)
def test_rules_between_fields(text: str, path: str, said: str) -> None:
    lines = problems(f"version: a\ndetectors:\n  {text}\n")
    assert any(f"detectors.{path}: " in line and said in line for line in lines), lines


def test_a_gate_that_can_never_hold_is_a_problem() -> None:
    text = "version: a\ndetectors:\n  gather-scatter: {state: shadow}\n  victim-collection-account: {state: disabled}\n"
    assert any(
        "typologies.money-mule-network.needs.core" in line and "never hold" in line for line in problems(text)
    )


@pytest.mark.parametrize(("detector", "p"), ALL_PARAMS, ids=lambda v: v.name if isinstance(v, Param) else v)
def test_bounds_are_closed_and_say_why(detector: str, p: Param) -> None:
    def lines(value: int) -> list[str]:
        text = f"version: a\ndetectors:\n  {detector}:\n    {p.name}: {show(p.kind, value)}\n"
        return [
            line for line in problems(text) if f"detectors.{detector}.{p.name}: " in line and "mum" in line
        ]

    assert not lines(p.min)
    assert not lines(p.max)
    assert "above the maximum" in lines(p.max + 1)[0]
    assert p.why in lines(p.max + 1)[0]
    if p.min > 0:
        assert "below the minimum" in lines(p.min - 1)[0]


def test_zero_is_a_value_and_absent_is_absent() -> None:
    config, _ = parse_text("version: a\ndetectors: {flagged-counterparty: {min_amount: 0.00 u}}")
    assert config is not None
    assert config.detectors["flagged-counterparty"].params["min_amount"] == 0
    assert config.detectors["flagged-counterparty"].params["min_payments"] == 2


def test_entities() -> None:
    config, _ = parse_text(
        "version: a\nmode: learn\nentities:\n  north: {mode: advise}\n  south: {max_action: monitor}\n"
    )
    assert config is not None
    assert (config.for_entity("north").mode, config.for_entity("north").max_action) == (
        Mode.ADVISE,
        "hold-and-review",
    )
    assert (config.for_entity("south").mode, config.for_entity("south").max_action) == (Mode.LEARN, "monitor")
    assert config.for_entity("elsewhere").mode == Mode.LEARN


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    config, found = parse_text(text)
    assert (config is None) == bool(found)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: a\nmode: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2:1 is not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "long.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="longer than"):
        load_config(tmp_path / "long.yaml")
    (tmp_path / "two.yaml").write_text("mode: x\nscoring: {hold: y}\n")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "two.yaml")
    assert len(str(error.value).splitlines()) == len(error.value.problems) == 3


# Canonical bytes


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Configurations that an analyst could write; orders between parameters may be wrong."""
    base = default_config(
        version=draw(st.text("abc-123", min_size=1, max_size=8)),
        mode=Mode(draw(st.sampled_from(MODES))),
        max_action=draw(st.sampled_from(MAX_ACTIONS)),
    )
    name, p = draw(st.sampled_from(ALL_PARAMS))
    chosen = base.detectors[name]
    changed = msgspec.structs.replace(
        chosen,
        state=draw(st.sampled_from(STATES)),
        params=chosen.params | {p.name: draw(st.integers(p.min, p.max))},
    )
    return msgspec.structs.replace(base, detectors=base.detectors | {name: changed})


@given(configurations())
def test_a_configuration_survives_its_own_file(config: Config) -> None:
    again, found = parse_text(config_yaml(config, "drawn"))
    assert again == config or found
    if again is not None:
        assert again.canonical() == config.canonical()
        assert Config.from_json(config.canonical()) == config


@given(configurations(), configurations())
def test_digests_tell_configurations_apart(first: Config, second: Config) -> None:
    digests = [c.digest(engine="1", tzdata="2026.6") for c in (first, second)]
    assert (digests[0] == digests[1]) == (first == second)


def test_the_digest_knows_engine_layout_and_zones() -> None:
    config = default_config()
    base = config.digest(engine="1", tzdata="a", layout=1)
    assert base == config.digest(engine="1", tzdata="a", layout=1)
    assert len({base, config.digest(engine="2", tzdata="a", layout=1), config.digest(engine="1", tzdata="b", layout=1),
                config.digest(engine="1", tzdata="a", layout=2)}) == 4  # fmt: skip


def test_order_of_keys_does_not_matter() -> None:
    config = default_config()
    turned = msgspec.structs.replace(config, detectors=dict(reversed(config.detectors.items())))
    assert turned.canonical() == config.canonical()


def test_an_older_document_is_filled_in_and_a_foreign_one_refused() -> None:
    document = msgspec.json.decode(default_config().canonical())
    del document["detectors"]["fan-out"]
    del document["detectors"]["fan-in"]["params"]["full_payers"]
    del document["scoring"]["corridor_cap"]
    config = Config.from_json(msgspec.json.encode(document))
    assert config.state("fan-out") == "disabled"
    assert config.detectors["fan-in"].params["full_payers"] == 25
    assert config.scoring["corridor_cap"] == 3_000_000
    for change in (
        {"detectors": document["detectors"] | {"invented": {"state": "live", "params": {}}}},
        {"scoring": document["scoring"] | {"bonus": 1}},
        {"scoring": document["scoring"] | {"hold": 0}},
        {"surprise": 1},
    ):
        with pytest.raises((ValueError, msgspec.ValidationError)):
            Config.from_json(msgspec.json.encode(document | change))


def test_production_observes_and_the_demo_advises() -> None:
    assert (default_config().mode, default_config().max_action) == (Mode.OBSERVE, "hold-and-review")
    assert (demo_config().mode, demo_config().max_action) == (Mode.ADVISE, "freeze")


# Generated files


@pytest.mark.parametrize("name", sorted(generated()))
def test_generated_files_are_current(name: str) -> None:
    """Otherwise: python -m streams.docs"""
    assert (ROOT / name).read_text(encoding="utf-8") == generated()[name]


def test_no_page_without_a_detector() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "detectors").glob("*.md")} - {"README"}
    assert pages == {spec.id for spec in SPECS}


@pytest.mark.parametrize(
    ("name", "config"), [("detectors.yaml", default_config()), ("demo.yaml", demo_config())]
)
def test_shipped_files_are_the_defaults(name: str, config: Config) -> None:
    path = ROOT / "deploy" / "config" / name
    assert load_config(path) == config
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=detectors.schema.json\n")
    Draft202012Validator(config_schema()).validate(yaml.safe_load(text))


def test_the_schema_agrees_with_the_parser() -> None:
    schema = config_schema()
    Draft202012Validator.check_schema(schema)
    for spec in SPECS:
        assert set(schema["properties"]["detectors"]["properties"][spec.id]["properties"]) == {
            "state",
            *(p.name for p in spec.params),
        }
    for name, params in SECTIONS.items():
        assert set(schema["properties"][name]["properties"]) == {p.name for p in params}
    for wrong in (
        '{"version": "a", "detectors": {"fan-in": {"window": "7"}}}',
        '{"version": "a", "x": 1}',
        "{}",
    ):
        assert list(Draft202012Validator(schema).iter_errors(json.loads(wrong)))
