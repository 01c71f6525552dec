"""FSDP2: what is spread, and checkpoints that any other strategy goes on with."""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from launch import CPU, HERE, ROOT, ended, ranks_alone, torchrun
from lightning import Trainer
from peft import PeftModel
from resumable import last, settings, write_shards
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, SiglipVisionModel

from vilamp.build import build_model, build_object, build_optim
from vilamp.config import compose, conf_dir
from vilamp.errors import ConfigError, PluginError, Preempted
from vilamp.models.precision import held_in
from vilamp.training.run import evaluate, train
from vilamp.training.sharding import FullyShard, shard
from vilamp.training.trained import PEFT_CONFIG

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
TRAINERS = sorted(path.stem for path in (conf_dir() / "trainer").glob("*.yaml"))
EVEN = ["lora=vision", "lora.dropout=0", "optim.warmup=0.3"]  # nothing that draws another number on another rank


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests here."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def test_a_spread_run_is_stopped_goes_on_and_ends_in_one_process(shards: Path, tmp_path: Path) -> None:
    common = [*EVEN, "trainer.max_epochs=1"]
    one = ["data.batch_size=2", f"paths.output_dir={tmp_path}/whole"]
    train(compose("train", [*settings(shards, tmp_path / "whole", *common), *one]))
    arguments = [*settings(shards, tmp_path / "parts", *common), "resume=auto"]
    for steps, moment in ((2, "train/2/SIGTERM/0"), (4, "train/2/SIGTERM/1")):
        script = [str(tmp_path / "notes"), moment, *arguments, "trainer=fsdp", *CPU]
        done = [ended(process) for process in ranks_alone(HERE / "driven.py", script, ranks=2)]
        assert [rank.returncode for rank in done] == [Preempted.CODE] * 2, done[0].stderr + done[1].stderr
        assert last(tmp_path / "parts")["global_step"] == steps
    stored = last(tmp_path / "parts")
    assert not any(isinstance(weight, DTensor) for weight in stored["state_dict"].values())
    train(compose("train", [*arguments, "data.batch_size=2", f"paths.output_dir={tmp_path}/parts"]))
    first, second = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert first["state_dict"].keys() == second["state_dict"].keys() == stored["state_dict"].keys()
    for name, weight in first["state_dict"].items():
        torch.testing.assert_close(weight, second["state_dict"][name], rtol=1e-4, atol=1e-5)


def test_two_nodes_meet_and_what_they_leave_is_read_by_one_process(shards: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    arguments = settings(shards, tmp_path / "run", *EVEN, "trainer.max_epochs=1", "report=true", "trainer=multi_node")
    arguments += CPU
    nodes = [torchrun(ROOT / "train.py", arguments, 1, *launcher, "--rdzv-id=one") for _ in range(2)]
    done = [ended(node) for node in nodes]
    assert [node.returncode for node in done] == [0, 0], done[0].stderr + done[1].stderr
    assert (tmp_path / "run" / "timeline.png").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    scored = evaluate(compose("evaluate", [f"checkpoint={best}", "logger=csv", f"paths.output_dir={tmp_path}/scored"]))
    assert scored.metrics["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-4)
    assert scored.metrics["val/accuracy"] == metrics["val/accuracy"]
    check_plain_peft_loads(tmp_path / "run" / "adapter", torch.load(best, weights_only=True)["state_dict"])


def check_plain_peft_loads(adapter: Path, stored: dict[str, torch.Tensor]) -> None:
    """What a spread run left of its adapters is whole, and as in the checkpoint."""
    for kind, folder, held in (
        (AutoModelForCausalLM, adapter, "language_model.lm"),
        (SiglipVisionModel, adapter / "vision_tower", "vision_tower.siglip"),
    ):
        base = kind.from_pretrained(json.loads((folder / PEFT_CONFIG).read_text())["base_model_name_or_path"])
        with warnings.catch_warnings():  # PEFT asks Transformers for something under its old name
            warnings.simplefilter("ignore", FutureWarning)
            state = PeftModel.from_pretrained(base, folder).state_dict()
        loaded = {name.removeprefix("base_model.model."): w for name, w in state.items() if "lora_" in name}
        ours = {name: w for name, w in stored.items() if "lora_" in name and name.startswith(f"model.{held}.")}
        assert loaded.keys() == {name.removeprefix(f"model.{held}.") for name in ours} and loaded
        for name, weight in loaded.items():
            assert torch.equal(weight, ours[f"model.{held}.{name}"]), name


@pytest.fixture
def four_nodes_of_eight() -> Iterator[None]:
    """As if this were the first of 32 processes."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=32)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("sizes", "ways"), [((32,), 32), ((4, 8), 8)], ids=["fsdp", "multi_node"])
@pytest.mark.parametrize("lora", ["none", "vision"])
def test_each_gpu_holds_its_share_of_the_7b(
    four_nodes_of_eight: None, sizes: tuple[int, ...], ways: int, lora: str
) -> None:
    cfg = compose("memory", ["mode=train", "optim=paper", f"lora={lora}", "model.projector.path=random"])
    model = build_model(cfg, weights=False)
    build_optim(cfg).freeze(model)
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        dtype = held_in(name, parameter, torch.bfloat16)
        held = torch.nn.Parameter(parameter.to("meta", dtype), requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(owner), leaf, held)
    sizes_whole = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(sizes_whole.values()) > 8e9
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("nodes", "processes")[-len(sizes) :])
    shard(model, mesh, torch.bfloat16)
    mine = 0
    for name, parameter in model.named_parameters():
        if parameter.dim() == 0:  # of the scorer
            continue
        assert isinstance(parameter, DTensor), name
        assert parameter.numel() == sizes_whole[name]
        mine += parameter.to_local().numel()
    assert mine == pytest.approx(sum(sizes_whole.values()) / ways, rel=1e-3)


def test_a_single_number_that_trains_is_refused(four_nodes_of_eight: None) -> None:
    cfg = compose("train", ["variant=release"])
    model = build_model(cfg)
    build_optim(cfg).freeze(model)
    with pytest.raises(ConfigError, match=r"merger\.alpha is a single number.*trainer=ddp.*merger\.learn_alpha=false"):
        shard(model, init_device_mesh("cpu", (32,)))


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("started_by", ["nobody", "torchrun", "slurm"])
def test_every_trainer_is_built_as_it_was_started(name: str, started_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = {
        "nobody": {},
        "torchrun": {"LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3"},
        "slurm": {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "3"},
    }[started_by]
    for variable, value in started.items():
        monkeypatch.setenv(variable, value)
    cfg = compose("train", [f"trainer={name}", *CPU])
    if name == "deepspeed":
        with pytest.raises(PluginError, match=r"trainer: cannot construct .*DeepSpeed"):
            build_object(cfg.trainer, Trainer, "trainer", logger=False)
        return
    trainer = build_object(cfg.trainer, Trainer, "trainer", logger=False)
    several = name not in ("cpu", "gpu") and started_by != "nobody"
    assert (trainer.num_devices, trainer.num_nodes) == ((2, 3) if several else (1, 1))
    if name in ("fsdp", "multi_node"):
        assert isinstance(trainer.strategy, FullyShard)
        assert trainer.strategy.within_node == (name == "multi_node")
