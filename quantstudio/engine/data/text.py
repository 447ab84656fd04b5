"""Text as a language model reads it: windows of tokens, and what every other input gets beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import DataError
from quantstudio.core.files import file_digest
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import ModelSummary, TensorInfo
from quantstudio.engine.data.text_inputs import TextInputs

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
# Tokens of a sample where nobody says: long enough that what came before helps, short enough that a
# vocabulary of a hundred thousand fits beside it.
DEFAULT_CONTEXT = 256
# Tokens a model may be given at once where nothing says how many it reads: costs grow with their square.
_UNTOLD_CONTEXT = 8192
# Characters encoded at a time: memory stays flat, and the tokenizer has a whole batch for its threads.
_BLOCK = 1 << 16
_BLOCKS = 16
_LONGEST_LINE = 1 << 20
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_FIELDS = ("text", "content", "prompt")


@dataclass(frozen=True, slots=True)
class TextNetwork:
    """What a network says of the text it reads.

    Attributes:
        folder: Where its file is; a tokenizer may be there.
        vocabulary: Rows of its embedding; None where that is not known.
        longest: Tokens it was made for; None where that is not known.
    """

    folder: Path | None = None
    vocabulary: int | None = None
    longest: int | None = None


def text_network(summary: ModelSummary) -> TextNetwork:
    """What an opened model says of the text it reads, itself and by what lies beside it."""
    folder = Path(summary.source_path).parent
    tables = [layer for layer in summary.layers if layer.op_type == "Gather" and layer.weight_shape]
    rows = {name: layer.weight_shape[0] for layer in tables for name in layer.inputs}
    ids = next(
        (info.name for info in summary.inputs if info.name in rows and "position" not in info.name), ""
    )
    table = next((count for name, count in rows.items() if "position" in name), None)
    told = _told_length(folder / CONFIG)
    known = [length for length in (table, told) if length is not None]
    return TextNetwork(folder, rows.get(ids), min(known, default=None))


def _told_length(config: Path) -> int | None:
    """What exporters write beside a model of how long its text may be."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = [values.get(key) for key in _LENGTHS] if isinstance(values, dict) else []
    return next((value for value in found if isinstance(value, int) and value > 0), None)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text cut into windows.

    Attributes:
        feeds: The windows as the network reads them.
        next_tokens: The token that comes behind each, int64 [N, T].
        digest: Stands for tokens and windows.
        fixed_batch: Windows the network insists on; None where any number is fine.
    """

    feeds: TextFeeds
    next_tokens: NDArray[np.int64]
    digest: str
    fixed_batch: int | None


class TextFeeds:
    """Feeds of windows of one text, of equal length.

    Args:
        windows: Tokens, int64 [N, T].
        inputs: What the network reads.
        tokenizer: That made the tokens.
    """

    def __init__(self, windows: NDArray[np.int64], inputs: TextInputs, tokenizer: Tokenizer) -> None:
        self._windows = windows
        self._inputs = inputs
        self._tokenizer = tokenizer
        self.sample_axes = inputs.sample_axes

    @property
    def stored(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Element type and shape of a window."""
        return {self._inputs.ids: (self._windows.dtype, self._windows.shape[1:])}

    def __len__(self) -> int:
        """Windows."""
        return len(self._windows)

    def read(self, start: int, stop: int, size: int) -> dict[str, NDArray[Any]]:
        """Windows start to stop, the last repeated up to `size`, with all else the network reads."""
        tokens = self._windows[start:stop]
        if len(tokens) < size:
            tokens = np.concatenate([tokens, np.repeat(tokens[-1:], size - len(tokens), axis=0)])
        return self._inputs.feed(tokens)

    def raw(self, index: int) -> NDArray[Any]:
        """Tokens of a window."""
        return np.array(self._windows[index])

    def words(self, index: int) -> str:
        """A window as text."""
        return str(self._tokenizer.decode(self._windows[index].tolist(), skip_special_tokens=False))


def open_text(spec: DataSpec, inputs: tuple[TensorInfo, ...], network: TextNetwork) -> Text:
    """The windows of a text file, bound to a language model.

    Windows follow each other without overlap, and each token's successor is judged, that of a window's last
    token included. What is left at the end of a text of several windows is not used.

    Args:
        spec: `.txt`, or `.jsonl` with one text a line (a string, or an object with one under "text").
        inputs: Inputs of the model.
        network: What it says of text.

    Raises:
        DataError: there is no tokenizer, it is of another model, the text is empty or too short, or the
            model reads something text does not give.
    """
    path = Path(spec.path)
    bound = TextInputs(inputs, spec.path)
    length = _context(spec, bound, network)
    file = _tokenizer_file(path, network)
    tokenizer = _tokenizer(file)
    wanted = spec.samples * length + 1 if spec.samples > 0 else None
    tokens = _tokens(path, tokenizer, wanted)
    if len(tokens) < 2:
        raise DataError(
            "the text is empty" if not len(tokens) else "the text is a single token, which nothing follows",
            where=spec.path,
            hint=Hint("Give some sentences more", HintAction.CHOOSE_DATA),
        )
    _check_vocabulary(tokens, network, file, tokenizer)
    if len(tokens) - 1 < length:
        if bound.length is not None:
            raise DataError(
                f"the text is {len(tokens)} tokens long, and the model reads {length} at a time",
                where=spec.path,
                hint=Hint("Give a longer text", HintAction.CHOOSE_DATA),
            )
        length = len(tokens) - 1
    count = (len(tokens) - 1) // length
    windows = tokens[: count * length].reshape(count, length)
    digest = hashlib.blake2b(windows.tobytes() + tokens[count * length].tobytes(), digest_size=16)
    digest.update(f"{windows.shape}{file_digest(file)}".encode())
    following = tokens[1 : count * length + 1].reshape(count, length)
    return Text(
        TextFeeds(windows, bound.of_length(length), tokenizer),
        following,
        digest.hexdigest(),
        bound.fixed_batch,
    )


