from pathlib import Path

import pytest

from router_server.core.provider import Capability
from router_server.providers import load_kind
from router_server.providers.matrix import MARKER, main, render

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]


def test_the_page_says_what_the_code_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(PAGE)]) == 0, capsys.readouterr().err


def test_the_table_holds_every_kind_and_every_capability() -> None:
    head, _, *rows = [cells(line) for line in render().splitlines() if line.startswith("|")]

    assert set(head[1:]) >= {"openai", "vllm", "gemini", "embedded", "static", "mock"}
    assert [row[0] for row in rows] == [capability.value for capability in Capability]
    for column, name in enumerate(head[1:], start=1):
        said = {row[0] for row in rows if row[column] == "yes"}
        assert said == {capability.value for capability in load_kind(name).capabilities}


def test_a_page_that_drifted_is_told_and_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "providers.md"
    page.write_text(f"# Mine\n{MARKER}old\n", encoding="utf-8")

    assert main(["--check", str(page)]) == 1
    assert f"{page}: is out of date; run:" in capsys.readouterr().err
    assert main(["--write", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == f"# Mine\n{MARKER}\n{render()}"
    assert main(["--check", str(page)]) == 0


@pytest.mark.parametrize("option", ["--check", "--write"])
def test_a_page_without_the_marker_is_left_alone(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "providers.md"
    page.write_text("# Mine\n", encoding="utf-8")

    assert main([option, str(page)]) == 1
    assert "has no line <!-- generated below" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "# Mine\n"


def test_a_page_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(tmp_path / "none.md")]) == 1
    assert "none.md" in capsys.readouterr().err


def test_without_a_page_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == render()
