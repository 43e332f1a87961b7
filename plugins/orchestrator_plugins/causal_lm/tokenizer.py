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
        """Write the files ``AutoTokenizer.from_pretrained`` reads; text in printable ASCII gives the same ids there.

        transformers reads the tokenizer of a Qwen2 model as byte-level BPE whatever its files say, so it is written
        as one without merges. There, a character outside the vocabulary is left out instead of ``<unk>``.
        """
        from transformers import Qwen2Tokenizer

        spelling = {" ": "\u0120", "\n": "\u010a"}  # how byte-level BPE spells them
        tokenizer = Qwen2Tokenizer(
            vocab={spelling.get(token, token): index for index, token in enumerate(self.vocabulary)},
            merges=[],
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            extra_special_tokens=[f"<{role}>" for role in ROLES],
        )
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.save_pretrained(directory)


def concatenated(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Join sequences of ids."""
    return tuple(index for part in parts for index in part)
