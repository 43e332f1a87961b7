"""Checkpoints: written aside and renamed, read without executing anything.

``step-000010/`` holds ``model.safetensors`` (the policy's module; where its library loads other tensors from a file of that
name, as a whole model in place of adapters, the module is ``module.safetensors``), ``tensors.safetensors`` (optimiser, kept weights,
component states), ``state.json`` (everything else) and the checksums of them all, so that a file that was cut off or changed
is noticed. Versions without checksums kept the files' sizes in ``state.json``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from orchestrator.contract.settings import MODEL_FILE
from orchestrator.errors import CheckpointError, describe
from orchestrator.runs import checksums
from orchestrator.runs.atomic import folder_aside, left_aside, remove

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

MODEL, TENSORS, STATE = MODEL_FILE, "tensors.safetensors", "state.json"
MODULE = "module.safetensors"  # the policy's module, where its library has other tensors in MODEL
_TENSOR = "__tensor__"


def save_checkpoint(folder: Path, step: int, policy: Any, state: Mapping[str, Any], *, keep: int) -> Path:
    """Write ``folder/step-NNNNNN`` whole or not at all, then remove all but the newest ``keep``.

    :param policy: its module is saved; a policy with ``export(directory)`` adds what its own library loads
    :param state: JSON values and tensors, nested in dicts with string keys and lists
    :raises OSError: the disk is full or not writable; earlier checkpoints are untouched
    Checkpoints of later steps (unreadable ones that a resumed trial went back from) do not count as kept.
    """
    target = folder / f"step-{step:06d}"
    with folder_aside(target) as aside:
        if hasattr(policy, "export"):
            with _disk_errors(aside):
                policy.export(aside)
        module = module_tensors(policy.module)
        _save_tensors(module, aside / (MODULE if _holds_others(aside / MODEL, module) else MODEL))
        tensors: dict[str, Tensor] = {}
        skeleton = _split(state, tensors, "")
        _save_tensors(tensors, aside / TENSORS)
        (aside / STATE).write_text(json.dumps({"step": step, "state": skeleton}, allow_nan=True), encoding="utf-8")
        checksums.seal(aside, sorted(file for file in aside.rglob("*") if file.is_file()))
    found = checkpoints(folder)
    for old in found[: found.index(target) + 1][:-keep]:
        remove(old)
    return target


def expect_saveable(state: Any) -> None:
    """Find out whether a component's state could be saved, without saving it.

    :raises TypeError: saying where in the state stands what a checkpoint does not hold
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state_dict() returned a {type(state).__name__}; expected a dict of JSON values and tensors")
    _split(state, None, "")


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first, readable or not."""
    found = (path for path in folder.glob("step-*") if path.is_dir())
    return sorted(found, key=lambda path: (len(path.name), path.name))  # a seventh digit follows the six padded ones


def reach(path: Path) -> tuple[int, int]:
    """The step a checkpoint was saved after, and the last one that was evaluated by then; -1: none, or not readable."""
    number = path.name.removeprefix("step-")
    step = int(number) if number.isascii() and number.isdigit() else 0
    try:
        _refuse_damage(path)
        return step, int(json.loads((path / STATE).read_text(encoding="utf-8"))["state"]["evaluated"])
    except (CheckpointError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return step, -1  # whoever loads it says what is wrong


def load_newest(folder: Path, policy: Any) -> tuple[int, dict[str, Any]] | None:
    """Load the newest readable checkpoint into the policy; an unreadable one is named and passed over.

    What a killed process left half written is removed.

    :returns: (step, state), or None when there is no checkpoint at all
    :raises CheckpointError: there are checkpoints, and none can be read
    """
    for left in left_aside(folder):
        shutil.rmtree(left, ignore_errors=True)
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            step, state, module = read_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; going back to the checkpoint before it", error)
            continue
        load_module(policy.module, module, path)
        return step, state
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} can be read; remove the folder to start the trial over"
        )
    return None


def read_checkpoint(path: Path) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """Read one checkpoint.

    :returns: step, state, tensors of the module
    :raises CheckpointError: a file is missing, cut off or not what was written
    """
    _refuse_damage(path)
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        if "files" not in content:
            _refuse_unsealed(path)
        for name, size in content.get("files", {}).items():  # of versions without checksums
            actual = (path / name).stat().st_size
            if actual != size:
                raise CheckpointError(f"checkpoint {path}: {name} has {actual} bytes, {size} were written")
        tensors = load_file(path / TENSORS)
        return int(content["step"]), _join(content["state"], tensors), load_file(_module_file(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {describe(error)}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of the module from a checkpoint, or from a folder that holds them alone.

    :raises CheckpointError: they are missing or not what was written
    """
    _refuse_damage(path)
    if (path / STATE).exists():
        return read_checkpoint(path)[2]
    try:
        return load_file(path / MODEL)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"start weights {path / MODEL} cannot be read: {error}") from error


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors for safetensors: contiguous, tied ones once, under their first name."""
    seen: dict[int, str] = {}
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.numel() and seen.setdefault(tensor.data_ptr(), name) != name:
            continue
        tensors[name] = tensor.detach().cpu().contiguous()
    return tensors


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], source: Path, *, partial: bool = False) -> None:
    """Load tensors into a module; tied ones may be missing, and those it says are ``left_out`` are passed over.

    :param partial: parameters the source lacks (a value head made later) keep their initial values
    :raises CheckpointError: names or shapes do not fit
    """
    own = module.state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in getattr(module, "left_out", ())}
    ties: dict[int, str] = {}
    for name, tensor in own.items():
        if tensor.numel():
            ties.setdefault(tensor.data_ptr(), name)
    needed = {name for name, tensor in own.items() if not tensor.numel() or ties[tensor.data_ptr()] == name}
    unknown = sorted(tensors.keys() - own.keys())
    missing = sorted(needed - tensors.keys())
    shapes = sorted(n for n in tensors.keys() & own.keys() if tensors[n].shape != own[n].shape)
    if unknown or shapes or (missing and not partial) or not tensors.keys() & own.keys():
        raise CheckpointError(
            f"{source} does not fit the policy: unknown {unknown[:3]}, missing {missing[:3]}, "
            f"of another shape {shapes[:3]}; was it written by a policy with other options?"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _holds_others(path: Path, module: Mapping[str, Tensor]) -> bool:
    """Whether what a policy exported has none of the module's tensors: a model that the module only adapts."""
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        return not module.keys() & set(file.keys())


