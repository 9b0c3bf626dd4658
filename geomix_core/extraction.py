"""Next-token logits of two local Hugging Face models over the same prompts, for the extra geomix[hf].

extract("student/", "teacher/", read_prompts("prompts.jsonl"), "logits.safetensors")

Nothing is downloaded, and no code that comes with a model is run.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor

from geomix_core.errors import FileError, OptionError
from geomix_core.file_words import show
from geomix_core.outputs import whole
from geomix_core.prompts import Prompt, Row, header_metadata, rows_path, rows_to_bytes

Positions = Literal["last", "all"]
Role = Literal["theta", "target"]
ROLES: tuple[Role, ...] = ("theta", "target")
DTYPES = {
    "float16": (torch.float16, "F16"),
    "bfloat16": (torch.bfloat16, "BF16"),
    "float32": (torch.float32, "F32"),
}
"""What logits are stored as: torch's type, and its name in a .safetensors header."""
MAX_LOGITS = 1 << 28
"""Logits in memory at a time, unless one prompt alone has more."""

# What transformers and what it calls raise on files that are no model.
_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.PickleError,
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was written."""

    rows: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model lies: a folder, and the name of a GGUF file in it if that is the model."""

    folder: Path
    gguf: str | None

    @property
    def name(self) -> str:
        return self.gguf or self.folder.resolve().name

    @property
    def options(self) -> dict[str, Any]:
        file = {} if self.gguf is None else {"gguf_file": self.gguf}
        return {"local_files_only": True, "trust_remote_code": False, **file}


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The tokens of one prompt and its response, as one model sees them."""

    tokens: tuple[int, ...]
    first: int
    """Index of the first token whose successor is asked for; the last token's is always."""

    @property
    def rows(self) -> int:
        return len(self.tokens) - self.first


def extract(
    theta: str | Path,
    target: str | Path,
    prompts: Sequence[Prompt],
    out: str | Path,
    *,
    chat: bool = False,
    positions: Positions = "last",
    dtype: str = "float16",
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> Extracted:
    """Write next-token logits `[rows, V]` of both models into a .safetensors file, as `theta` and `target`.

    Args:
        theta, target: a folder with a causal language model, or a GGUF file. Both must have one tokenizer.
        prompts: what the models see; a row stands after the prompt and the response.
        out: the file; `prompts.rows_path(out)` is written beside it. Both are written whole or not at all.
        chat: the prompt is the user's turn in each model's own chat template, the response the assistant's; otherwise
            the prompt is the beginning of a text.
        positions: "last": one row a prompt, after the response; "all": one before each of its tokens, too.
        dtype: "float16", "bfloat16" or "float32". Models compute in the type of their weights, GGUF in float32.
        batch_size: prompts at a time. The logits in memory are bounded by that and by `MAX_LOGITS`.
        device: where the models run, one after the other.
        on_progress: called with how many rows of both models are done, and how many there are.

    The highest logit of a row is 0: that changes no policy, and keeps the digits of likely tokens. Raises FileError for
    models that cannot be loaded or do not fit together, for prompts that do not fit into them, and for `out`.
    """
    out = Path(out)
    if out.suffix.lower() != ".safetensors":
        raise FileError(f"{show(str(out))} is no name for the output: expected one that ends in .safetensors.")
    if dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}: expected one of {', '.join(DTYPES)}.")
    if positions not in get_args(Positions):
        raise OptionError(f"positions is {positions!r}: expected one of {', '.join(get_args(Positions))}.")
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}: expected at least 1.")
    if not prompts:
        raise FileError("There is no prompt: expected at least one.")
    transformers = _transformers()
    places: dict[Role, _Place] = {"theta": _place(theta), "target": _place(target)}
    by_place = {place: _load(transformers.AutoTokenizer, place) for place in dict.fromkeys(places.values())}
    tokenizers = {role: by_place[places[role]] for role in ROLES}
    _check_tokenizers(places, tokenizers, prompts)
    rows, sequences = _sequences(places, tokenizers, prompts, chat, positions)
    vocabulary = _vocabulary(transformers, places, tokenizers, sequences)
    described = rows_to_bytes(rows)
    names = places["theta"].name, places["target"].name
    done, model = 0, None
    try:
        with whole(out) as stream, whole(rows_path(out)) as beside:
            beside.write(described)
            stream.write(_header((len(rows), vocabulary), dtype, header_metadata(*names, described)))
            for role in ROLES:
                if model is None or places["theta"] != places["target"]:
                    model = None  # so that there is room for the next
                    model = _model(transformers, places[role], device)
                for logits in _logits(model, sequences[role], places[role], batch_size, vocabulary):
                    _write(stream, logits, dtype)
                    done += len(logits)
                    on_progress(done, 2 * len(rows))
    except OSError as error:
        raise FileError(f"{out} cannot be written: {type(error).__name__}.") from error
    return Extracted(len(rows), vocabulary)


