"""What stands in for ``ray.serve.llm`` and vLLM where there is no GPU: the same interface over a model on the CPU."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import serve

VLLM = '''
class SamplingParams:
    """vLLM's, as far as a policy sets it."""

    def __init__(self, **fields):
        self.__dict__.update(fields)
'''
"""The text of a module ``vllm``."""


class TokenServer:
    """Writes greedily, token by token, and tells what it has written after each."""

    def __init__(self, path: str) -> None:
        from rl.models.load import load_model, load_tokenizer

        self.model = load_model(Path(path)).eval()
        self.tokenizer = load_tokenizer(Path(path))

    async def generate(self, prompt: Mapping[str, Any], sampling: Any, request: str) -> AsyncIterator[Any]:
        """See ``rl.serving.llm.llm_application``."""
        import torch

        ids = list(prompt["prompt_token_ids"])
        written: list[int] = []
        told: list[dict[int, Any]] = []
        reason = "length"
        for _ in range(sampling.max_tokens):
            with torch.no_grad():
                logits: Any = self.model(torch.tensor([ids + written])).logits[0, -1].log_softmax(-1)
            token = int(logits.argmax())
            written.append(token)
            told.append({token: SimpleNamespace(logprob=float(logits[token]))})
            text = self.tokenizer.decode([one for one in written if one != self.tokenizer.eos_token_id])
            ended = token == self.tokenizer.eos_token_id or any(stop in text for stop in sampling.stop or ())
            reason = "stop" if ended else reason
            chances = [None, *({one: SimpleNamespace(logprob=-1.0)} for one in ids[1:])]
            output = SimpleNamespace(token_ids=list(written), logprobs=list(told), finish_reason=reason, text=text)
            yield SimpleNamespace(outputs=[output], prompt_logprobs=chances)
            if ended:
                return


def application(name: str, path: Path, options: Any) -> Any:
    """What ``llm_application`` would make."""
    deployment: Any = serve.deployment
    return deployment(TokenServer, name="TokenServer", num_replicas=options.replicas).bind(str(path))
