"""Documentation that goes stale fails here: commands, settings, make targets, endpoints, files."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from api.app import create_app
from jobs.cli import app
from recsys.recommend.fallback import DEGRADATIONS
from recsys.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = set(get_command(app).commands)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_settings_targets_and_links_exist(page: Path):
    content = text(page)
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", content, flags=re.DOTALL))
    named = set(re.findall(r"\brecsys ([a-z]+)\b(?!:)", code))
    assert named <= COMMANDS, f"no such command: {named - COMMANDS}"
    makefile = text(ROOT / "Makefile")
    for target in re.findall(r"\bmake ([a-z]+)\b", code):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"no such target: make {target}"
    for variable in re.findall(r"\bRECSYS_([A-Z_]+)\b", content):
        assert variable.lower() in Settings.model_fields, f"no such setting: RECSYS_{variable}"
    for link in re.findall(r"\]\(([^)#]+)\)", content):
        assert link.startswith("http") or (page.parent / link).exists(), f"dead link: {link}"
    for path in re.findall(r"`((?:recsys|api|jobs|tests|docs|expectations|feature_repo)/[\w/.-]+)`", content):
        assert (ROOT / path).exists(), f"no such file: {path}"


def test_every_command_and_setting_is_documented():
    operating = text(ROOT / "docs" / "operating.md")
    assert {c for c in COMMANDS if f"`recsys {c}" not in operating} == set()
    assert {f for f in Settings.model_fields if f"RECSYS_{f.upper()}" not in operating} == set()


def test_every_endpoint_is_documented_and_every_example_is_valid():
    page = text(ROOT / "docs" / "api.md")
    schema = create_app(Settings()).openapi()
    for path, methods in schema["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page
    assert {name for name in DEGRADATIONS if f"`{name}`" not in page} == set()
    bodies = re.findall(r"POST (/[\w/]+)\n(\{.*?\})\n```", page, flags=re.DOTALL)
    assert len(bodies) == 6
    for path, body in bodies:
        name = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[
            -1
        ]
        assert set(json.loads(body)) <= set(schema["components"]["schemas"][name]["properties"])
        for field in schema["components"]["schemas"][name]["properties"]:
            assert f"`{field}`" in page


def test_help_of_the_makefile_lists_every_target():
    makefile = text(ROOT / "Makefile")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split()
    for target in targets:
        assert re.search(rf"^{target}:.*## \S", makefile, flags=re.MULTILINE), target
    for wanted in ("demo", "test", "pipeline", "check", "bench", "help"):
        assert wanted in targets
