"""The preset's own tokenizer: one token per printable ASCII character, and a few specials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

SPECIALS = ("<pad>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>", "<tool>")
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))
ROLES = ("system", "user", "assistant", "tool")

# The plain rendering as transformers writes it; equal to PlainRendering in rendering.py.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


class CharacterTokenizer:
    """Characters to ids and back. Text never turns into a special token, whatever it spells."""

    def __init__(self) -> None:
        self.vocabulary = (*SPECIALS, *CHARACTERS)
        self._ids = {character: index for index, character in enumerate(CHARACTERS, start=len(SPECIALS))}
        self.pad, self.eos, self.unknown = (SPECIALS.index(name) for name in ("<pad>", "<eos>", "<unk>"))
        self.role = {role: SPECIALS.index(f"<{role}>") for role in ROLES}

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text's characters; anything but printable ASCII and newline is ``<unk>``."""
        return tuple(self._ids.get(character, self.unknown) for character in text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, specials left out."""
        return "".join(self.vocabulary[index] for index in ids if index >= len(SPECIALS))

    def save(self, directory: Path) -> None:
        """Write the files ``AutoTokenizer.from_pretrained`` reads; the same text gives the same ids there."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(self.vocabulary)}, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        inner.decoder = decoders.Fuse()
        inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
        fast = PreTrainedTokenizerFast(
            tokenizer_object=inner,
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            extra_special_tokens=[f"<{role}>" for role in ROLES],
            clean_up_tokenization_spaces=False,
        )
        fast.chat_template = CHAT_TEMPLATE
        fast.save_pretrained(directory)


def concatenated(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Join sequences of ids."""
    return tuple(index for part in parts for index in part)
