"""The OpenAI requests the server understands, and the answers it gives, as JSON objects."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from orchestrator.simulator.requests import Request, token_text, tokenize
from orchestrator.vllm.version import at_least

_numbers = itertools.count(1)


class BadRequestError(Exception):
    """A request that vLLM answers with an error; `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Completion:
    """One parsed request: the engine's part, and how the client wants the answer."""

    request: Request
    chat: bool
    model: str
    identity: str
    created: int
    stream: bool
    include_usage: bool


def error_body(version: Version, error: BadRequestError) -> dict[str, Any]:
    """Return the error object; it moved below the key `error` in 0.10.1."""
    body = {"message": error.message, "type": error.kind, "param": None, "code": error.status}
    return {"error": body} if at_least(version, "0.10.1") else {"object": "error", **body}


def _whole_number(body: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequestError(f"{name} must be a whole number of at least 0, got {value!r}.")
    return value


def _chat_text(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages: a list with at least one message is required")
    parts = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise BadRequestError("messages: every message needs a role")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        parts.append(f"<|{message['role']}|>{content}<|end|>")
    return "".join(parts) + "<|assistant|>"


def _prompt_tokens(body: Mapping[str, Any], *, chat: bool) -> list[int]:
    if chat:
        return tokenize(_chat_text(body.get("messages")))
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return tokenize(prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise BadRequestError("prompt: text or a list of token ids is required")


def _too_long(version: Version, max_model_len: int, prompt: int, answer: int | None) -> BadRequestError | None:
    limit = f"This model's maximum context length is {max_model_len} tokens."
    if not at_least(version, "0.10.0"):
        asked = prompt + (answer or 1)
        if asked <= max_model_len:
            return None
        return BadRequestError(
            f"{limit} However, you requested {asked} tokens ({prompt} in the messages, {answer or 1} in the "
            "completion). Please reduce the length of the messages or completion."
        )
    if prompt >= max_model_len:
        return BadRequestError(
            f"{limit} However, your request has {prompt} input tokens. Please reduce the length of the input messages."
        )
    if answer is not None and prompt + answer > max_model_len:
        return BadRequestError(
            f"'max_tokens' or 'max_completion_tokens' is too large: {answer}. {limit[:-1]} and your request has "
            f"{prompt} input tokens ({answer} > {max_model_len} - {prompt})."
        )
    return None


def parse(body: Any, *, chat: bool, names: list[str], max_model_len: int, version: Version) -> Completion:
    """Read a request's JSON; raises BadRequestError with vLLM's wording."""
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    model = str(body.get("model") or names[0])
    if model not in names:
        raise BadRequestError(f"The model `{model}` does not exist.", status=404, kind="NotFoundError")
    prompt = _prompt_tokens(body, chat=chat)
    answer = _whole_number(body, "max_tokens", None if chat else 16)
    if chat:
        answer = _whole_number(body, "max_completion_tokens", answer)
    too_long = _too_long(version, max_model_len, len(prompt), answer)
    if too_long is not None:
        raise too_long
    options = body.get("stream_options")
    number = next(_numbers)
    return Completion(
        request=Request(
            prompt=prompt,
            max_tokens=answer or max_model_len - len(prompt),
            ignore_eos=body.get("ignore_eos") is True,
            min_tokens=_whole_number(body, "min_tokens", 0) or 0,
        ),
        chat=chat,
        model=model,
        identity=f"{'chatcmpl' if chat else 'cmpl'}-{number:032x}",
        created=int(time.time()),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def usage(request: Request) -> dict[str, int]:
    """Return the counts of prompt, answer and both."""
    return {
        "prompt_tokens": len(request.prompt),
        "total_tokens": request.tokens,
        "completion_tokens": request.produced,
    }


def _envelope(completion: Completion, kind: str) -> dict[str, Any]:
    return {
        "id": completion.identity,
        "object": kind,
        "created": completion.created,
        "model": completion.model,
    }


def whole_answer(completion: Completion) -> dict[str, Any]:
    """Return the answer to a request that does not stream."""
    request = completion.request
    text = "".join(token_text(index) for index in range(request.produced))
    choice: dict[str, Any] = {"index": 0, "logprobs": None}
    if completion.chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    choice["finish_reason"] = None if request.finish is None else request.finish.value
    kind = "chat.completion" if completion.chat else "text_completion"
    return {**_envelope(completion, kind), "choices": [choice], "usage": usage(request)}


def chunk(completion: Completion, text: str, finish: str | None) -> dict[str, Any]:
    """Return one event of a stream."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
    if completion.chat:
        choice["delta"] = {"content": text}
    else:
        choice["text"] = text
    kind = "chat.completion.chunk" if completion.chat else "text_completion"
    return {**_envelope(completion, kind), "choices": [choice]}


def usage_chunk(completion: Completion) -> dict[str, Any]:
    """Return the last event of a stream whose client asked for usage."""
    kind = "chat.completion.chunk" if completion.chat else "text_completion"
    return {**_envelope(completion, kind), "choices": [], "usage": usage(completion.request)}
