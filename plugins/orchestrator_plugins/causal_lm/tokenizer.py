"""The preset's own tokenizer: one token per printable ASCII character, a few specials, and words on request."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

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
    """Characters and listed words to ids and back. Text never turns into a special token, whatever it spells.

    A listed word has two ids, one with the space before it. Text is read from the left, the longest word first,
    wherever it stands; so an action spelt by characters and the same text read back may be different ids.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        """Build the vocabulary.

        :param words: texts of two or more printable ASCII characters, each once, without space at either end
        """
        self.words = tuple(spelling for word in words for spelling in (word, f" {word}"))
        self.vocabulary = (*SPECIALS, *CHARACTERS, *self.words)
        self._ids = {text: index for index, text in enumerate(self.vocabulary) if index >= len(SPECIALS)}
        longest_first = sorted(self.words, key=len, reverse=True)
        self._pieces = re.compile("|".join([*map(re.escape, longest_first), "(?s:.)"]))
        self.pad, self.eos, self.unknown = (SPECIALS.index(name) for name in ("<pad>", "<eos>", "<unk>"))
        self._said = False
        self.role = {role: SPECIALS.index(f"<{role}>") for role in ROLES}

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text's words and characters; anything but printable ASCII and newline is ``<unk>``, which is said once."""
        if not text.isascii() and not self._said:
            self._said = True
            logger.warning(
                "the vocabulary of preset tiny has printable ASCII and line breaks only: %s are read as <unk>, each like the "
                "others, and cannot be written (said once). Spell them otherwise, or take a model with a vocabulary of its own, "
                "as model: {preset: smollm2}",
                ", ".join(sorted({repr(character) for character in text if not character.isascii()})),
            )
        pieces = self._pieces.findall(text) if self.words else text
        return tuple(self._ids.get(piece, self.unknown) for piece in pieces)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, specials left out."""
        return "".join(self.vocabulary[index] for index in ids if index >= len(SPECIALS))

    def save(self, directory: Path) -> None:
        """Write the files ``AutoTokenizer.from_pretrained`` reads; text in printable ASCII gives the same ids there.

        transformers reads the tokenizer of a Qwen2 model as byte-level BPE whatever its files say, so it is written
        as one without merges. There, a character outside the vocabulary is left out instead of ``<unk>``.
        """
        from transformers import AddedToken, Qwen2Tokenizer

        spelling = {" ": "\u0120", "\n": "\u010a"}  # how byte-level BPE spells them
        tokenizer = Qwen2Tokenizer(
            vocab={spelling.get(token, token): index for index, token in enumerate((*SPECIALS, *CHARACTERS))},
            merges=[],
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            extra_special_tokens=[f"<{role}>" for role in ROLES],
        )
        tokenizer.add_tokens([AddedToken(word, normalized=False) for word in self.words])
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.save_pretrained(directory)


def check_words(words: Sequence[str]) -> None:
    """Refuse what could not be told apart from other tokens, all of it at once.

    :raises ValueError: naming every word that cannot be one
    """
    wrong = sorted(
        {word for word in words if len(word) < 2 or word != word.strip() or not (word.isascii() and word.isprintable())}
        | {word for word, times in Counter(words).items() if times > 1}
    )
    if wrong:
        raise ValueError(
            f"words: {', '.join(map(repr, wrong))} cannot be words of the vocabulary; expected two or more printable "
            "ASCII characters, no space at either end, each word once"
        )


def concatenated(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Join sequences of ids."""
    return tuple(index for part in parts for index in part)
