"""A model's own chat template: the tools and the question are rendered by it, and replies are read by its parser.

The conversation grows by segments. The opening is the rendered question; what stands between two replies is the
difference that a tool's result makes to a rendered conversation. So what the policy sampled is never rendered again,
and the whole is what the template itself would write. ``Grammar`` finds the parts, and refuses a template that does
not keep its past.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.errors import ConfigError
from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.formats import Format
from rollouts.formats.grammar import USER, Message, Template, calling, read_grammar, reply_after, result
from rollouts.types import Force, Task, Turn

_UNREADABLE = "unreadable_call"
"""Named as the tool whose result tells of a call that could not be read."""
_QUESTION = "probe_question_in_its_place"
_RESULT = "probe_result_in_its_place"
_ODD = ('{"a": [1, "b"]}', "[1]", "3.50", "true", "null", 'It\'s "b" \\ c\n\n  <d> & é {e}')
"""Results that a template may write otherwise than they are, if it does more than to place them."""
_KEPT = 256
"""Renderings that are kept to be used again."""
_UNSETTLED = re.compile(r"\s*(?:<[^<>]*)?$")
"""The end of a growing answer that may yet be taken for something else: white space, and a tag that has begun."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply says."""

    calls: tuple[ToolCall | MalformedCall, ...]
    content: str
    """Outside of calls and thoughts."""
    thinking: str = ""