def _module_file(path: Path) -> Path:
    return path / MODULE if (path / MODULE).exists() else path / MODEL


def _refuse_damage(path: Path) -> None:
    damage = checksums.broken(path)
    if damage:
        raise CheckpointError(f"checkpoint {path}: {'; '.join(damage)}")


def _refuse_unsealed(path: Path) -> None:
    """What has no checksum cannot be told from what is damaged."""
    bare = sorted({MODEL, TENSORS, STATE} - checksums.sealed(path).keys())
    if bare:
        raise CheckpointError(f"checkpoint {path}: {checksums.NAME} lacks the checksum of {', '.join(bare)}")


def _split(value: Any, tensors: dict[str, Tensor] | None, path: str) -> Any:
    """Replace tensors by their place in a safetensors file.

    :param tensors: gets copies of them; None: only look
    """
    if isinstance(value, torch.Tensor):
        if tensors is not None:
            tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(
                f"state at {path or 'the top'} has a key that is no string; checkpoints hold JSON and tensors"
            )
        return {key: _split(item, tensors, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, tensors, f"{path}/{index}") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"state at {path or 'the top'} is a {type(value).__name__}; checkpoints hold JSON values and tensors, nested in dicts "
        "with text keys and lists"
    )


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    with _disk_errors(path):
        save_file(tensors, path)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what safetensors makes of a full disk into an error of the system."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
