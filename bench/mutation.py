"""Every small wrong change of a module, made by mutmut's operators. Runs nothing.

Left out is what no promise hangs on: texts for people (a literal with a blank in it, and the
pieces of f-strings), what is logged, annotations, and class bodies outside their methods. Unlike
mutmut itself it also mutates properties and other decorated functions, and the constants and
tables of a module.
"""

from __future__ import annotations

import difflib
import random
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, OuterFunctionProvider
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

NO_VALUES = ("TypeVar(", "Callable[", "Mapping[", "dict[", "tuple[", "structlog.")
"""What the values of a module's names begin with that are for the type checker, or for the log."""

STATEMENT = "(module)"
"""Stands for the function of a change in a statement of the module itself."""

Place = tuple[str, str]
"""A module's path below the root, and the qualified name of a function in it."""


Key = tuple[str, str, str, str]
"""A place, the lines that were, and the lines that are now."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: *text* in place of the function, or statement, at *line* (from 1) of *module*."""

    module: str
    function: str
    was: str
    now: str
    line: int
    text: str

    @property
    def names(self) -> list[str]:
        """What a changed statement of the module sets."""
        found = (re.match(r"(\w+(?:, \w+)*)\s*[:=]", line) for line in self.text.splitlines())
        return [name for match in found if match for name in match[1].split(", ")]

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.module, self.function

    @property
    def key(self) -> Key:
        """What it is known by, wherever its function moves to."""
        return self.module, self.function, self.was, self.now

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}\n  - {self.was}\n  + {self.now}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A function, or a statement of the module: its name, and how deep it is indented."""

    name: str
    depth: int


class _Visitor(MutationVisitor):
    """mutmut's, which is let into decorated functions, and kept out of texts and logging."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return False
        if isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func).startswith(
            "log."
        ):
            return True
        return super()._skip_node_and_children(node)


def mutants(root: Path, module: str, *, sample: int = 0, seed: int = 0) -> list[Mutant]:
    """All of *module*, a path below *root*, or that many of them drawn at random."""
    source = _Source(module, (root / module).read_text(encoding="utf-8"))
    chosen = source.changes
    if 0 < sample < len(chosen):
        drawn = random.Random(f"{seed}:{module}").sample(range(len(chosen)), sample)
        chosen = [chosen[number] for number in sorted(drawn)]
    found = [source.mutant(change) for change in chosen]
    return list({(each.line, each.text): each for each in found}.values())


def unchanged(root: Path, module: str) -> list[Mutant]:
    """Each function and statement of *module* as it is: what replaces it must change nothing."""
    return _Source(module, (root / module).read_text(encoding="utf-8")).unchanged()


class _Source:
    """A module that is parsed once; a mutant's text is made when it is asked for."""

    def __init__(self, module: str, text: str) -> None:
        self._module = module
        wrapper = MetadataWrapper(cst.parse_module(text))
        visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
        self._tree = wrapper.visit(visitor)
        self._outer = wrapper.resolve(OuterFunctionProvider)
        self._positions = wrapper.resolve(PositionProvider)
        self._places = dict(_places(wrapper.module))
        self._statements = {
            id(node): line
            for line in self._places
            if isinstance(line, cst.SimpleStatementLine)
            for node in _walk(line)
        }
        self.changes = [c for c in visitor.mutations if self._counts(c)]

    def _counts(self, change: Mutation) -> bool:
        wording = _is_wording(change.original_node, change.mutated_node)
        return self._inside(change) in self._places and not wording

    def _inside(self, change: Mutation) -> cst.CSTNode | None:
        node = change.original_node
        return self._outer.get(node) or self._statements.get(id(node))

    def mutant(self, change: Mutation) -> Mutant:
        """The whole function, or statement, with the change in it."""
        inside = self._inside(change)
        assert inside is not None
        changed = inside.deep_replace(change.original_node, change.mutated_node)
        assert isinstance(changed, cst.CSTNode)
        return self._with(inside, changed)

    def unchanged(self) -> list[Mutant]:
        """Everything that mutants could replace, as it is."""
        return [self._with(node, node) for node in self._places]

    def _with(self, inside: cst.CSTNode, changed: cst.CSTNode) -> Mutant:
        place = self._places[inside]
        before, after = _code(self._tree, inside), _code(self._tree, changed)
        return Mutant(
            self._module,
            place.name,
            *_change(before, after),
            self._positions[inside].start.line,
            textwrap.indent(after, "    " * place.depth),
        )


def _places(module: cst.Module) -> Iterator[tuple[cst.CSTNode, _Place]]:
    for node in module.body:
        if isinstance(node, cst.FunctionDef):
            yield node, _Place(node.name.value, 0)
        elif isinstance(node, cst.ClassDef):
            for inner in node.body.body:
                if isinstance(inner, cst.FunctionDef):
                    yield inner, _Place(f"{node.name.value}.{inner.name.value}", 1)
        elif isinstance(node, cst.SimpleStatementLine) and _is_constant(node):
            yield node, _Place(STATEMENT, 0)


def _is_constant(line: cst.SimpleStatementLine) -> bool:
    """Whether it sets a name: a limit's parts, a table; not an import, nor a logger."""
    first = line.body[0]
    if not isinstance(first, cst.Assign | cst.AnnAssign) or first.value is None:
        return False
    return not cst.Module([]).code_for_node(first.value).startswith(NO_VALUES)


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _is_wording(was: cst.CSTNode, now: cst.CSTNode) -> bool:
    """Whether a literal changes that is a text for people, or only its case changes."""
    if not isinstance(was, cst.SimpleString) or not isinstance(now, cst.SimpleString):
        return False
    return " " in was.value or "XX" not in now.value


def _code(module: cst.Module, node: cst.CSTNode) -> str:
    """The text of a function from its `def` on, or of a statement, as if it was not indented."""
    if isinstance(node, cst.FunctionDef):
        node = node.with_changes(leading_lines=[], decorators=[], lines_after_decorators=[])
    elif isinstance(node, cst.SimpleStatementLine):
        node = node.with_changes(leading_lines=[])
    return module.code_for_node(node).rstrip("\n")


def _change(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, each side as one line."""
    was, now = [], []
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line.startswith("- "):
            was.append(line[2:].strip())
        elif line.startswith("+ "):
            now.append(line[2:].strip())
    return " ".join(was), " ".join(now)