class ChatFormat(Format):
    """A chat template as a format. Replies end with the token that ends the assistant's turn."""

    name = "chat"

    def __init__(self, template: Template, *, system: str = "") -> None:
        """
        Args:
            template: the model's.
            system: the system message; none by default.

        Raises:
            ConfigError: the template cannot be used for tools turn by turn, or its parser does not read its calls.
        """
        self.template = template
        self.system = system
        self.grammar = read_grammar(template)
        self.stop = tuple(dict.fromkeys(filter(None, (self.grammar.call_end, self.grammar.answer_end))))
        self.parallel = self.grammar.parallel
        self._openings: dict[tuple[str, ...], tuple[tuple[ToolSpec, ...], str, str]] = {}
        """By the names of the tools: what stands around a question."""
        self._called: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {}
        """By the names of the called tools: a conversation up to their results, and the texts around these, if they are
        written in their order."""
        self._control = re.compile("|".join(map(re.escape, sorted(template.control, key=len, reverse=True))) or "(?!)")
        example = self._unended(self.write_call(ToolCall("the_tool", {"parameter": "value"}), ()))
        self._example = example[len(self.grammar.call) - len(self.grammar.mark) :].strip() or example
        self._require_readable()
        self.opening(Task(id="probe", prompt="probe"), ())
        self._verbatim = self._is_verbatim()

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        prompt = self._tame(task.prompt)
        if not prompt or prompt != prompt.strip():
            return self._opening(prompt, specs)  # a template may trim it
        names = tuple(spec.name for spec in specs)
        known, before, after = self._openings.get(names, (None, "", ""))
        if known != (specs := tuple(specs)):
            before, _, after = self._opening(_QUESTION, specs).partition(_QUESTION)
            if len(self._openings) >= _KEPT:
                self._openings.clear()
            self._openings[names] = (specs, before, after)
        return before + prompt + after

    def _opening(self, prompt: str, specs: Sequence[ToolSpec]) -> str:
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": prompt})
        tools = [self._tame_values(spec.as_openai()) for spec in specs]
        try:
            return self.template.render(messages, tools, generation=True)
        except ValueError as error:
            names = ", ".join(spec.name for spec in specs[:3])
            raise ConfigError(
                f"the chat template cannot render {'a system message and ' if self.system else ''}the tools "
                f"{names or '(none)'}: {error}; see the tools' schemas, or give another template"
            ) from error

    def observed(self, turn: Turn) -> str:
        calls = [ToolCall(self._tame(call.tool), {}) if isinstance(call, ToolCall) else _FAILED for call in turn.calls]
        seen = [each.content if each.ok else f"error: {each.content}" for each in turn.observations]
        names, contents = tuple(call.tool for call in calls), tuple(map(self._tame, seen))
        frame = (
            self._known(names)[1] if self._verbatim and all(text and text == text.strip() for text in contents) else ()
        )
        after = _filled(frame, contents) if frame else self._results(names, contents)
        end = self.grammar.call_end
        ended = turn.completion.finish == "end" or (end and turn.completion.text.endswith(end))
        return after if ended else end + after

    def _is_verbatim(self) -> bool:
        """Whether the template writes results as they are, so that what stands around them is rendered only once."""
        try:
            frame = self._known(("probe",))[1]
            return bool(frame) and all(_filled(frame, [text]) == self._results(("probe",), [text]) for text in _ODD)
        except ValueError:
            return False

    def _known(self, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """See ``_called``."""
        if names not in self._called:
            if len(self._called) >= _KEPT:
                self._called.clear()
            called = [USER, calling([ToolCall(name, {}) for name in names])]
            self._called[names] = (self.template.render(called, (), generation=False).rstrip(), ())
            places = [f"{_RESULT}_{number}_" for number in range(len(names))]
            text = self._results(names, places)
            frame = tuple(re.split("|".join(places), text))
            placed = len(frame) == len(names) + 1 and _filled(frame, places) == text
            self._called[names] = (self._called[names][0], frame if placed else ())
        return self._called[names]

    def _results(self, names: tuple[str, ...], contents: Sequence[str]) -> str:
        """What stands between calls of these tools and the next reply, from the end of the turn on."""
        calls = [ToolCall(name, {}) for name in names]
        results = [result(name, text, number) for number, (name, text) in enumerate(zip(names, contents, strict=True))]
        before = self._known(names)[0]
        after = self.template.render([USER, calling(calls), *results], (), generation=True)[len(before) :]
        end = self.grammar.call_end
        return after if before.endswith(end) else after.lstrip().removeprefix(end)

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        return self.read(text, specs).calls

    def read(self, text: str, specs: Sequence[ToolSpec]) -> Reading:
        """Calls, content and thought of a reply. A call that cannot be read is malformed, never content."""
        own = self._unended(text)
        named = [spec.as_openai() for spec in specs if spec.name in text]
        try:
            message = self.template.parse(own, named, prefix=self.grammar.prefix, end=self.grammar.end)
            calls = tuple(_call(each) for each in message.get("tool_calls") or ())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return Reading((self._malformed(text, _cause(error)),), "")
        content = self._unended(str(message.get("content") or "").strip())
        thinking = self._unended(str(message.get("reasoning_content") or message.get("thinking") or "").strip())
        untold = "" if calls or content else own.replace(thinking, "", 1)
        if not calls and not content and not thinking:
            content = own.strip()  # the template has a place for an answer, and it stands elsewhere
        if not calls and self.grammar.begins_call(content or untold, [spec.name for spec in specs]):
            calls = (self._malformed(text, "it begins like a call and is none"),)
        elif calls and self.grammar.unclosed(own):
            calls = (self._malformed(text, f"it is not closed by {self.grammar.closing}"),)
        elif len(calls) > 1 and not self.parallel:
            calls = (MalformedCall(text, f"there are {len(calls)} calls in this reply; make one at a time"),)
        return Reading(calls, content, thinking)

    def answer(self, text: str) -> str:
        return self.read(text, ()).content

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        own = self._unended(text)
        begins = self.grammar.answer.strip()
        if begins and "<think>" not in begins:
            _, begun, own = own.partition(begins)
            if not begun:
                return None
        elif "<think>" in own or self.grammar.prefix.rstrip().endswith("<think>"):
            _, closed, own = own.partition("</think>")
            if not closed:
                return None
        elif "<think>".startswith(own.strip()):
            return None
        tag = self.grammar.mark.split()[0] if self.grammar.mark.split() else ""
        if tag and tag[0] in "{[" and own.lstrip().startswith(tag[0]):
            return None
        content = own.partition(tag)[0] if tag.startswith("<") else own
        return content[: _settled(content)].strip()

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        if force == "direct":
            return self.grammar.answer
        if len(specs) != 1:
            return self.grammar.call
        bare, given = (self.write_call(ToolCall(specs[0].name, values), ()) for values in ({}, {"probe": "value"}))
        same = next(at for at in range(len(given)) if not bare.startswith(given[: at + 1]))
        return given[:same].rstrip("{<[( \t\n:")

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        return self.write_calls((call,), specs)

    def write_calls(self, calls: Sequence[ToolCall], specs: Sequence[ToolSpec], content: str = "") -> str:
        tamed = [ToolCall(self._tame(call.tool), self._tame_values(call.arguments)) for call in calls]
        return self._written(calling(tamed, self._tame(content)), self.grammar.call_end)

    def write_answer(self, answer: str) -> str:
        return self._written({"role": "assistant", "content": self._tame(answer)}, self.grammar.answer_end)

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        return self.template.control

    def _written(self, message: Message, end: str) -> str:
        """The assistant's message as the reply that a policy would write."""
        text = reply_after(self.grammar.asked, self.template.render([USER, message], (), generation=False)).rstrip()
        return text if text.endswith(end) else text + end

    def _unended(self, text: str) -> str:
        for end in self.stop:
            if text.endswith(end):
                return text.removesuffix(end)
        return text

    def _tame(self, text: str) -> str:
        """The text with a space in every control token, so that nobody but the template ends a turn or begins one."""
        return self._control.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)

    def _tame_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(self._tame(json.dumps(dict(values), ensure_ascii=False)))

    def _malformed(self, text: str, cause: str) -> MalformedCall:
        return MalformedCall(text, f"this cannot be read as a call: {cause}; write a call as {self._example}")

    def _require_readable(self) -> None:
        """See that the parser reads what the template writes.

        Raises:
            ConfigError: it does not.
        """
        spec = ToolSpec("probe_tool", "", {"type": "object", "properties": {"probe": {"type": "string"}}})
        some, none = ToolCall(spec.name, {"probe": "a b"}), ToolCall(spec.name, {})
        for calls in ((some,), (none,), (some, none))[: 3 if self.parallel else 2]:
            text = self.write_calls(calls, (spec,))
            if (read := self.parse(text, (spec,))) != calls:
                raise ConfigError(
                    f"the parser of this chat template does not read the calls that the template writes: it took "
                    f"{text!r} for {read or 'an answer'}; give the parser as a response_template"
                )
        if self.answer(self.write_answer("probe")) != "probe":
            raise ConfigError(
                f"the parser of this chat template does not find the answer in {self.write_answer('probe')!r}; "
                "give the parser as a response_template"
            )


_FAILED = ToolCall(_UNREADABLE, {})


def _filled(frame: Sequence[str], contents: Sequence[str]) -> str:
    """What stands around results, and these."""
    return "".join(part for pair in zip(frame, (*contents, ""), strict=True) for part in pair)


def _call(wire: Any) -> ToolCall:
    """A call from its message form. Raises ValueError where it names no tool, or its arguments are no object."""
    function = wire.get("function", wire)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("it names no tool")
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, Mapping | None):
        raise ValueError(f"its arguments are a {type(arguments).__name__} and have to be an object")
    json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    return ToolCall(name.strip(), dict(arguments or {}))


def _cause(error: Exception) -> str:
    """What went wrong, in one line: parsers quote the text before they say what is wrong with it."""
    if isinstance(error, ValueError):
        return " ".join(str(error).split("Error: ")[-1].split())[:200]
    return "it has another shape"


def _settled(content: str) -> int:
    unsettled = _UNSETTLED.search(content)
    return unsettled.start() if unsettled else len(content)
