"""Run alone: ``python -m pytest tests/test_serving.py``."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from ftlib import generation, serving
from ftlib.archives import UnsafeError
from ftlib.config import ROOT
from ftlib.schema import make_prompts

WREN = ROOT / "data" / "wren"
ADDRESS = "http://127.0.0.1:9"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Say "{{ hello }}"\nand stop.'},
    {"role": "assistant", "content": "hello\n\n"},
    {"role": "tool", "content": "found: 3 < 4"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "Again."},
]


def post(url, **body):
    """Ask a server over HTTP; return what it answers."""
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def list_children():
    """List the processes of this one that hold a server's command."""
    children = psutil.Process().children(recursive=True)
    return [c for c in children if "serve" in c.cmdline()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that looks like a model's; servers' logs go beside it."""
    monkeypatch.setattr(serving, "RUNS", tmp_path / "runs")
    made = tmp_path / "models" / "tiny"
    shutil.copytree(WREN, made, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file({"weight": torch.zeros(2)}, made / "model.safetensors")
    return made


@pytest.fixture
def pretend(monkeypatch):
    """Let Python code stand in for the server's."""

    def make(code):
        monkeypatch.setattr(serving, "_PLAIN", "import os, sys, time\n")
        monkeypatch.setattr(serving, "_COMMAND", code)

    return make


SERVE = f"print('running on {ADDRESS}', flush=True); "


# --- the server itself -------------------------------------------------------------


def test_over_http_a_model_answers_as_it_does_here_and_then_is_gone(
    folder, tiny_model, tokenizer
):
    model = tiny_model(seed=3, tie_word_embeddings=False)
    model.save_pretrained(folder)
    prompts = make_prompts(["What is the capital of Italy?", "Say it twice: lamp."])
    here = generation.generate(model, tokenizer, prompts, max_new_tokens=8)
    with serving.serve(folder) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        [server] = list_children()
        settings = {"model": "tiny", "max_tokens": 8, "temperature": 0}
        served = [json.loads(post(url, messages=p, **settings)) for p in prompts]
        events = post(url, messages=prompts[0], stream=True, **settings)
    said = [answer["choices"][0]["message"]["content"] for answer in served]
    assert [text.strip() for text in said] == [text.strip() for text in here]
    assert all(here)
    rows = [json.loads(line[6:]) for line in events.splitlines() if line[5:7] == " {"]
    pieces = [row["choices"][0]["delta"].get("content") or "" for row in rows]
    assert "".join(pieces).strip() == here[0].strip()
    assert not server.is_running()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


@pytest.mark.slow
def test_wren_over_http_gives_its_own_answers_and_nothing_of_the_prompt(wren_config):
    from ftlib import forgetting, models

    tokenizer = models.load_tokenizer(wren_config)
    model = models.load_base(wren_config.change(load_in_4bit=False))
    probes = forgetting.load_probes(8)
    prompts = [probe["messages"] for ability in probes.values() for probe in ability]
    here = generation.generate(model, tokenizer, prompts, max_new_tokens=24)
    with serving.serve(WREN) as url:
        settings = {"model": "wren", "max_tokens": 24}
        answers = [json.loads(post(url, messages=p, **settings)) for p in prompts]
    said = [answer["choices"][0]["message"]["content"] for answer in answers]
    same = [a.strip() == b.strip() for a, b in zip(said, here, strict=True)]
    assert len(same) == 64
    assert sum(same) >= 62  # bfloat16 with autocast here, without it there


def test_a_server_is_offline_on_this_machine_alone_and_beside_no_strange_file(
    folder, pretend
):
    (folder.parent / "json.py").write_text("raise SystemExit('a strange file')")
    pretend(f"import json; print(json.dumps([sys.argv[1:], dict(os.environ)])); {SERVE}"
            "time.sleep(60)")  # fmt: skip
    with serving.serve(folder, port=8123) as url:
        assert url == ADDRESS
    log = (serving.RUNS / "serving" / "tiny.log").read_text()
    arguments, environment = json.loads(log.splitlines()[0])
    assert arguments == ["serve", "tiny", "--host", "127.0.0.1", "--port", "8123"]
    assert environment["HF_HUB_OFFLINE"] == environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_an_error_in_the_block_ends_the_server_too(folder, pretend):
    pretend(SERVE + "time.sleep(60)")
    seen = []

    def stumble():
        seen.extend(list_children())
        raise KeyError

    with pytest.raises(KeyError), serving.serve(folder):
        stumble()
    assert len(seen) == 1
    assert not seen[0].is_running()


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no signal to ignore")
def test_a_server_that_will_not_end_is_killed(folder, pretend, monkeypatch):
    monkeypatch.setattr(serving, "STOP_S", 0.2)
    pretend("import signal; signal.signal(15, signal.SIG_IGN); " + SERVE +
            "time.sleep(60)")  # fmt: skip
    with serving.serve(folder):
        [server] = list_children()
    assert not server.is_running()


def test_a_server_that_does_not_start_is_quoted_and_its_log_kept(folder, pretend):
    pretend("print('loading', flush=True); sys.exit('address already in use')")
    with (
        pytest.raises(RuntimeError, match="not start: address already in use") as error,
        serving.serve(folder),
    ):
        pytest.fail("it was said to serve")
    log = Path(re.search(r"all of it: (.*)\)", str(error.value))[1])
    assert log.read_text().splitlines()[-1] == "address already in use"
    assert "loading" in log.read_text()


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    folder, pretend, monkeypatch
):
    monkeypatch.setattr(serving, "START_S", 0.3)
    pretend("time.sleep(60)")
    with (
        pytest.raises(RuntimeError, match="did not start: it said nothing"),
        serving.serve(folder),
    ):
        pass
    assert list_children() == []


