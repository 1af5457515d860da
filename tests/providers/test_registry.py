import asyncio
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from router_server.core.provider import ProviderKind
from router_server.providers import SetupError, load_kind, names

MODULE = """
    from pydantic import BaseModel

    from router_server.core.provider import Capability, ProviderKind
    from router_server.core.types import Answer, FinishReason, Message, Role, Text, Usage


    class Settings(BaseModel, extra="forbid"):
        shout: bool = False


    class Parrot:
        address = ("", None)
        max_embed_batch = 1

        def __init__(self, settings):
            self._shout = settings.shout

        async def chat(self, call):
            said = call.messages[-1].content[0].text
            said = said.upper() if self._shout else said
            return Answer(Message(Role.ASSISTANT, (Text(said),)), FinishReason.STOP, Usage(1, 1))

        async def close(self):
            pass


    KIND = ProviderKind(
        name="parrot",
        settings=Settings,
        capabilities=frozenset({Capability.CHAT}),
        create=lambda settings, surroundings: Parrot(settings),
        summary="Says it back.",
    )
"""
CALL = """
    import asyncio

    from router_server.core.provider import Surroundings, UpstreamChat
    from router_server.core.types import ChatRequest, Message, Role, Text
    from router_server.providers import load_kind


    async def main():
        kind = load_kind("parrot")
        parrot = kind.create(kind.settings.model_validate({"shout": True}), Surroundings("p"))
        request = ChatRequest("route", (Message(Role.USER, (Text("hello"),)),))
        answer = await parrot.chat(UpstreamChat("m", request))
        await parrot.close()
        print(answer.message.content[0].text)


    asyncio.run(main())
"""
REFUSED = """
    from router_server.providers import SetupError, load_kind

    try:
        load_kind("parrot")
    except SetupError as error:
        print(error)
"""


def install(folder: Path, entry: str, *, module: str = "", distribution: str = "parrots") -> None:
    """Lay out in ``folder`` what an installer would: a module and the metadata of its distribution."""
    (folder / f"{distribution}.py").write_text(dedent(module), encoding="utf-8")
    metadata = folder / f"{distribution}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[modelrouter.providers]\n{entry}\n", encoding="utf-8")


async def run_with(folder: Path, program: str) -> str:
    """Run ``program`` in a new interpreter that has ``folder`` on its path, and return what it printed."""
    command = f"import sys; sys.path.insert(0, {str(folder)!r})\n{dedent(program)}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def test_a_kind_from_another_package_answers(tmp_path: Path) -> None:
    install(tmp_path, "parrot = parrots:KIND", module=MODULE)

    assert await run_with(tmp_path, CALL) == "HELLO"


async def test_two_packages_may_not_declare_one_kind(tmp_path: Path) -> None:
    install(tmp_path, "parrot = parrots:KIND", module=MODULE)
    install(tmp_path, "parrot = budgies:KIND", module=MODULE, distribution="budgies")

    said = await run_with(tmp_path, REFUSED)

    assert "declared by distribution budgies 1.2 and distribution parrots 1.2; uninstall all but one" in said


@pytest.mark.parametrize(
    ("entry", "module", "said"),
    [
        (
            "parrot = parrots:KIND",
            "import a_package_that_is_not_there",
            "cannot be imported from parrots:KIND",
        ),
        ("parrot = parrots:KIND", "KIND = 5", "is a value of type int, not a ProviderKind"),
        ("parrot = parrots:OTHER", MODULE, "cannot be imported from parrots:OTHER"),
        ("parrot = parrots:KIND", MODULE.replace('name="parrot"', 'name="macaw"'), "calls itself 'macaw'"),
    ],
)
async def test_a_broken_kind_names_its_distribution(
    tmp_path: Path, entry: str, module: str, said: str
) -> None:
    install(tmp_path, entry, module=module)

    error = await run_with(tmp_path, REFUSED)

    assert "'parrot' of distribution parrots 1.2" in error
    assert said in error


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(SetupError) as caught:
        load_kind("vlllm")

    assert "'vlllm'" in str(caught.value)
    assert all(name in str(caught.value) for name in names())


def test_the_built_in_kinds_are_declared() -> None:
    assert set(names()) >= {"openai", "vllm", "gemini", "embedded", "static", "mock"}


async def test_only_the_kind_asked_for_is_imported(tmp_path: Path) -> None:
    program = """
        import sys

        from router_server.providers import load_kind, names

        names()
        load_kind("static")
        loaded = {m.rpartition(".")[2] for m in sys.modules if m.startswith("router_server.providers.")}
        print(sorted(m for m in loaded if not m.startswith("_")))
    """

    assert await run_with(tmp_path, program) == "['static']"


@pytest.mark.parametrize("name", ["static", "mock"])
def test_a_kind_is_found_by_its_name(name: str) -> None:
    kind = load_kind(name)

    assert isinstance(kind, ProviderKind)
    assert kind.name == name
    assert kind.summary