def _context(spec: DataSpec, bound: TextInputs, network: TextNetwork) -> int:
    asked, fixed, longest = spec.transform.context, bound.length, bound.longest(network.longest)
    if asked and fixed is not None and asked != fixed:
        raise DataError(
            f"context={asked} asks for windows of another length than the model's, which is {fixed}",
            where=spec.path,
            hint="Leave context out of the transform",
        )
    if asked and longest is not None and asked > longest:
        raise DataError(
            f"context={asked} is longer than the model's context of {longest} tokens",
            where=spec.path,
            hint=f"Give context={longest} or less",
        )
    if asked and longest is None and fixed is None and asked > _UNTOLD_CONTEXT:
        raise DataError(
            f"context={asked}, and nothing says that the model reads so many tokens at once",
            where=spec.path,
            hint=f"Give context={_UNTOLD_CONTEXT} or less, or put the model's config.json beside it",
        )
    return fixed or asked or min(DEFAULT_CONTEXT, longest or DEFAULT_CONTEXT)


def _tokenizer_file(path: Path, network: TextNetwork) -> Path:
    if not path.is_file():
        raise DataError("no such file", where=str(path), hint=Hint("Check the path", HintAction.CHOOSE_DATA))
    folders = [path.parent, *([network.folder] if network.folder is not None else [])]
    found = next((folder / TOKENIZER for folder in folders if (folder / TOKENIZER).is_file()), None)
    if found is None:
        raise DataError(
            f"text needs the model's {TOKENIZER}, which is neither beside the text nor beside the model",
            where=str(path),
            hint=f"Copy {TOKENIZER} from where the model came from into the folder of either",
        )
    return found


def _tokenizer(file: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(
            "text needs the package tokenizers, which is not installed",
            hint="Install it: pip install tokenizers",
        ) from error
    try:
        found = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(
            f"the tokenizer cannot be read ({reason})", where=str(file), hint="Get it again from its source"
        ) from error
    # Many files ask for both, which would cut the text after a few hundred tokens.
    found.no_truncation()
    found.no_padding()
    return found


def _check_vocabulary(
    tokens: NDArray[np.int64], network: TextNetwork, file: Path, tokenizer: Tokenizer
) -> None:
    largest = int(tokens.max())
    if network.vocabulary is not None and largest >= network.vocabulary:
        raise DataError(
            f"the tokenizer gives token {largest} ({tokenizer.id_to_token(largest)!r}), but the model knows "
            f"{network.vocabulary}: they do not belong together",
            where=str(file),
            hint="Give the tokenizer.json that came with the model",
        )


def _tokens(path: Path, tokenizer: Tokenizer, wanted: int | None) -> NDArray[np.int64]:
    """Tokens of the whole text, or of its beginning where no more are wanted."""
    parts: list[NDArray[np.int64]] = []
    count, waiting = 0, list[tuple[str, bool]]()

    def encode() -> None:
        nonlocal count
        for is_first in (True, False):
            chosen = [at for at, (_, first) in enumerate(waiting) if first is is_first]
            texts = [waiting[at][0] for at in chosen]
            encoded = tokenizer.encode_batch(texts, add_special_tokens=is_first) if texts else []
            made.update({at: np.array(one.ids, np.int64) for at, one in zip(chosen, encoded, strict=True)})
        parts.extend(made[at] for at in range(len(waiting)))
        count += sum(len(made[at]) for at in range(len(waiting)))
        waiting.clear()
        made.clear()

    made: dict[int, NDArray[np.int64]] = {}
    for block in _blocks(path):
        waiting.append(block)
        if len(waiting) == _BLOCKS:
            encode()
        if wanted is not None and count >= wanted:
            break
    encode()
    tokens = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return tokens if wanted is None else tokens[:wanted]


def _blocks(path: Path) -> Iterator[tuple[str, bool]]:
    """Pieces of the text that end with a line, and whether a document starts there."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            if path.suffix.lower() == ".jsonl":
                for number, line in enumerate(handle, 1):
                    if line.strip():
                        yield _document(line, path, number), True
                return
            is_first = True
            while block := _block(handle):
                yield block, is_first
                is_first = False
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is not UTF-8 (byte {error.start})", where=str(path), hint="Save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"the text cannot be read ({error.strerror})", where=str(path)) from error


def _block(handle: TextIO) -> str:
    """Whole lines of somewhat more than a block; a line without end is cut, so that memory stays flat."""
    lines, count = list[str](), 0
    while count <= _BLOCK and (line := handle.readline(_LONGEST_LINE)):
        lines.append(line)
        count += len(line)
    return "".join(lines)


def _document(line: str, path: Path, number: int) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"line {number} is not JSON", where=str(path), hint='Write one {"text": "..."} a line'
        ) from error
    if isinstance(value, dict):
        value = next((value[key] for key in _FIELDS if key in value), None)
    if not isinstance(value, str):
        raise DataError(
            f"line {number} holds no text", where=str(path), hint='Write one {"text": "..."} a line'
        )
    # JSON may hold halves of characters, which no tokenizer reads.
    return value.encode("utf-8", "replace").decode("utf-8")