def test_what_cannot_be_served_is_named_with_the_remedy(folder, monkeypatch, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="merge the adapter"):
        serving.serve(adapter).__enter__()
    odd = folder.rename(folder.with_name("tiny@main"))
    with pytest.raises(ValueError, match="rename the folder 'tiny@main'"):
        serving.serve(odd).__enter__()
    found = {"fastapi": True, "openai": True}
    monkeypatch.setattr(serving, "find_spec", found.get)
    with pytest.raises(ImportError, match="uvicorn: pip install fastapi uvicorn open"):
        serving.serve(odd).__enter__()


def test_a_folder_with_code_of_its_own_is_neither_served_nor_written_about(
    folder, pretend, tmp_path, monkeypatch
):
    pretend(SERVE + "time.sleep(60)")
    seen = tmp_path / "ran"
    (folder / "evil.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        f"open({str(seen)!r}, 'w')\n"
        "class Evil(PreTrainedTokenizerFast):\n    pass\n"
    )
    (folder / "config.json").write_text('{"model_type": "evil"}')
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "Evil"}
    settings["auto_map"] = {"AutoTokenizer": [None, "evil.Evil"]}
    path.write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a user who says yes
    with pytest.raises(UnsafeError, match=r"evil.py can run code"):
        serving.serve(folder).__enter__()
    with pytest.raises(UnsafeError, match=r"evil.py can run code"):
        serving.write_recipes(folder, {})
    monkeypatch.setattr(serving, "refuse_unsafe", lambda folder: None)
    with pytest.raises(ValueError, match="trust_remote_code"):
        serving.write_recipes(folder, {})
    assert not seen.exists()


# --- the recipes -------------------------------------------------------------------


def make_adapter(folder, **settings):
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def recipes(folder):
    places = {"triage": folder.parent / "triage", "voice": folder.parent / "a $(b) 'c'"}
    for place, rank in zip(places.values(), (8, 12), strict=True):
        make_adapter(place, r=rank)
    return {path.name: path for path in serving.write_recipes(folder, places)}


def test_the_recipes_are_a_file_for_each_program_that_says_it_was_not_run(recipes):
    names = ["vllm.sh", "llama_cpp.sh", "Modelfile.triage", "Modelfile.voice"]
    assert list(recipes) == names
    for path in recipes.values():
        assert path.parent.name == "tiny-recipes"
        text = path.read_bytes().decode()
        assert "it was not run here.\n" in text[:100]
        assert "\r" not in text
        assert str(path.parents[1]) not in text  # no path of this machine


def list_calls(path, program):
    """Play the shell with a program that writes its arguments down."""
    script = path.parent / "stand_in.sh"
    lines = [line for line in path.read_text().splitlines() if "set -eu" not in line]
    stand_in = f"{program}() {{ printf '%s\\n' \"$@\" END; }}"
    script.write_text("\n".join([lines[0], stand_in, *lines[1:]]))
    ran = subprocess.run(
        ["sh", script.name], cwd=path.parent, capture_output=True, text=True
    )
    calls = ran.stdout.split("END\n")[:-1]
    return [call.splitlines() for call in calls]


needs_sh = pytest.mark.skipif(not shutil.which("sh"), reason="there is no sh here")