# --- models and tokenizers ---------------------------------------------------------------------------------------


def _transformers() -> Any:
    # Read when it is imported. Nothing is asked of a network even where something is missing.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    try:
        import transformers
    except ImportError as error:
        raise FileError(
            'Running models needs transformers, which is not installed here: pip install "geomix[hf]".'
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _place(path: str | Path) -> _Place:
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _Place(path.parent, path.name)
    if not path.is_dir():
        raise FileError(
            f"{show(str(path))} is {'no model' if path.exists() else 'not there'}: expected a folder with a model as "
            "save_pretrained writes it, or a .gguf file. Nothing is downloaded."
        )
    if (path / "config.json").is_file():
        return _Place(path, None)
    files = sorted(file.name for file in path.glob("*.gguf"))
    if len(files) == 1:
        return _Place(path, files[0])
    raise FileError(
        f"{show(str(path))} holds no config.json and {len(files)} .gguf files: "
        + ("name one of those." if files else "expected a model as save_pretrained writes it, or a .gguf file.")
    )


def _load(kind: Any, place: _Place, **options: Any) -> Any:
    with _Blame(place):
        return kind.from_pretrained(place.folder, **place.options, **options)


class _Blame:
    """What libraries raise in the block, as a FileError that names the model."""

    def __init__(self, place: _Place) -> None:
        self._shown = show(place.name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from huggingface_hub.errors import StrictDataclassError
        from jinja2 import TemplateError

        if isinstance(error, torch.OutOfMemoryError):
            raise FileError(
                f"{self._shown} needs more memory than the device has. Use a smaller --batch-size or another --device."
            ) from error
        # tokenizers, which is written in Rust, raises Exception itself.
        if kind is Exception or isinstance(error, (*_ERRORS, StrictDataclassError, TemplateError)):
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = reason if len(reason) <= 300 else reason[:300] + "…"
            raise FileError(
                f"{self._shown} cannot be used as a causal language model with its tokenizer: "
                f"{reason if reason.isprintable() else ascii(reason)}"
            ) from error


def _model(transformers: Any, place: _Place, device: torch.device | str) -> Any:
    dtype = "auto" if place.gguf is None else torch.float32
    model = _load(transformers.AutoModelForCausalLM, place, dtype=dtype)
    with _Blame(place):
        return model.to(device).eval()


def _check_tokenizers(places: Mapping[Role, _Place], tokenizers: Mapping[Role, Any], prompts: Sequence[Prompt]) -> None:
    """Raises FileError that names the first difference: of token names, then of how the texts are cut."""
    by_id = [{i: token for token, i in tokenizers[role].get_vocab().items()} for role in ROLES]
    differ = f"{show(places['theta'].name)} and {show(places['target'].name)} have different tokenizers: "
    if by_id[0] != by_id[1]:
        i = min(i for i in by_id[0].keys() | by_id[1].keys() if by_id[0].get(i) != by_id[1].get(i))
        a, b = (show(tokens[i]) if i in tokens else "not there" for tokens in by_id)
        raise FileError(f"{differ}token {i} is {a} in the one and {b} in the other. Expected one tokenizer.")
    for number, prompt in enumerate(prompts):
        for text in (prompt.prompt, prompt.response):
            one, other = (_encoded(places[role], tokenizers[role], text) for role in ROLES)
            if one != other:
                raise FileError(
                    f"{differ}they cut prompt {number} or its response into other tokens. Expected one tokenizer."
                )


def _encoded(place: _Place, tokenizer: Any, text: str, special: bool = False) -> tuple[int, ...]:
    with _Blame(place):
        return tuple(tokenizer(text, add_special_tokens=special)["input_ids"])


def _vocabulary(
    transformers: Any,
    places: Mapping[Role, _Place],
    tokenizers: Mapping[Role, Any],
    sequences: Mapping[Role, list[_Sequence]],
) -> int:
    """How many logits both models have: some pad their embeddings to a rounder number than others do."""
    sizes = []
    for role in ROLES:
        about = _load(transformers.AutoConfig, places[role]).get_text_config()
        shown, size = show(places[role].name), int(about.vocab_size)
        limit = getattr(about, "max_position_embeddings", None)
        for number, sequence in enumerate(sequences[role]):
            if isinstance(limit, int) and len(sequence.tokens) > limit:
                raise FileError(
                    f"Prompt {number} with its response has {len(sequence.tokens):,} tokens: {shown} takes at most "
                    f"{limit:,}. Shorten it."
                )
            if max(sequence.tokens) >= size:
                raise FileError(
                    f"Prompt {number} has a token that {shown} does not know: its tokenizer has "
                    f"{len(tokenizers[role]):,} tokens, the model {size:,}. Save them again together."
                )
        sizes.append(size)
    if sizes[0] != sizes[1] and min(sizes) < len(tokenizers["theta"]):
        raise FileError(
            f"The models have {sizes[0]:,} and {sizes[1]:,} logits, and their tokenizer {len(tokenizers['theta']):,} "
            "tokens: expected models that know the same tokens."
        )
    return min(sizes)


# --- prompts to rows ---------------------------------------------------------------------------------------------


def _sequences(
    places: Mapping[Role, _Place],
    tokenizers: Mapping[Role, Any],
    prompts: Sequence[Prompt],
    chat: bool,
    positions: Positions,
) -> tuple[list[Row], dict[Role, list[_Sequence]]]:
    """What each row is, and the tokens that each model is to see.

    The response is cut into tokens by itself, so that its tokens are the same behind any prompt.
    """
    rows: list[Row] = []
    sequences: dict[Role, list[_Sequence]] = {role: [] for role in ROLES}
    for number, prompt in enumerate(prompts):
        response = _encoded(places["theta"], tokenizers["theta"], prompt.response)
        for role in ROLES:
            text = prompt.seen_by(role)
            if chat:
                text = _in_template(places[role], tokenizers[role], text)
            tokens = _encoded(places[role], tokenizers[role], text, special=not chat)
            if not tokens:
                raise FileError(f"Prompt {number} is empty for {show(places[role].name)}: expected at least one token.")
            last = len(tokens) + len(response) - 1
            sequences[role].append(_Sequence(tokens + response, last if positions == "last" else len(tokens) - 1))
        for position in range(len(response) if positions == "last" else 0, len(response) + 1):
            whole_response = position == len(response)
            text = prompt.response if whole_response else tokenizers["theta"].decode(response[:position])
            rows.append(Row(prompt.prompt, text, prompt.theta_prompt, prompt.target_prompt, position))
    return rows, sequences


def _in_template(place: _Place, tokenizer: Any, text: str) -> str:
    if not tokenizer.chat_template:
        raise FileError(f"{show(place.name)} has no chat template. Use --raw, or a model that was trained to chat.")
    turns = [{"role": "user", "content": text}]
    with _Blame(place):
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


# --- logits ------------------------------------------------------------------------------------------------------


def _logits(
    model: Any, sequences: Sequence[_Sequence], place: _Place, batch_size: int, vocabulary: int
) -> Iterator[Tensor]:
    """The logits of every row, in order, a few at a time, `[rows, V]` in float32 on the CPU."""
    chooses = "logits_to_keep" in inspect.signature(model.forward).parameters
    for batch in _batches(sequences, batch_size, vocabulary):
        length = max(len(x.tokens) for x in batch)
        # Padded on the right, what a causal model says of the tokens before does not change.
        tokens = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros(len(batch), length, dtype=torch.long)
        for i, x in enumerate(batch):
            tokens[i, : len(x.tokens)] = torch.tensor(x.tokens)
            mask[i, : len(x.tokens)] = 1
        asked = sorted({at for x in batch for at in range(x.first, len(x.tokens))})
        options = {"logits_to_keep": torch.tensor(asked, device=model.device)} if chooses else {}
        with _Blame(place), torch.inference_mode():
            found = model(
                input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False, **options
            ).logits
        if found.shape[-1] < vocabulary:
            raise FileError(
                f"{show(place.name)} has {found.shape[-1]:,} logits, not the {vocabulary:,} of its config.json."
            )
        index = {at: i if chooses else at for i, at in enumerate(asked)}
        for i, x in enumerate(batch):
            yield found[i, [index[at] for at in range(x.first, len(x.tokens))], :vocabulary].float().cpu()


def _batches(sequences: Sequence[_Sequence], batch_size: int, vocabulary: int) -> Iterator[list[_Sequence]]:
    batch: list[_Sequence] = []
    rows = 0
    for sequence in sequences:
        full = (len(batch) + 1) * (rows + sequence.rows) * vocabulary > MAX_LOGITS
        if batch and (len(batch) == batch_size or full):
            yield batch
            batch, rows = [], 0
        batch.append(sequence)
        rows += sequence.rows
    yield batch


def _header(shape: tuple[int, int], dtype: str, metadata: dict[str, str]) -> bytes:
    """The beginning of a .safetensors file with two arrays of that shape."""
    kind, name = DTYPES[dtype]
    size = shape[0] * shape[1] * kind.itemsize
    entries = {
        role: {"dtype": name, "shape": list(shape), "data_offsets": [i * size, (i + 1) * size]}
        for i, role in enumerate(ROLES)
    }
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)  # the arrays begin where they can be memory-mapped
    return len(header).to_bytes(8, "little") + header


def _write(stream: IO[bytes], logits: Tensor, dtype: str) -> None:
    logits = (logits - logits.amax(-1, keepdim=True)).to(DTYPES[dtype][0])
    stream.write(logits.contiguous().view(torch.uint8).numpy().data)