@needs_sh
def test_vllm_gets_each_adapter_by_name_and_a_rank_that_it_knows(recipes):
    [call] = list_calls(recipes["vllm.sh"], "vllm")
    assert call == [
        *["serve", "../tiny", "--served-model-name", "tiny", "--host", "127.0.0.1"],
        *["--enable-lora", "--max-lora-rank", "16", "--lora-modules"],
        *["triage=../triage", "voice=../a $(b) 'c'"],
    ]


@needs_sh
def test_llama_cpp_converts_base_and_adapters_before_it_serves(recipes, monkeypatch):
    monkeypatch.setenv("LLAMA_CPP", "/a b")
    first, *adapters = list_calls(recipes["llama_cpp.sh"], "python")[:3]
    converter = "/a b/convert_hf_to_gguf.py"
    assert first == [converter, "../tiny", "--outfile", "tiny.gguf"]
    converter = "/a b/convert_lora_to_gguf.py"
    tail = ["--base", "../tiny", "--outfile"]
    assert adapters == [
        [converter, "../triage", *tail, "triage.gguf"],
        [converter, "../a $(b) 'c'", *tail, "voice.gguf"],
    ]
    last = shlex.split(recipes["llama_cpp.sh"].read_text().splitlines()[-1])
    assert last[0] == "llama-server"
    assert last[-4:] == ["--lora", "triage.gguf", "--lora", "voice.gguf"]


def render_go(template, messages):
    """Render the part of Go's template language that the recipes use."""
    start, _, rest = template.partition("{{ range .Messages }}")
    body, end = rest.rsplit("{{ end }}{{ end }}", 1)
    branches = re.split(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}', body)
    assert branches[0] == ""
    texts = dict(zip(branches[1::2], branches[2::2], strict=True))
    turns = []
    for message in messages:
        opening, closing = texts[message["role"]].split("{{ .Content }}")
        assert "{{" not in opening + closing
        turns.append(opening + message["content"] + closing)
    return start + "".join(turns) + end


def read_template(path):
    return re.search(r'^TEMPLATE """(.*?)"""$', path.read_text(), re.S | re.M)[1]


def test_ollamas_template_renders_conversations_as_the_models_own_does(
    recipes, tokenizer
):
    template = read_template(recipes["Modelfile.voice"])
    for n in (2, 4, 6):
        wanted = tokenizer.apply_chat_template(
            CONVERSATION[:n], tokenize=False, add_generation_prompt=True
        )
        assert render_go(template, CONVERSATION[:n]) == wanted
        assert wanted.endswith("<|assistant|>")


def test_a_modelfile_has_its_weights_its_adapter_and_the_stop_token(recipes):
    lines = recipes["Modelfile.voice"].read_text().splitlines()
    assert lines[1:3] == ["FROM ./tiny.gguf", "ADAPTER ./voice.gguf"]
    assert lines[-2:] == ["PARAMETER temperature 0", 'PARAMETER stop "<|end|>"']


def test_without_adapters_there_is_one_modelfile_and_no_lora(folder):
    made = {path.name: path.read_text() for path in serving.write_recipes(folder, {})}
    assert list(made) == ["vllm.sh", "llama_cpp.sh", "Modelfile"]
    assert "lora" not in made["vllm.sh"]
    assert "ADAPTER" not in made["Modelfile"]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def change_template(folder, template):
    (folder / "chat_template.jinja").write_text(template)


def test_a_template_of_another_family_is_translated_too(folder, tokenizer):
    change_template(folder, CHATML)
    path = serving.write_recipes(folder, {})[-1]
    assert render_go(read_template(path), CONVERSATION[:2]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        'Say "{{ hello }}"\nand stop.<|im_end|>\n<|im_start|>assistant\n'
    )


def test_a_role_that_the_template_refuses_is_left_out(folder):
    no_tools = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}"
        "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    change_template(folder, no_tools)
    template = read_template(serving.write_recipes(folder, {})[-1])
    assert '"assistant"' in template
    assert '"tool"' not in template


# As Gemma 3 has it: what the system says stands before the first user's words.
MERGED = (
    "{% if messages[0].role == 'system' %}{% set lead = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set lead = '' %}"
    "{% set rest = messages %}{% endif %}"
    "{% for m in rest %}<{{ m.role }}>{{ lead if loop.first else '' }}"
    "{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# As Qwen 3 has it: tools that answer in a row share one turn.
SHARED_TURN = (
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<user>{% endif %}"
    "[{{ m.content }}]"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<end>{% endif %}"
    "{% else %}<{{ m.role }}>{{ m.content }}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "kept", "left_out"),
    [(MERGED, "tool", "system"), (SHARED_TURN, "system", "tool")],
)
def test_a_role_that_would_render_otherwise_is_left_out_and_said_to_be(
    folder, template, kept, left_out
):
    change_template(folder, template)
    path = serving.write_recipes(folder, {})[-1]
    made = read_template(path)
    assert f'eq .Role "{kept}" }}}}<{kept}>{{{{ .Content }}}}<end>{{{{' in made
    assert f'"{left_out}"' not in made
    assert "Alpha" not in made  # what the template was asked with
    assert "Beta" not in made
    assert f"\n# No role {left_out}: " in path.read_text()
    assert f"No role {kept}" not in path.read_text()


def test_a_template_without_an_assistant_is_refused(folder):
    change_template(
        folder,
        "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}"
        "{% endif %}[{{ m.content }}]{% endfor %}",
    )
    with pytest.raises(ValueError, match="role by role"):
        serving.write_recipes(folder, {})


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML.replace("m.content }}", "m.content | upper }}"), "role by role"),
        (CHATML.replace("<|im_end|>", "{{ loop.index }}"), "role by role"),
        (CHATML.replace("<|im_end|>", '"'), "quote or braces"),
        (CHATML.replace("<|im_end|>", "{{ '{{' }}"), "quote or braces"),
    ],
)
def test_a_template_that_ollamas_cannot_say_is_refused(folder, template, reason):
    change_template(folder, template)
    with pytest.raises(ValueError, match=rf"{reason}.*write\s+its Modelfile by hand"):
        serving.write_recipes(folder, {})


def test_names_that_could_be_read_as_commands_and_adapters_of_another_kind_are_refused(
    folder,
):
    place = make_adapter(folder.parent / "ia3", peft_type="IA3")
    for name in ("a b", "-x", "a;b", "$(b)", "../a", "a\nb", ""):
        with pytest.raises(ValueError, match="use letters, digits"):
            serving.write_recipes(folder, {name: place})
    with pytest.raises(ValueError, match="LoRA alone: merge"):
        serving.write_recipes(folder, {"ia3": place})
    assert not (folder.parent / "tiny-recipes").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "LoRA alone: merge odd"),
        ({"peft_type": "ADALORA"}, "LoRA alone: merge odd"),
        ({"use_rslora": True}, r"alpha / sqrt\(r\): merge it"),
    ],
)
def test_a_lora_that_other_servers_would_apply_wrongly_is_refused(
    folder, settings, reason
):
    place = make_adapter(folder.parent / "odd", r=8, **settings)
    with pytest.raises(ValueError, match=reason):
        serving.write_recipes(folder, {"odd": place})


@pytest.mark.parametrize("name", ["tiny", "Tiny"])
def test_an_adapter_named_as_the_model_is_refused(folder, name):
    place = make_adapter(folder.parent / "odd", r=8)
    with pytest.raises(ValueError, match="rename the adapter 'tiny'"):
        serving.write_recipes(folder, {name: place})


def test_recipes_written_anew_leave_no_modelfile_of_an_adapter_that_is_gone(
    folder, recipes
):
    home = recipes["vllm.sh"].parent
    (home / "Modelfile.mine").write_text("FROM ./mine.gguf\n")
    (home / "triage.gguf").write_bytes(b"weights")
    serving.write_recipes(folder, {"voice": folder.parent / "a $(b) 'c'"})
    assert {path.name for path in home.iterdir()} == {
        *("vllm.sh", "llama_cpp.sh", "Modelfile.voice"),
        *("Modelfile.mine", "triage.gguf"),  # not written by write_recipes
    }


def test_a_gguf_file_holds_the_models_weights_and_its_end_token(folder, tiny_model):
    gguf = pytest.importorskip("gguf")
    converter = shutil.which("convert_hf_to_gguf.py")
    if not converter:
        pytest.skip("llama.cpp's convert_hf_to_gguf.py is not on the path")
    model = tiny_model()
    model.save_pretrained(folder)
    path = folder / "tiny.gguf"
    command = [sys.executable, converter, str(folder), "--outfile", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "not recognized" in ran.stderr:
        pytest.skip("the converter does not know Wren's tokenizer")
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) > 0
    end = reader.fields["tokenizer.ggml.eos_token_id"]
    assert int(end.parts[end.data[0]][0]) == 2
